"""Clients that are drawn, not listed: hundreds of scanners from four lines of YAML."""

import math
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from physfed_ray.ct.protocol import REFERENCE_SIZE, Protocol, select_presets
from physfed_ray.experiment.settings import LARGEST_SEED, MOST, Settings
from physfed_ray.seeds import generator

LATIN_HYPERCUBE = "latin_hypercube"

# The values that g's entries map to [0, 1] (physfed_ray.ct.protocol).
VIEWS = (32, 2048)
MOST_BINS = 1024
PIXEL_MM = (0.4, 1.3)
BIN_MM = (0.25, 1.55)
SOURCE_MM = (150.0, 550.0)
DETECTOR_MM = (150.0, 450.0)
PHOTONS = (10**4.6, 1e6)

# Numbers are rounded to these units, and bounds that depend on them keep that far away.
_LENGTH_UNIT, _DISTANCE_UNIT = 0.001, 0.1


class Generate(Settings):
    """How clients are drawn; a change of the experiment's seed does not change them."""

    clients: int = Field(ge=1, le=100_000, description="number of clients, or unseen protocols")
    protocols: str = Field(
        LATIN_HYPERCUBE,
        description="latin_hypercube: possible scanners spread evenly over the ranges of g; or a "
        "pattern over protocol names such as 'paper-*', dealt in turn",
    )
    patients_per_client: int = Field(
        1, ge=1, le=MOST, description="patients that each client is dealt"
    )
    speed_spread: float = Field(
        0.0,
        ge=0,
        le=3,
        description="sigma of the log-normal distribution of the clients' speeds, median 1",
    )
    seed: int = Field(
        1, ge=0, le=LARGEST_SEED, description="decides the protocols and speeds, beside `seed`"
    )


def draw_protocols(chosen: Generate, purpose: str) -> Iterator[Protocol]:
    """Yield the protocols, in the order of the clients.

    Args:
        chosen: How they are drawn.
        purpose: ``clients`` or ``unseen``, so that both differ under one seed.

    Raises:
        PhysFedError: The pattern fits no protocol's name.
    """
    if chosen.protocols != LATIN_HYPERCUBE:
        presets = list(select_presets(chosen.protocols).values())
        yield from (presets[i % len(presets)] for i in range(chosen.clients))
        return
    from scipy.stats import qmc  # half a second: only where clients are drawn

    rng = generator(chosen.seed, "generate", purpose, "protocols")
    for point in qmc.LatinHypercube(7, seed=rng).random(chosen.clients):
        yield scanner(point)


def draw_speeds(chosen: Generate, purpose: str) -> list[float]:
    """Return the clients' speeds to four digits, log-normal with median 1."""
    rng = generator(chosen.seed, "generate", purpose, "speeds")
    speeds = np.exp(chosen.speed_spread * rng.standard_normal(chosen.clients))
    return [float(f"{speed:.4g}") for speed in speeds]


def scanner(point: np.ndarray) -> Protocol:
    """Return the possible scanner at a point of the unit cube.

    Views, photons and both distances follow the point over the whole of their ranges, as g does.
    Most combinations of the other three are impossible, so these follow it over the part of their
    range that is left: first the pixel length for which some detector sees the image circle, then
    the bin length, then the number of bins. Every point of a Latin hypercube is a scanner so, and
    the strata of all seven numbers are kept, those of the last three within what is possible.

    Args:
        point: (7,) in [0, 1], in the order of g.
    """
    u_views, u_bins, u_pixel, u_bin, u_source, u_detector, u_photons = map(float, point)
    source = _between(*SOURCE_MM, u_source, _DISTANCE_UNIT)
    detector = _between(*DETECTOR_MM, u_detector, _DISTANCE_UNIT)
    half = MOST_BINS * BIN_MM[1] / 2
    seen = source * half / math.hypot(source + detector, half)
    widest = min(seen, source, detector) / (REFERENCE_SIZE / 2) - _LENGTH_UNIT
    pixel = _between(PIXEL_MM[0], min(PIXEL_MM[1], widest), u_pixel, _LENGTH_UNIT)
    radius = pixel * REFERENCE_SIZE / 2
    needed = 2 * radius * (source + detector) / math.sqrt(source**2 - radius**2)
    finest = max(BIN_MM[0], needed / MOST_BINS + _LENGTH_UNIT)
    bin_mm = _between(min(finest, BIN_MM[1]), BIN_MM[1], u_bin, _LENGTH_UNIT)
    fewest = math.ceil(needed / bin_mm)
    bins = round(fewest + u_bins * (MOST_BINS - fewest))
    views = round(VIEWS[0] * (VIEWS[1] / VIEWS[0]) ** u_views)
    photons = float(f"{PHOTONS[0] * (PHOTONS[1] / PHOTONS[0]) ** u_photons:.4g}")
    return Protocol(views, bins, pixel, bin_mm, source, detector, photons)


def _between(low: float, high: float, u: float, unit: float) -> float:
    """Return the number at u of a range, in whole units."""
    return round(round((low + u * (high - low)) / unit) * unit, 6)
