"""Text to vectors through a model of the Hugging Face kind.

Texts go through the model one at a time, unpadded. Matrix kernels sum in an order that depends on
the shape, so a batch would let a text's bits depend on its neighbours, and prepared data on how
the runtime cut the batches. On one CPU thread it costs nothing: the 90 rows of a report already
fill the kernels (MiniLM: 27 to 31 ms a text, alone or in a batch of 8).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np

from physfed_ray.code_version import code_version
from physfed_ray.errors import PhysFedError
from physfed_ray.reports.base import TextEncoder
from physfed_ray.reports.hub import ModelFiles
from physfed_ray.reports.pooling import pool_tokens

CLIP_TYPES = ("clip", "clip_text_model")
TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")

Pooling = Literal["mean", "cls", "eos"]


class TransformerEncoder(TextEncoder):
    """Vectors of unit length from the last hidden states of a model that reads text.

    The states of special tokens ([CLS], [SEP], ...) count as the others do: the published means
    include them, and an empty text has nothing else.

    Args:
        settings: With ``tokens``, the most vectors of a text.
        files: Where the model is.
        pooling: What becomes vectors: groups of all states, that of the first token (cls), or that
            of the last (eos).
        longest: Tokens of a text beyond which it is cut, if less than the model can take.

    Raises:
        PhysFedError: If the folder lacks a file of a text model.
    """

    def __init__(
        self, settings: Any, files: ModelFiles, pooling: Pooling, longest: int | None = None
    ) -> None:
        super().__init__(settings)
        files.require("its configuration", "config.json")
        files.require("its tokenizer", *TOKENIZER_FILES)
        self.files, self.pooling, self._longest = files, pooling, longest

    @property
    def version(self) -> str:
        """See ``TextEncoder``."""
        code = code_version("reports/transformer.py", "reports/pooling.py")
        return f"{code}-{self.files.version}-{self.pooling}-{self.tokens}-{self._longest}"

    @property
    def tokens(self) -> int:
        """See ``TextEncoder``."""
        return int(self.settings.tokens)

    @cached_property
    def dim(self) -> int:
        """See ``TextEncoder``."""
        projected = self.pooling == "eos" and self._has_projection
        # Named so in most models: transformers, which takes half a second, knows the others.
        stated = self.files.read("config.json").get("hidden_size")
        if stated is not None and not is_clip(self.files):
            return int(stated)
        return int(self._config.projection_dim if projected else self._config.hidden_size)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embed each text.

        Args:
            texts: N reports in any language, of any length, possibly empty; what exceeds the
                model's longest input is cut off.

        Returns:
            Embeddings (N, T, d) float32 of unit length, and their mask (N, T) uint8.

        Raises:
            PhysFedError: If the model's files cannot be read.
        """
        embeddings = np.zeros((len(texts), self.tokens, self.dim), np.float32)
        mask = np.zeros((len(texts), self.tokens), np.uint8)
        known: dict[str, int] = {}
        for row, text in enumerate(texts):
            first = known.setdefault(text, row)
            if first == row:
                embeddings[row], mask[row] = self._embed(text)
            embeddings[row], mask[row] = embeddings[first], mask[first]
        return embeddings, mask

    def _embed(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the (T, d) vectors of a text and their (T,) mask."""
        import torch

        with torch.inference_mode():
            states = self._states(text)
            real = torch.ones(states.shape[:2], device=states.device)
            vectors, mask = pool_tokens(states, real, self.tokens)
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors[0].cpu().numpy(), mask[0].cpu().numpy()

    def _states(self, text: str) -> Any:
        """Return the states (1, L, d) that are to be pooled; none of a text without tokens."""
        import torch

        ids = self._token_ids(text)
        device = next(self._model.parameters()).device
        if not ids:
            return torch.zeros((1, 0, self.dim), device=device)
        hidden = self._model(input_ids=torch.tensor([ids], device=device)).last_hidden_state
        if self.pooling == "mean":
            return hidden
        if self.pooling == "cls":
            return hidden[:, :1]
        # Nothing is padded, so the end token is the last one.
        end = hidden[:, -1:]
        return self._model.text_projection(end) if self._has_projection else end

    def _token_ids(self, text: str) -> list[int]:
        """Return the token numbers of a text, special tokens included."""
        # Characters that no UTF-8 file can hold (lone surrogates) become question marks.
        clean = text.encode("utf-8", "replace").decode()
        ids: list[int] = self._tokenizer(clean, truncation=True, max_length=self._max_tokens)[
            "input_ids"
        ]
        return ids

    @cached_property
    def _max_tokens(self) -> int:
        # Tokenizers that know no limit have one of 1e30.
        limits = (self._tokenizer.model_max_length, self._config.max_position_embeddings)
        return int(min(*limits, self._longest or limits[1]))

    @cached_property
    def _tokenizer(self) -> Any:
        # Imported here because transformers takes seconds that cached data need not wait for.
        from transformers import AutoTokenizer

        return self._load(AutoTokenizer)

    @cached_property
    def _has_projection(self) -> bool:
        """Whether the checkpoint projects a text's state to the space that images share."""
        architectures = self.files.read("config.json").get("architectures") or []
        return is_clip(self.files) and "CLIPTextModel" not in architectures

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        config = self._load(AutoConfig)
        if is_clip(self.files) and hasattr(config, "text_config"):
            config.text_config.projection_dim = config.projection_dim
            return config.text_config
        return config

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModel, CLIPTextModel, CLIPTextModelWithProjection

        kind: Any = AutoModel
        if is_clip(self.files):
            kind = CLIPTextModelWithProjection if self._has_projection else CLIPTextModel
        self.files.with_weights()
        model, info = self._load(
            kind, config=self._config, dtype=torch.float32, output_loading_info=True
        )
        # Weights that are missing would be random; BERT's pooler is not used.
        missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
        if missing:
            raise PhysFedError(
                f"The text model {self.files.model} lacks weights ({missing[0]} and "
                f"{len(missing) - 1} more): name a checkpoint that has its whole text tower."
            )
        device = "cuda" if self.uses_gpu and torch.cuda.is_available() else "cpu"
        return model.to(device).eval()

    def _load(self, kind: Any, **options: Any) -> Any:
        """Read a part of the model with a class of transformers."""
        from safetensors import SafetensorError

        # Code that comes with a model is never run; left open, a terminal would be asked.
        options |= {"local_files_only": True, "trust_remote_code": False}
        try:
            with _quiet():
                return kind.from_pretrained(self.files.folder, **options)
        except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise PhysFedError(
                f"The text model {self.files.model} cannot be read ({reason[:200]}): "
                "copy or download it again, or name another one."
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing every weight of a checkpoint that we do not use."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def is_clip(files: ModelFiles) -> bool:
    """Return whether this is a CLIP, whole or its text tower alone."""
    return files.read("config.json").get("model_type") in CLIP_TYPES
