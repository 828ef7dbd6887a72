"""What a reporter and a text encoder are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict


class PartSettings(BaseModel):
    """The settings of a reporter or an encoder: keys beside its ``name`` in the experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def with_model(self, reporter: "PartSettings") -> Self:
        """Return an encoder's settings with what they take over from the reporter's.

        Raises:
            PhysFedError: If the reporter has not what is missing.
        """
        return self


@dataclass(frozen=True)
class Described:
    """B slices in words and numbers.

    Attributes:
        report: B texts.
        embedding: f_t of each, (B, T, d) float32, not standardised; 0 where there is no token.
        mask: 1 where a token is real, (B, T) uint8; at least one of each text.
    """

    report: list[str]
    embedding: np.ndarray
    mask: np.ndarray

    def __len__(self) -> int:
        return len(self.report)


class Reporter(ABC):
    """Image to text.

    Making one is cheap: it checks its settings and that its model is there, and reads no weights
    before the first image, because the driver makes one only to learn its version.

    Args:
        settings: An instance of its ``Settings``.

    Raises:
        PhysFedError: If the model is not there, or is none that can do this.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[PartSettings]] = PartSettings
    uses_gpu: ClassVar[bool] = False
    """Whether a GPU makes it faster."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def version(self) -> str:
        """What changes whenever the same image would get another text: code, model, settings."""

    @abstractmethod
    def report(self, hu: np.ndarray) -> list[str]:
        """Describe each of B slices, (B, n, n) float32 in HU."""


class TextEncoder(ABC):
    """Text to embeddings. Made as cheaply as a reporter.

    Args:
        settings: An instance of its ``Settings``.

    Raises:
        PhysFedError: If the model is not there, or is none that can do this.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[PartSettings]] = PartSettings
    uses_gpu: ClassVar[bool] = False
    """Whether a GPU makes it faster."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def version(self) -> str:
        """What changes whenever the same text would get other vectors: code, model, settings."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Vectors per text, T; shorter texts are padded and masked."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length d of a vector."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, T, d) float32 embeddings and their (N, T) uint8 mask.

        A text's vectors do not depend on the other texts.
        """
