"""Words that may describe a slice: the candidate tokens of LEDA's semantic loss.

LEDA asks PubMedCLIP how well "A CT of <token>" fits the image. Its weights are not to be had by a
package, so by default a **stand-in** does so: the cosine of MiniLM's embedding of the slice's
report and that of "A CT of <token>". It has not seen the image: what the reporter gets wrong, the
tokens get wrong. Where the settings name the folder of a CLIP, that is asked instead.

Every report begins as "Axial CT of the ...", and "axial" would fit 236 of 240 slices of phantoms
best. So a share of the words' similarity to "Axial CT slice." is taken off first (the stand-in's
own; 0 leaves it out).

Both are then the paper's: similarities are normalised to [0, 1] over the vocabulary for each slice,
and layer l may have the words above 0.95, 0.9 and 0.8.
"""

import logging
import re
from collections.abc import Sequence
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from physfed_ray.assets.base import Examples
from physfed_ray.assets.leda.clip import Clip
from physfed_ray.atomic import atomic_file
from physfed_ray.cache import cache_folder
from physfed_ray.reports.encoder import MiniLM, minilm_folder

LOG = logging.getLogger(__name__)

THRESHOLDS = (0.95, 0.9, 0.8)
"""Of the three layers, in the paper."""
PROMPT = "A CT of {}"
NEUTRAL = "Axial CT slice."
"""A report that says nothing of the anatomy."""
WORD = re.compile("[a-z]{2,}")
"""A token that is a whole word; pieces of words, digits and other scripts are none."""
AT_ONCE = 512
TABLE = "embeddings.word_embeddings.weight"


@cache
def token_names() -> tuple[str, ...]:
    """Return every token of MiniLM, by its number."""
    return tuple((minilm_folder() / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1])


@cache
def whole_words() -> dict[str, int]:
    """Return the number of every token that is a whole word."""
    return {name: number for number, name in enumerate(token_names()) if WORD.fullmatch(name)}


def token_table(numbers: Sequence[int]) -> Tensor:
    """Return rows of MiniLM's token table, (K, 384) float32."""
    with safetensors.safe_open(minilm_folder() / "model.safetensors", "pt") as file:
        table: Tensor = file.get_tensor(TABLE)
    return table[torch.as_tensor(numbers)].float().clone()


class Prompts(MiniLM):
    """MiniLM for very many short texts: those of equal length go through it together.

    Their last bits depend on their neighbours, which are always the same.
    """

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of N texts, (N, 384) float32 of unit length."""
        numbers = [self._token_ids(text) for text in texts]
        found = np.empty((len(texts), self.dim), np.float32)
        by_length: dict[int, list[int]] = {}
        for row, ids in enumerate(numbers):
            by_length.setdefault(len(ids), []).append(row)
        with torch.inference_mode():
            for rows in by_length.values():
                for first in range(0, len(rows), AT_ONCE):
                    part = rows[first : first + AT_ONCE]
                    batch = torch.tensor([numbers[row] for row in part])
                    states = self._model(input_ids=batch).last_hidden_state.mean(dim=1)
                    found[part] = torch.nn.functional.normalize(states, dim=-1).numpy()
        return found


class Candidates:
    """Similarities of slices and words, and the words that follow from them.

    Args:
        words: The vocabulary; None for all whole words of MiniLM.
        clip: Folder or hub id of a CLIP; None for the stand-in.
        neutral: Share of the similarity to a report that says nothing, which the stand-in
            takes off.
    """

    def __init__(
        self, words: Sequence[str] | None = None, clip: str | None = None, neutral: float = 0.0
    ) -> None:
        self.words = tuple(words or whole_words())
        self._clip = None if clip is None else Clip(clip)
        self._neutral = neutral
        self._known: dict[Any, tuple[np.ndarray, ...]] = {}

    def of(self, examples: Examples) -> list[tuple[np.ndarray, ...]]:
        """Return places in ``words`` for each slice and layer; each is found out once."""
        keys: list[Any] = list(
            examples.reports
            if self._clip is None
            else zip(examples.patients, examples.slices, strict=True)
        )
        new = [row for row, key in enumerate(keys) if key not in self._known]
        if new:
            for row, similarity in zip(new, self._similarity(examples, new), strict=True):
                self._known[keys[row]] = chosen(similarity)
        return [self._known[key] for key in keys]

    def _similarity(self, examples: Examples, rows: Sequence[int]) -> np.ndarray:
        """Return the similarity of some slices to every word, (B, V)."""
        if self._clip is None:
            seen = self._minilm.embed([examples.reports[row] for row in rows])
            if self._neutral:
                seen = seen - self._neutral * self._minilm.embed([NEUTRAL])
        else:
            seen = self._clip.images(examples.batch.full[list(rows)], examples.window_hu)
        similarity: np.ndarray = seen @ self._prompts.T
        return similarity

    @cached_property
    def _minilm(self) -> Prompts:
        return Prompts(Prompts.Settings())

    @cached_property
    def _prompts(self) -> np.ndarray:
        """Embeddings of "A CT of <word>", (V, d); of the cache where they were made before."""
        model: Any = self._minilm if self._clip is None else self._clip
        version = model.version if self._clip is None else self._clip.version
        texts = [PROMPT.format(word) for word in self.words]
        parts = "\n".join([version, str(AT_ONCE), *texts]).encode()
        path = cache_folder() / "prompts" / f"{blake2b(parts, digest_size=16).hexdigest()}.npy"
        found = _read(path, len(texts))
        if found is None:
            LOG.info("embedding %d prompts, once: %s", len(texts), path)
            found = model.embed(texts)
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, found)
        return found


def _read(path: Path, rows: int) -> np.ndarray | None:
    """Return an array of the cache; none where there is none, or a damaged one."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == rows else None


def chosen(similarity: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the words of each layer, by similarities (V,) that are normalised to [0, 1] first."""
    low, high = similarity.min(), similarity.max()
    scores = (similarity - low) / max(high - low, np.finfo(np.float32).tiny)
    return tuple(np.flatnonzero(scores >= threshold) for threshold in THRESHOLDS)
