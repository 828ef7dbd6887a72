"""Neighbouring views are denoised together, then reconstructed by FBP (Sun et al. 2024).

Nothing is trained. What is not given is chosen for each client on validation slices, together with
the kernel, because both trade resolution for noise. The search starts from the tuned kernel alone
and may stay there: on the slices of its choice it is never worse than ``fbp`` with a tuned kernel.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from physfed_ray.ct.neighbouring import Reference, denoise_views
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.simulation import Simulation
from physfed_ray.errors import PhysFedError
from physfed_ray.front_ends.base import Choice, FrontEnd, FrontEndSettings, Measured
from physfed_ray.front_ends.fbp import (
    kernel_widths,
    scanner_width,
    squared_error,
    tuned_kernel,
    with_kernel,
)
from physfed_ray.front_ends.search import descend

GROUPS = (2.0, 4.0, 8.0, 16.0)
THRESHOLDS: Mapping[Reference, tuple[float, ...]] = {
    "noise": (0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0, 2.5, 3.2),
    "first": (0.001, 0.0014, 0.002, 0.0028, 0.004, 0.0056, 0.008, 0.011, 0.016, 0.022, 0.032),
}
LIKELY = (8.0, 1.3, 0.004, 1.0)
"""Where the search begins: these views, threshold of either kind and sliding are near the best of
most scanners."""


def _views(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 1):
        return value
    raise ValueError(f"must be 'auto' or a whole number from 2 on, not {value!r}")


def _threshold(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (number and 0 <= value < np.inf):
        return value
    raise ValueError(f"must be 'auto' or a number from 0 on, not {value!r}")


class NeighbourViewsSettings(FrontEndSettings):
    """Keys under ``front_end:``."""

    views: Annotated[int | Literal["auto"], BeforeValidator(_views)] = Field(
        "auto", description="neighbouring views of a group, t; auto: chosen for each client"
    )
    threshold: Annotated[float | Literal["auto"], BeforeValidator(_threshold)] = Field(
        "auto",
        description="singular values up to so many times the reference are dropped; 0 keeps all; "
        "auto: chosen for each client",
    )
    relative_to: Reference = Field(
        "noise",
        description="the threshold's reference: noise, the singular value of noise alone; first, "
        "the largest of the group, as in the paper",
    )
    sliding: bool | Literal["auto"] = Field(
        "auto",
        description="true: a group begins at every view, and a view is the mean over its groups; "
        "false: where the one before it ends; auto: chosen for each client",
    )
    kernel: Literal["scanner", "tuned"] = Field(
        "tuned",
        description="scanner: the scan's own kernel; tuned: chosen for each client together with "
        "the rest",
    )


class NeighbourViews(FrontEnd):
    """Truncated singular value decompositions of groups of views, and an FBP."""

    name = "neighbour_views"
    title = "neighbouring views"
    paper = "Sun, Xia, Zhao, Zhang and He 2024, arXiv 2412.06135 (reading of the abstract)"
    Settings = NeighbourViewsSettings
    settings: NeighbourViewsSettings
    of_images = False

    @property
    def prepares(self) -> bool:
        """Whether it makes images: always."""
        return True

    @property
    def chooses(self) -> bool:
        """Whether a setting is left to be chosen."""
        given = self.settings
        open_ones = "auto" in (given.views, given.threshold, given.sliding)
        return open_ones or given.kernel == "tuned"

    def choose(self, slices: Measured) -> Choice:
        """Return the kernel's width in pixels of the image, views, threshold and sliding (0, 1).

        Raises:
            PhysFedError: The protocol has fewer views than a group.
        """
        grids = self._grids(slices.protocol, slices.simulation)
        start = {name: next((v for v in LIKELY if v in grid), grid[-1])
                 for name, grid in grids.items()}  # fmt: skip
        if not self.chooses:
            return start
        tried = _Tried(slices, self.settings.relative_to)
        start["kernel_pixels"] = tuned_kernel(tried.slices, list(grids["kernel_pixels"]))[0]
        alone = [{**start, "threshold": 0.0}] if self.settings.threshold == "auto" else []
        return min([*alone, descend(tried.error, grids, start)], key=tried.error)

    def _grids(self, protocol: Protocol, simulation: Simulation) -> dict[str, tuple[float, ...]]:
        """Return the values of each setting to choose from: one where it is given."""
        views, threshold, sliding, kernel = (
            getattr(self.settings, key) for key in ("views", "threshold", "sliding", "kernel")
        )
        most = protocol.views
        if views != "auto" and views > most:
            raise PhysFedError(
                f"front_end.views: groups of {views} views cannot be made of a protocol's {most} "
                f"views; give at most {most}, or auto"
            )
        possible = tuple(t for t in GROUPS if t <= most) or (1.0,)
        thresholds = THRESHOLDS[self.settings.relative_to]
        tuned, own = kernel_widths(protocol, simulation), scanner_width(protocol, simulation)
        return {
            "threshold": thresholds if threshold == "auto" else (float(threshold),),
            "kernel_pixels": tuple(tuned) if kernel == "tuned" else (own,),
            "views": possible if views == "auto" else (float(views),),
            "sliding": (0.0, 1.0) if sliding == "auto" else (float(sliding),),
        }

    def reconstruct(
        self,
        line_integrals: NDArray[np.float32],
        protocol: Protocol,
        simulation: Simulation,
        choice: Choice,
        *,
        device: str = "cpu",
    ) -> NDArray[np.float32]:
        """See ``FrontEnd``."""
        rows = _denoised(line_integrals, protocol, simulation, choice, self.settings.relative_to)
        return with_kernel(rows, protocol, simulation, choice["kernel_pixels"], device=device)


class _Tried:
    """What settings give on some slices; what has been tried is not tried again.

    Args:
        slices: The slices.
        relative_to: The threshold's reference.
    """

    def __init__(self, slices: Measured, relative_to: Reference) -> None:
        self.slices = slices
        self._relative_to: Reference = relative_to
        self._errors: dict[tuple[float, ...], float] = {}
        self._last: tuple[tuple[float, ...], NDArray[np.float32]] | None = None

    def error(self, choice: Choice) -> float:
        """Return the ``squared_error`` of settings."""
        width = choice["kernel_pixels"]
        key = (choice["views"], choice["threshold"], choice["sliding"])
        if (*key, width) not in self._errors:
            protocol, simulation = self.slices.protocol, self.slices.simulation
            if self._last is None or self._last[0] != key:
                rows = self.slices.line_integrals
                rows = _denoised(rows, protocol, simulation, choice, self._relative_to)
                self._last = key, rows
            hu = with_kernel(self._last[1], protocol, simulation, width)
            self._errors[*key, width] = squared_error(hu, self.slices)
        return self._errors[*key, width]


def _denoised(
    line_integrals: NDArray[np.float32],
    protocol: Protocol,
    simulation: Simulation,
    choice: Choice,
    relative_to: Reference,
) -> NDArray[np.float32]:
    return denoise_views(
        np.asarray(line_integrals, np.float32),
        protocol,
        int(choice["views"]),
        choice["threshold"],
        sliding=bool(choice["sliding"]),
        relative_to=relative_to,
        electronic_noise=simulation.electronic_noise,
    )
