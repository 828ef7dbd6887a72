"""Reporters and text encoders by the names that experiments use."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Protocol, TypeVar

import numpy as np

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.encoder import SentenceEncoder
from physfed_ray.reports.measured import MeasuredReporter


class Reporter(Protocol):
    """Image to text.

    Attributes:
        name: Name in the registry.
        version: Changes whenever the same image would get another text.
    """

    name: str
    version: str

    def report(self, hu: np.ndarray) -> list[str]:
        """Describe each of B slices, (B, n, n) float32 in HU."""
        ...


class TextEncoder(Protocol):
    """Text to embeddings.

    Attributes:
        name: Name in the registry.
        dim: Length d of one vector.
        tokens: Vectors per text, T.
        version: Changes whenever the same text would get other vectors.
    """

    name: str
    dim: int
    tokens: int
    version: str

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, T, d) float32 embeddings and their (N, T) bool mask."""
        ...


REPORTERS: Mapping[str, Callable[[], Reporter]] = {"measured": MeasuredReporter}
ENCODERS: Mapping[str, Callable[[], TextEncoder]] = {"minilm": SentenceEncoder}

T = TypeVar("T")


def make_reporter(name: str) -> Reporter:
    """Return the reporter called ``name``.

    Raises:
        PhysFedError: If there is no such reporter.
    """
    return _look_up("reporter", "reports.reporter", REPORTERS, name)()


def make_encoder(name: str) -> TextEncoder:
    """Return the text encoder called ``name``.

    Raises:
        PhysFedError: If there is no such encoder, or its weights are not installed.
    """
    return _look_up("text encoder", "reports.encoder", ENCODERS, name)()


def _look_up(noun: str, key: str, known: Mapping[str, T], name: str) -> T:
    """Return ``known[name]``, or say which name was probably meant."""
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"choose one of: {', '.join(sorted(known))}."
    raise PhysFedError(f"There is no {noun} called `{name}` ({key}): {hint}")
