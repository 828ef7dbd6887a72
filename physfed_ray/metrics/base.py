"""What a metric is: one number a slice, and what tables, pages and sweeps need to know of it."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from physfed_ray.metrics.phantoms import Made, Phantom
from physfed_ray.window import Window

T = TypeVar("T")
Images = NDArray[np.float32]
"""(N, n, n) float32 HU."""
Scores = dict[str, NDArray[np.float64]]
"""The numbers of each metric by its name, (N,); () where one belongs to all slices together."""
Need = Literal["body", "pixel_mm", "phantom"]


class Context:
    """What a metric may look at beside the images, and what metrics share of their work.

    A context belongs to the images that are scored with it and lives no longer than they do.

    Args:
        window: The window to measure in.
        body: Not 0 on the patient's body, (N, n, n).
        pixel_mm: Pixel length, mm.
        made: The phantom whose scans the images are, for metrics that are measured on one.
        outer: The context of the experiment's window, in that of a clinical window.

    Attributes:
        window: The window to measure in.
        outer: The context of the experiment's window; None where this is that one.
    """

    def __init__(
        self,
        window: Window,
        body: NDArray[Any] | None = None,
        pixel_mm: float = math.nan,
        made: Made | None = None,
        outer: "Context | None" = None,
    ) -> None:
        self.window, self.outer = window, outer
        self._body, self._pixel_mm, self._made = body, pixel_mm, made
        self._kept: dict[tuple[Any, int, int], tuple[Any, Images, Images]] = {}

    @property
    def body(self) -> NDArray[Any]:
        """Not 0 on the patient's body, (N, n, n)."""
        if self._body is None:
            raise ValueError("the metric needs the body, which this context has not been given")
        return self._body

    @property
    def pixel_mm(self) -> float:
        """Pixel length, mm."""
        if math.isnan(self._pixel_mm):
            raise ValueError("the metric needs pixel_mm, which this context has not been given")
        return self._pixel_mm

    @property
    def made(self) -> Made:
        """The phantom whose scans the images are."""
        if self._made is None:
            raise ValueError("the metric needs a phantom, which this context has not been given")
        return self._made

    def within(self, window: Window) -> Self:
        """Return the context of a clinical window, which keeps what it computes to itself."""
        return type(self)(window, self._body, self._pixel_mm, self._made, outer=self)

    def shared(
        self, compute: Callable[[Images, Images, "Context"], T], denoised: Images, reference: Images
    ) -> T:
        """Return what several metrics need of two sets of images, computed once.

        Args:
            compute: A function with the signature of a metric. Who uses its result must not
                change it.
            denoised: Images, (N, n, n) float32 HU.
            reference: Full-dose images, same shape, HU.
        """
        key = compute, id(denoised), id(reference)
        if key not in self._kept:
            self.keep(compute, denoised, reference, compute(denoised, reference, self))
        found: T = self._kept[key][0]
        return found

    def keep(
        self,
        compute: Callable[[Images, Images, "Context"], T],
        denoised: Images,
        reference: Images,
        result: T,
    ) -> None:
        """Keep a result of ``shared`` that is known already."""
        self._kept[compute, id(denoised), id(reference)] = result, denoised, reference


class Metric(ABC):
    """One number a slice.

    Attributes:
        name: Its name in files and experiments; in a clinical window the window follows.
        heading: What tables and axes call it.
        unit: Of the printed number, "" without one.
        scale: Factor from stored to printed.
        decimals: Digits after the point in tables.
        better: Which direction is better; with "neither" no table marks a best.
        clinical: Whether it is measured in the clinical windows as well.
        needs: What it looks at beside the images and the window.
        phantom: For a metric that is measured on scans of a phantom, which one.
        note: What a caption says of it; metrics that belong together say the same.
        source: Paper or standard that defines it.
    """

    name: str
    heading: str
    unit: ClassVar[str] = ""
    scale: ClassVar[float] = 1.0
    decimals: ClassVar[int] = 2
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    clinical: ClassVar[bool] = False
    needs: ClassVar[tuple[Need, ...]] = ()
    phantom: Phantom | None = None
    note: ClassVar[str] = ""
    source: ClassVar[str] = ""

    @abstractmethod
    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return one number a slice; a metric with a phantom returns one for all its scans.

        A slice on which the metric has no value gets NaN and counts in no mean.

        Args:
            denoised: Images, (N, n, n) float32 HU.
            reference: Full-dose images, same shape, HU.
            context: Window, body, pixel length, and results that metrics share.

        Returns:
            (N,) float64, or (1,) for a phantom.
        """

    def missing(self) -> str:
        """Return the command that installs what it needs and is not here, "" by default."""
        return ""

    @property
    def title(self) -> str:
        """What it is, the first sentence of its class's documentation."""
        return (inspect.getdoc(type(self)) or "").partition("\n\n")[0].replace("\n", " ")

    def worth(self, value: float) -> float:
        """Return a value so that more is better; of a metric without a direction, as it is."""
        return -value if self.better == "lower" else value


class SetMetric(Metric):
    """One number for all slices of a client or protocol together.

    The slices come in parts: ``features`` says of each slice what the number needs, and ``of_set``
    makes the number of all of them. There are no numbers of single slices.
    """

    @abstractmethod
    def features(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return what the number needs of each slice, (N, ...); arguments as of a metric."""

    @abstractmethod
    def of_set(self, features: NDArray[np.float64]) -> float:
        """Return the number from the features of all slices, (N, ...), in any order."""

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the number of these slices, ()."""
        return np.array(self.of_set(self.features(denoised, reference, context)), np.float64)


def metric_name(base: str, window: Window) -> str:
    """Return the name of a metric in a clinical window, such as ``psnr[-160,240]``."""
    return f"{base}[{window[0]:g},{window[1]:g}]"
