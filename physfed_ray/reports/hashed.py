"""A text encoder without weights, for machines that have no language model."""

import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from pydantic import Field

from physfed_ray.code_version import code_version
from physfed_ray.reports.base import PartSettings, TextEncoder

_WORD = re.compile(r"\w+")


class HashedSettings(PartSettings):
    """Settings of the hashed words."""

    dim: int = Field(384, ge=8, le=65536, description="length of the vector")


class HashedWords(TextEncoder):
    """Counts of a report's words and pairs of words, hashed (Weinberger et al. 2009).

    Each word, and each pair of neighbours, adds 1 or -1 to one of ``dim`` numbers; both follow from
    its hash. The vector has unit length. It tells reports apart by their words alone: two words for
    one thing are as different as any two words.
    """

    name = "hashed"
    Settings = HashedSettings
    settings: HashedSettings

    @property
    def version(self) -> str:
        """See ``TextEncoder``."""
        return f"{code_version('reports/hashed.py')}-{self.dim}"

    @property
    def tokens(self) -> int:
        """See ``TextEncoder``."""
        return 1

    @property
    def dim(self) -> int:
        """See ``TextEncoder``."""
        return self.settings.dim

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See ``TextEncoder``."""
        vectors = np.stack([self._vector(text) for text in texts])[:, None]
        return vectors, np.ones(vectors.shape[:2], np.uint8)

    def _vector(self, text: str) -> np.ndarray:
        words = ["", *_WORD.findall(text.lower())]
        vector = np.zeros(self.dim, np.float32)
        for term in (*words, *map(" ".join, pairwise(words))):
            term_hash = blake2b(term.encode(errors="surrogatepass"), digest_size=8).digest()
            number = int.from_bytes(term_hash, "little")
            vector[(number >> 1) % self.dim] += 1 - 2 * (number & 1)
        norm = np.linalg.norm(vector)
        return vector / norm if norm else vector
