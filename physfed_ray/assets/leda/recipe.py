"""How LEDA's autoencoder is trained (Chen et al. 2024, section 2.1; step 1 of LEDA).

    L      = L_VQGAN + alpha omega L_semantic,    omega = sg(L_VQGAN / L_semantic)           eq. (2)
    VQGAN  = mean (y - y~)^2 + beta commitment + gamma adaptive L_GAN

    plus usage sg(L_VQGAN) (1 - entropy of use / log K), this project's addition, where asked for

With ``variant: public_code`` the first is mean |y - y~|, and commitment and semantic loss are those
of the code. The perceptual term (0.1 in the paper, by VGG) is left out.

MiniLM's rows have lengths of 1.13 +- 0.16. The squared length of a row then decides more than its
direction: of 20,000 random features of length 1, the rows nearest to them among 1,000 words have a
perplexity of 3, and of over 900 once all rows have length 1. ``lengths: unit`` is this project's
remedy; the table in the file is as MiniLM has it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.assets.base import Examples, Recipe, Table
from physfed_ray.assets.leda.autoencoder import Leda
from physfed_ray.assets.leda.candidates import Candidates, token_names, token_table, whole_words
from physfed_ray.assets.leda.discriminator import PatchDiscriminator, adaptive_weight, hinge
from physfed_ray.assets.leda.look import candidate_rows, scores, word_tables
from physfed_ray.assets.leda.pyramid import Pyramid, perplexity, token_counts
from physfed_ray.assets.leda.semantic import (
    codebook_loss,
    commitment,
    commitment_of_the_public_code,
    semantic_loss,
    semantic_loss_of_the_public_code,
    unused,
)
from physfed_ray.assets.leda.settings import LedaSettings
from physfed_ray.seeds import derive_seed, generator

TABLE, TOKENS = "table", "tokens"
WIDTH = 384
"""Of a learned vector: as long as a row of the table."""
ROWS = 1000
"""Of a learned codebook whose size is not said."""


class LedaRecipe(Recipe):
    """An autoencoder whose tokens are words."""

    name = "leda"
    title = "LEDA's autoencoder"
    paper = (
        "Chen et al. 2024, arXiv 2403.06128, without the perceptual term; MiniLM's table and text "
        "similarity stand in for PubMedCLIP's"
    )
    Settings = LedaSettings
    settings: LedaSettings

    def __init__(self, settings: BaseModel) -> None:
        super().__init__(settings)
        self._words: tuple[str, ...] | None = None

    @property
    def turns(self) -> int:
        """Two with a discriminator."""
        return 2 if self.settings.gan else 1

    def constants(self, examples: Sequence[Examples], seed: int) -> Mapping[str, Tensor]:
        """Return the codebook, (K, 384), and the numbers of its tokens, (K,)."""
        draws = generator("leda", seed, "codebook")
        if self.settings.codebook == "learned":
            rows = self.settings.rows or ROWS
            start = draws.uniform(-1 / rows, 1 / rows, (rows, WIDTH))
            return {TABLE: torch.as_tensor(start, dtype=torch.float32)}
        if self.settings.rows is None:
            tokens = list(range(len(token_names())))
        else:
            wanted = self._candidates_of(examples)
            others = sorted(set(whole_words().values()) - wanted)
            missing = min(max(self.settings.rows - len(wanted), 0), len(others))
            extra = draws.choice(others, missing, replace=False).tolist()
            tokens = sorted({*wanted, *extra})
        self._words = tuple(token_names()[token] for token in tokens)
        return {TABLE: token_table(tokens), TOKENS: torch.tensor(tokens)}

    def _candidates_of(self, examples: Sequence[Examples]) -> set[int]:
        """Return the numbers of all tokens that are candidates of some slice."""
        places = {
            int(place)
            for some in examples
            for layers in self.candidates.of(some)
            for places in layers
            for place in places
        }
        return {whole_words()[self.candidates.words[place]] for place in places}

    @cached_property
    def candidates(self) -> Candidates:
        """What finds a slice's candidates."""
        return Candidates(self.settings.vocabulary, self.settings.clip, self.settings.neutral)

    def network(self, constants: Mapping[str, Tensor]) -> nn.Module:
        """Return a new autoencoder."""
        settings = self.settings
        network = Leda(
            settings.channels,
            settings.multipliers,
            self._codebook(constants[TABLE]),
            learned=settings.codebook == "learned",
            standardised=settings.standardise,
            tokens=constants.get(TOKENS),
        )
        if settings.gan:
            network.training_only = PatchDiscriminator(settings.gan_filters)
        return network

    def _codebook(self, table: Tensor) -> Tensor:
        """Return the rows that features are compared with."""
        fixed = self.settings.codebook == "table" and self.settings.lengths == "unit"
        return functional.normalize(table, dim=1) if fixed else table

    def words(self) -> Mapping[str, Sequence[str]]:
        """Return the word of each row of the codebook."""
        return {} if self._words is None else {"codebook": self._words}

    def parameters(self, network: nn.Module, turn: int) -> list[nn.Parameter]:
        """Return the autoencoder's parameters in turn 0, the discriminator's in turn 1."""
        return [
            parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad and name.startswith("training_only.") == bool(turn)
        ]

    def loss(
        self, network: nn.Module, examples: Examples, step: int, turn: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the autoencoder, or of the discriminator in turn 1."""
        full = examples.batch.full.float()
        with torch.autocast(full.device.type, enabled=False):
            if turn:
                return self._discriminator_loss(network, full, step)
            leda = cast(Leda, network)
            image, tokens = leda(full)
            loss, parts = self._vqgan(leda, full, image, tokens, step)
            vqgan = loss.detach()
            if self.settings.semantic:
                asked, said = self._semantic(leda, examples, tokens, step)
                omega = vqgan / asked.detach()
                loss = loss + self.settings.alpha * omega * asked
                parts |= {"semantic": asked, "omega": omega, **said}
            if self.settings.usage:
                parts["unused"] = unused(tokens, leda.table)
                share = self.settings.usage * vqgan / math.log(len(leda.table))
                loss = loss + share * parts["unused"]
        used = perplexity(token_counts(tokens, len(leda.table)))
        parts |= {"perplexity": loss.new_tensor(used)}
        return loss, {name: part.detach() for name, part in parts.items()}

    def _vqgan(
        self, network: Leda, full: Tensor, image: Tensor, tokens: Pyramid, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_VQGAN and its parts."""
        of_paper = self.settings.variant == "paper"
        error = full - image
        rebuilt = error.square().mean() if of_paper else error.abs().mean()
        bound = commitment(tokens) if of_paper else commitment_of_the_public_code(tokens)
        loss = rebuilt + self.settings.commitment_weight * bound
        parts = {"reconstruction": rebuilt, "commitment": bound}
        if self.settings.codebook == "learned":
            parts["codebook"] = codebook_loss(tokens)
            loss = loss + parts["codebook"]
        if self.settings.gan and step >= self.settings.gan_start:
            parts["adversarial"] = -_discriminator(network)(image).mean()
            weight = adaptive_weight(rebuilt, parts["adversarial"], network.last_weight)
            loss = loss + self.settings.adversarial_weight * weight * parts["adversarial"]
        return loss, parts

    def _semantic(
        self, network: Leda, examples: Examples, tokens: Pyramid, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the semantic loss, and the entropy of the paper's softmax."""
        candidates = candidate_rows(network, examples, self.candidates)
        if self.settings.variant == "paper":
            loss, entropy = semantic_loss(
                tokens, network.table, candidates, self.settings.temperature
            )
            return loss, {"entropy": entropy}
        draws = torch.Generator().manual_seed(derive_seed("leda", step, "candidates"))
        return semantic_loss_of_the_public_code(tokens, network.table, candidates, draws), {}

    def _discriminator_loss(
        self, network: nn.Module, full: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the hinge loss, 0 before the start."""
        with torch.no_grad():
            made, _ = network(full)
        discriminator = _discriminator(network)
        loss = hinge(discriminator(full), discriminator(made))
        if step < self.settings.gan_start:
            loss = 0 * loss
        return loss, {"discriminator": loss.detach()}

    def scores(self, network: nn.Module, held_out: Sequence[Examples]) -> dict[str, float]:
        """Return what is left of held-out slices, how many tokens are used, and their words."""
        return scores(cast(Leda, network), held_out, self._candidates_or_none())

    def tables(self, network: nn.Module, held_out: Sequence[Examples]) -> Sequence[Table]:
        """Return the words of some held-out slices, layer by layer (LEDA's Fig. 3)."""
        candidates = self._candidates_or_none()
        return () if candidates is None else word_tables(cast(Leda, network), held_out, candidates)

    def _candidates_or_none(self) -> Candidates | None:
        """Return the candidates, where the codebook has words."""
        return self.candidates if self.settings.codebook == "table" else None


def _discriminator(network: nn.Module) -> PatchDiscriminator:
    """Return what ``network`` has put beside the autoencoder."""
    return cast(PatchDiscriminator, network.training_only)
