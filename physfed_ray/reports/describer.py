"""A slice becomes its report and the embedding f_t of the report.

On one torch thread, so that the bits do not depend on who describes.
"""

import numpy as np

from physfed_ray.device import torch_threads
from physfed_ray.reports.base import Described, Reporter, TextEncoder


class Describer:
    """A reporter and a text encoder, one after the other.

    Args:
        reporter: Image to text.
        encoder: Text to f_t.
    """

    def __init__(self, reporter: Reporter, encoder: TextEncoder) -> None:
        self.reporter, self.encoder = reporter, encoder

    def describe(self, hu: np.ndarray) -> Described:
        """Return reports and embeddings of B slices, (B, n, n) float32 in HU."""
        return self.embed(self.report(hu))

    def report(self, hu: np.ndarray) -> list[str]:
        """Return the reports of B slices, (B, n, n) float32 in HU."""
        with torch_threads(1):
            return self.reporter.report(hu)

    def embed(self, texts: list[str]) -> Described:
        """Return the embeddings of B reports."""
        with torch_threads(1):
            return Described(texts, *self.encoder.encode(texts))
