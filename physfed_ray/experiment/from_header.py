"""A protocol of which the file gives some numbers, and the headers of measured images the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from physfed_ray.ct.protocol import Protocol

FROM_HEADER = ("pixel_mm", "source_mm", "detector_mm")
"""What the header of a CT image may say of the protocol."""
_STAND_IN = {"pixel_mm": 0.01, "source_mm": 600.0, "detector_mm": 500.0}
"""Until then: a field of view so small that every detector covers it."""


@dataclass(frozen=True)
class PartlyKnown(Protocol):
    """A protocol with numbers that stand for those of the headers.

    Attributes:
        from_header: Names of these numbers.
    """

    from_header: tuple[str, ...] = ()

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> Self:
        """Return the protocol with what is known of it.

        Raises:
            PhysFedError: A number that is known is not possible.
        """
        missing = tuple(name for name in FROM_HEADER if name not in known)
        numbers: dict[str, Any] = {name: _STAND_IN[name] for name in missing} | dict(known)
        return cls(**numbers, from_header=missing)

    def values(self) -> dict[str, Any]:
        """Return the numbers that the file gave, by name."""
        return {k: v for k, v in super().values().items() if k not in self.from_header}

    def completed(self, said: Mapping[str, float]) -> Protocol:
        """Return the protocol with the numbers that were missing.

        Raises:
            PhysFedError: Together they fit no scanner.
        """
        return Protocol(**self.values() | {name: said[name] for name in self.from_header})
