"""How well a faint disc is seen: d' of a channelised Hotelling observer.

PSNR rises when noise is smoothed away, and lesions may get harder to see all the same. So what is
measured is a task: is there a disc at this place, or not? The observer (H. H. Barrett, J. Yao,
J. P. Rolland, K. J. Myers. Model observers for assessment of image quality. PNAS 90, 1993) sees a
place through Laguerre-Gauss channels u_j (B. D. Gallas, H. H. Barrett. Validating the use of
channels to estimate the ideal linear observer. JOSA A 20, 2003), knows where the disc would be and
how large:

    u_j(r) = sqrt(2) / a exp(-pi r^2 / a^2) L_j(2 pi r^2 / a^2),     v = U^T image,     j = 0 ... 4
    w      = S^-1 (mean v with disc - mean v without),  S the mean of both covariances
    d'     = (mean w.v with - mean w.v without) / sqrt(mean of both variances)

w comes of one half of the scans and d' of the other, whose noise it has not seen. Places of one
kind of disc are pooled: means are compared place by place, covariances averaged over places.

The interval of 95% is that of a bootstrap over the scans of the second half. All is float64.
"""

import numpy as np
from numpy.polynomial.laguerre import lagval
from numpy.typing import NDArray

from physfed_ray.metrics.base import Context, Images, Metric
from physfed_ray.metrics.discs import KINDS, DiscPhantom, Discs
from physfed_ray.seeds import generator

CHANNELS = 5
WIDTH = 1.5
"""a, in diameters of the disc."""
SIGHT = 2.0
"""How far from its middle a disc is looked for, in diameters."""
RESAMPLES = 200
BOUNDS = {"low": 2.5, "high": 97.5}
"""Percentiles of the interval."""
Numbers = dict[str, float]


class Detectability(Metric):
    """Detectability d' of a faint disc, by a channelised Hotelling observer.

    NaN where a disc is no larger than a pixel.

    Args:
        diameter_mm: Of the disc.
        contrast_hu: Above soft tissue.
    """

    decimals = 2
    needs = ("phantom",)
    phantom = DiscPhantom()
    note = (
        "d' of a channelised Hotelling observer, discs of the given diameter and contrast in a "
        "phantom scanned under each protocol"
    )
    source = "Barrett et al. 1993"

    bound = ""

    def __init__(self, diameter_mm: float, contrast_hu: float) -> None:
        self.kind = (diameter_mm, contrast_hu)
        self.name = f"dprime_{diameter_mm:g}mm_{contrast_hu:g}hu"
        self.heading = f"{diameter_mm:g} mm, {contrast_hu:g} HU"

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the number over all scans, (1,)."""
        found = context.shared(_of_all_kinds, denoised, reference)
        return np.array([found[self.kind][self.bound]])


class DetectabilityBound(Detectability):
    """End of the interval of 95% of d', by a bootstrap over scans.

    Args:
        diameter_mm: Of the disc.
        contrast_hu: Above soft tissue.
        bound: Which end.
    """

    better = "neither"

    def __init__(self, diameter_mm: float, contrast_hu: float, bound: str) -> None:
        super().__init__(diameter_mm, contrast_hu)
        self.bound = bound
        self.name, self.heading = f"{self.name}_{bound}", f"{self.heading}, {bound}"


DETECTABILITY: tuple[Metric, ...] = (
    *(Detectability(*kind) for kind in KINDS),
    *(DetectabilityBound(*kind, bound) for kind in KINDS for bound in BOUNDS),
)


def _of_all_kinds(
    denoised: Images, reference: Images, context: Context
) -> dict[tuple[float, float], Numbers]:
    """Return d' of each kind of disc, and the ends of its interval."""
    made = context.made
    if not isinstance(made, Discs):
        raise TypeError("detectability is measured on the phantom with discs")
    return {
        kind: d_prime(denoised, made, number, kind[0] / made.pixel_mm)
        for number, kind in enumerate(KINDS)
    }


def d_prime(images: Images, discs: Discs, kind: int, diameter: float) -> Numbers:
    """Return d' of a kind of disc by "", and the ends of its interval.

    Args:
        images: (2 N, n, n): N scans with discs, then N without.
        discs: The phantom.
        kind: Which discs.
        diameter: In pixels.
    """
    if diameter <= 1:
        return dict.fromkeys(("", *BOUNDS), float("nan"))
    seen = np.stack([_seen(images, centre, diameter) for centre in discs.centres[kind]])
    scans = len(images) // 2
    present, absent = seen[:, :scans], seen[:, scans:]
    half = scans // 2
    template = observer(present[:, :half], absent[:, :half])
    answers = np.stack([present[:, half:] @ template, absent[:, half:] @ template])
    draws = generator("detectability").integers(scans - half, size=(RESAMPLES, scans - half))
    resampled = [separation(answers[..., rows]) for rows in draws]
    found = {"": separation(answers)}
    return found | {name: float(np.percentile(resampled, p)) for name, p in BOUNDS.items()}


def channels(distance: NDArray[np.float64], diameter: float) -> NDArray[np.float64]:
    """Return the Laguerre-Gauss channels at distances from a disc's middle, (CHANNELS, ...).

    Args:
        distance: In pixels, any shape.
        diameter: Of the disc, likewise.
    """
    a = WIDTH * diameter
    x = 2 * np.pi * (distance / a) ** 2
    envelope = np.sqrt(2) / a * np.exp(-x / 2) * (distance <= SIGHT * diameter)
    return np.stack([envelope * lagval(x, [0] * j + [1]) for j in range(CHANNELS)])


def _seen(images: Images, centre: NDArray[np.float64], diameter: float) -> NDArray[np.float64]:
    """Return what the channels see of a place, (scans, CHANNELS)."""
    axis = np.arange(images.shape[-1])
    rows, columns = (axis[np.abs(axis - c) <= SIGHT * diameter] for c in centre)
    u = channels(np.hypot(rows[:, None] - centre[0], columns[None] - centre[1]), diameter)
    place = images[:, rows][:, :, columns].astype(np.float64)
    return np.asarray(np.einsum("nij,cij->nc", place, u))


def observer(present: NDArray[np.float64], absent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Hotelling template (CHANNELS,) of channel outputs (places, scans, CHANNELS)."""
    signal = (present.mean(1) - absent.mean(1)).mean(0)
    covariances = [np.cov(place, rowvar=False) for both in (present, absent) for place in both]
    return np.asarray(np.linalg.pinv(np.mean(covariances, axis=0), hermitian=True) @ signal)


def separation(answers: NDArray[np.float64]) -> float:
    """Return d' of answers (2, places, scans): with a disc, and without."""
    distance = (answers[0].mean(-1) - answers[1].mean(-1)).mean()
    spread = np.sqrt(answers.var(axis=-1, ddof=1).mean())
    return float(distance / spread) if spread > 0 else float("nan")
