"""How DA-CLIP is trained: a reading of FoundDiff, whose public code has the network alone.

Chen et al. 2025, "FoundDiff", arXiv 2508.17299. Its code shows a CLIP with a dose and an anatomy
head, two antonym prompts and the name of a run that holds ``rnc_sup``; its figure names a loss of
dose ranking and one of anatomy discrimination. This project reads them as Rank-N-Contrast on the
logarithm of the reciprocal dose, supervised contrast over regions of the body, and a ranking of the
images by the prompts.

A small convolutional network stands for CLIP's RN50, and a learned linear map of two sentences that
MiniLM has embedded stands for the learned prompts. A small network that sees the plain image learns
no dose: noise is a few per cent of the window. So the input has a high-pass channel that shows it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from physfed_ray.assets.base import Examples, Recipe, RecipeSettings, Table
from physfed_ray.assets.da_clip.losses import (
    preference_ranking,
    rank_n_contrast,
    supervised_contrast,
)
from physfed_ray.assets.da_clip.network import DAClip, Input, Norm
from physfed_ray.assets.da_clip.scoring import (
    Seen,
    dose_rank_correlation,
    doses_table,
    nearest_region_accuracy,
)
from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.reports.encoder import MiniLM, MiniLMSettings
from physfed_ray.seeds import derive_seed

SENTENCES = ("high dose CT image.", "low dose CT noisy image.")
"""The class words of the code's prompts."""
SCORED_AT_ONCE = 32


class DAClipSettings(RecipeSettings):
    """Keys under ``asset:`` for DA-CLIP."""

    channels: int = Field(
        16, ge=1, le=256, description="channels of the first of four convolutions, which double"
    )
    dose_dim: int = Field(
        32, ge=2, le=4096, description="length of the dose embedding; 1024 in the code"
    )
    anatomy_dim: int = Field(
        32, ge=2, le=4096, description="length of the anatomy embedding; 256 in the code"
    )
    input: Input = Field(
        "noise",
        description="what the network sees: noise, the image and a high-pass channel that shows "
        "its noise; or image, it alone",
    )
    norm: Norm = Field("batch", description="normalisations: batch or group")
    labels: Literal[True, "shuffled"] = Field(
        True,
        description="true; or shuffled, each image keeping a random dose: a control that learns "
        "nothing of the dose",
    )
    held_out_doses: tuple[float, ...] = Field(
        (),
        description="reciprocal doses among those of the protocols that nothing is learned from, "
        "for scores of doses that it has not seen",
    )
    dose_temperature: float = Field(2.0, gt=0, description="temperature of Rank-N-Contrast")
    anatomy_temperature: float = Field(0.1, gt=0, description="that of supervised contrast")
    dose_weight: float = Field(1.0, ge=0, description="weight of Rank-N-Contrast")
    anatomy_weight: float = Field(1.0, ge=0, description="weight of supervised contrast")
    text_weight: float = Field(1.0, ge=0, description="weight of the ranking by two sentences")


class DAClipRecipe(Recipe):
    """Dose by Rank-N-Contrast, anatomy by supervised contrast, two sentences by ranking."""

    name = "da_clip"
    title = "DA-CLIP"
    paper = "reading of Chen et al. 2025, arXiv 2508.17299 (FoundDiff); its training is not public"
    Settings = DAClipSettings
    scanned = True
    settings: DAClipSettings

    def constants(self, examples: Sequence[Examples], seed: int) -> Mapping[str, Tensor]:
        """Return the photons of the full dose, the training doses, and the sentences' embeddings.

        Raises:
            PhysFedError: The protocols are not one scanner at several doses.
        """
        photons = _photons([p for part in examples for p in part.protocols])
        full = max(photons)
        learned = [p for p in photons if not self._is_held_out(full / p)]
        if len(learned) < 2:
            raise PhysFedError(
                "asset.held_out_doses: da_clip learns doses from their differences, and fewer than "
                "two are left: hold fewer out, or give more protocols"
            )
        sentences, _ = MiniLM(MiniLMSettings()).encode(SENTENCES)
        return {
            "full_photons": torch.tensor(full),
            "doses": torch.log2(full / torch.tensor(learned)).sort().values,
            "sentences": torch.from_numpy(sentences[:, 0]).float(),
        }

    def network(self, constants: Mapping[str, Tensor]) -> DAClip:
        """See ``Recipe``."""
        keys = self.settings
        return DAClip(
            keys.channels, keys.dose_dim, keys.anatomy_dim, keys.input, keys.norm, constants
        )

    def loss(
        self, network: nn.Module, examples: Examples, step: int, turn: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the three losses over two views of every slice.

        A view is the slice, flipped and turned by quarters at random, as in the code's data set of
        doses (its crop is left out: pixels outside the body say as little of the dose).
        """
        assert isinstance(network, DAClip)
        keys = self.settings
        examples = self._learned_from(network, examples)
        images = torch.cat([turned(examples.batch.low) for _ in range(2)])
        dose, anatomy = (embedding.float() for embedding in network(images))
        labels = self.labels(network, examples).to(images.device).float().repeat(2)
        names = sorted(set(examples.regions))
        classes = torch.tensor([names.index(region) for region in examples.regions] * 2)
        parts = {
            "dose": rank_n_contrast(dose, labels, keys.dose_temperature),
            "anatomy": supervised_contrast(
                anatomy, classes.to(images.device), keys.anatomy_temperature
            ),
            "text": preference_ranking(network.preference(dose), labels),
        }
        weights = (keys.dose_weight, keys.anatomy_weight, keys.text_weight)
        loss = torch.stack([w * part for w, part in zip(weights, parts.values(), strict=True)])
        return loss.sum(), {name: part.detach() for name, part in parts.items()}

    def _is_held_out(self, reciprocal: float) -> bool:
        return any(math.isclose(reciprocal, d, rel_tol=1e-4) for d in self.settings.held_out_doses)

    def _learned_from(self, network: DAClip, examples: Examples) -> Examples:
        """Return the slices of a batch whose doses are not held out.

        Raises:
            PhysFedError: There are none.
        """
        full = float(network.get_buffer("full_photons"))
        kept = [
            row
            for row, protocol in enumerate(examples.protocols)
            if not self._is_held_out(full / protocol.photons)
        ]
        if not kept:
            raise PhysFedError(
                "training.batch_size: a batch had slices of held-out doses alone, of which da_clip "
                "does not learn: give it more slices"
            )
        return examples if len(kept) == len(examples) else examples.rows(kept)

    def labels(self, network: DAClip, examples: Examples) -> Tensor:
        """Return what the dose head learns of each slice, (B,): log2 of its reciprocal dose.

        Shuffled, a slice under a protocol keeps one of the training doses, whichever batch it is
        in.
        """
        if self.settings.labels is True:
            return reciprocal_doses(network, examples)
        doses = network.get_buffer("doses")
        drawn = [
            derive_seed("da_clip", patient, slice_, str(protocol.photons)) % len(doses)
            for patient, slice_, protocol in zip(
                examples.patients, examples.slices, examples.protocols, strict=True
            )
        ]
        return doses[drawn]

    def scores(self, network: nn.Module, held_out: Sequence[Examples]) -> dict[str, float]:
        """Return rank correlations of the dose, and how well anatomy finds its region.

        ``dose_rank`` is of the doses of training, and ``unseen_dose_rank`` of those that only
        held-out slices have, where there are at least two. ``region_accuracy`` needs two patients
        of a region.
        """
        seen = self._seen(network, held_out)
        found = dose_rank_correlation(seen, network.get_buffer("doses"))
        accuracy = nearest_region_accuracy(seen)
        return found if math.isnan(accuracy) else {**found, "region_accuracy": accuracy}

    def tables(self, network: nn.Module, held_out: Sequence[Examples]) -> Sequence[Table]:
        """See ``Recipe``."""
        return (doses_table(self._seen(network, held_out), network.get_buffer("doses")),)

    def _seen(self, network: nn.Module, parts: Sequence[Examples]) -> Seen:
        """Return what a network makes of slices, as it is used: in evaluation mode."""
        assert isinstance(network, DAClip)
        training = network.training
        network.eval()
        with torch.inference_mode():
            found = [self._seen_part(network, part) for part in parts]
        network.train(training)
        dose, anatomy, quality, labels = (torch.cat(column) for column in zip(*found, strict=True))
        regions = tuple(region for part in parts for region in part.regions)
        patients = tuple(patient for part in parts for patient in part.patients)
        return Seen(dose, anatomy, quality, labels, regions, patients)

    def _seen_part(self, network: DAClip, part: Examples) -> tuple[Tensor, ...]:
        device = next(network.parameters()).device
        rows = torch.split(part.batch.low, SCORED_AT_ONCE)
        both = [network(images.to(device)) for images in rows]
        dose, anatomy = (torch.cat(column) for column in zip(*both, strict=True))
        quality = network.preference(dose).sigmoid()
        labels = reciprocal_doses(network, part)
        return dose.cpu().double(), anatomy.cpu().double(), quality.cpu().double(), labels.cpu()


def reciprocal_doses(network: DAClip, examples: Examples) -> Tensor:
    """Return log2 of the reciprocal dose of each slice, (B,) float64: 0 at full dose."""
    full = network.get_buffer("full_photons")
    photons = torch.tensor([p.photons for p in examples.protocols], dtype=torch.float64)
    return torch.log2(full / photons.to(full.device))


def turned(images: Tensor) -> Tensor:
    """Return images (B, 1, n, n), each flipped and turned by quarters at random."""
    views = []
    quarters = torch.randint(4, (len(images),)).tolist()
    flips = torch.randint(2, (len(images),)).tolist()
    for image, quarter, flip in zip(images, quarters, flips, strict=True):
        view = image.rot90(quarter, (1, 2))
        views.append(view.flip(2) if flip else view)
    return torch.stack(views)


def _photons(protocols: Sequence[Protocol]) -> list[float]:
    """Return the photons of each protocol once.

    Raises:
        PhysFedError: They differ in more than their photons, or are all alike.
    """
    if len({replace(p, photons=1.0) for p in protocols}) > 1:
        raise PhysFedError(
            "protocols: da_clip learns doses of one scanner, and these protocols differ in more "
            "than their photons: give one protocol several times, with the photons divided"
        )
    photons = sorted({p.photons for p in protocols})
    if len(photons) < 2:
        raise PhysFedError(
            "protocols: da_clip learns doses from their differences, and there is only one: give "
            "the same protocol with fewer photons as well"
        )
    return photons
