"""A slice becomes its report and the embedding f_t of the report."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

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
        with _one_thread():
            return self.reporter.report(hu)

    def embed(self, texts: list[str]) -> Described:
        """Return the embeddings of B reports."""
        with _one_thread():
            return Described(texts, *self.encoder.encode(texts))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one torch thread, so that the bits do not depend on who describes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
