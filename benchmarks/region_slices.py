"""Labelled low-dose slices for the region classifier of the measured reporter.

Real slices carry the labels of ``report_regions.csv``: what is seen on them, slices counted
from the feet as ``DicomSource`` sorts them, with a second region where the slice lies between two.
Phantoms carry those of their height, necks and shoulders of ``region_phantoms.py`` included.
``vary`` does to a slice what hospitals do: arms beside the trunk, a table, a frame that cuts the
body, another field of view, a turned patient.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from region_phantoms import Neck, Shoulders
from scipy import ndimage

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import scan
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.anatomy.canvas import render
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import to_grid
from physfed_ray.data.phantom import PhantomSource

LABELS = Path(__file__).with_name("report_regions.csv")
HU_RANGE = (-1024, 3071)
PHANTOM_SIZE = 192
TRUNK = ("chest", "lung bases", "abdomen", "pelvis")


@dataclass(frozen=True)
class Labelled:
    """A full-dose slice and what it shows.

    Attributes:
        hu: (h, w) float32, HU.
        spacing_mm: Distance between rows and between columns, mm.
        patient: Whose it is.
        number: Which of the patient's, from the feet.
        region: What it shows.
        also: What it may be called as well; empty for nothing else.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float]
    patient: str
    number: int
    region: str
    also: str = ""


def real_slices(ct: Path) -> Iterator[Labelled]:
    """Yield the labelled slices of a folder of CT."""
    with LABELS.open() as file:
        rows = list(csv.DictReader(file))
    source = DicomSource(ct, 1)
    for patient in source.ids():
        volume = source.load(patient, None)
        for row in (row for row in rows if row["patient"] == patient):
            for number in range(int(row["first"]), int(row["last"]) + 1):
                hu, spacing = volume.slices[number], volume.spacings_mm[number]
                yield Labelled(hu, spacing, patient, number, row["region"], row["also"])


def phantom_slices(patients: int, slices: int, seed: int) -> Iterator[Labelled]:
    """Yield the slices of so many phantoms of each region, necks and shoulders included."""
    regions = ("chest", "abdomen", "pelvis", "head", "limb")
    source = PhantomSource(len(regions) * patients, slices, seed, PHANTOM_SIZE)
    for turn, patient in enumerate(source.ids()):
        volume, kind = source.load(patient, None), regions[turn % len(regions)]
        for number, height in enumerate(volume.positions_mm):
            names = _region_at(kind, height)
            yield Labelled(
                volume.slices[number], volume.spacings_mm[number], patient, number, *names
            )
    for turn in range(patients):
        rng = np.random.default_rng((seed, turn))
        for kind, part in (("neck", Neck(rng)), ("shoulders", Shoulders(rng))):
            spacing = part.field_mm / PHANTOM_SIZE
            for number in range(slices):
                height = (number + 0.5) / slices * part.length_mm
                hu = render(part, height, PHANTOM_SIZE, rng)
                yield Labelled(hu, (spacing, spacing), f"{kind}-{turn}", number, kind)


def _region_at(kind: str, z: float) -> tuple[str, str]:
    """Return what a phantom's slice at height ``z`` mm shows, and what it may be called too."""
    if kind == "chest":
        if z < 25:
            return "lung bases", "chest"
        if z > 198:
            return "shoulders", "chest"
        return ("chest", "shoulders") if z > 188 else ("chest", "")
    if kind == "abdomen":
        if z > 166:
            return "lung bases", ""
        return ("abdomen", "lung bases") if z > 154 else ("abdomen", "")
    if kind == "pelvis":
        return ("limb", "") if z < 26 else ("pelvis", "")
    return kind, ""


def vary(one: Labelled, rng: np.random.Generator) -> Labelled:
    """Return the slice as another hospital, or another day, would have shown it."""
    hu, (row_mm, column_mm) = one.hu, one.spacing_mm
    hu = np.clip(hu, -1000, 3071).astype(np.float32)
    if rng.random() < 0.5:
        hu = _with_margin(hu, int(rng.uniform(0.02, 0.3) * max(hu.shape)))
    if rng.random() < 0.3:
        turn = float(rng.uniform(-14, 14))
        hu = ndimage.rotate(hu, turn, reshape=False, order=1, cval=-1000.0)
    if one.region in TRUNK and rng.random() < 0.35:
        hu = _with_arms(hu, (row_mm, column_mm), rng)
    if rng.random() < 0.3:
        hu = _with_table(hu, row_mm, rng)
    if rng.random() < (0.6 if one.region in ("pelvis", "limb") else 0.3):
        hu = _cut(hu, rng)
    return Labelled(hu, one.spacing_mm, one.patient, one.number, one.region, one.also)


def _with_margin(hu: np.ndarray, margin: int) -> np.ndarray:
    return np.pad(hu, margin, constant_values=-1000.0)


def _body_box(hu: np.ndarray) -> tuple[int, int, int, int]:
    body = ndimage.binary_opening(hu > -350, iterations=2)
    labels, count = ndimage.label(body)
    if count:
        body = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    if not rows.size:
        return 0, hu.shape[0] - 1, 0, hu.shape[1] - 1
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def _with_arms(
    hu: np.ndarray, spacing_mm: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Add one arm or both, beside the body or touching it."""
    row_mm, column_mm = spacing_mm
    hu = np.pad(hu, ((0, 0), (int(120 / column_mm),) * 2), constant_values=-1000.0)
    top, bottom, left, right = _body_box(hu)
    y, x = np.mgrid[: hu.shape[0], : hu.shape[1]].astype(np.float32)
    for side in [(-1,), (1,), (-1, 1)][rng.integers(3)]:
        radius = rng.uniform(34, 52)
        gap = rng.uniform(-14, 14)
        edge = left if side < 0 else right
        cx = edge + side * (radius + gap) / column_mm
        cy = top + (bottom - top) * rng.uniform(0.3, 0.85)
        far = np.hypot((x - cx) * column_mm, 0.85 * (y - cy) * row_mm)
        free = hu < -350
        hu = np.where(free & (far < radius), -100.0, hu)
        hu = np.where(free & (far < radius - rng.uniform(4, 12)), 50.0, hu)
        shaft = rng.uniform(9, 13)
        hu = np.where(free & (far < shaft), 1050.0, hu)
        hu = np.where(free & (far < 0.5 * shaft), 20.0, hu)
    return hu.astype(np.float32)


def _with_table(hu: np.ndarray, row_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Add a curved or flat table below the body."""
    hu = np.pad(hu, ((0, int(60 / row_mm)), (0, 0)), constant_values=-1000.0)
    _, bottom, left, right = _body_box(hu)
    y, x = np.mgrid[: hu.shape[0], : hu.shape[1]].astype(np.float32)
    bend = rng.choice([0.0, 0.2, 0.45]) * ((x - (left + right) / 2) / (right - left + 1)) ** 2
    below = (y - bottom) * row_mm + bend * (right - left) * row_mm - rng.uniform(-3, 12)
    free, thick = hu < -350, rng.uniform(15, 45)
    hu = np.where(free & (below > 0) & (below < thick), -920.0, hu)
    shell = (below > 0) & (below < 4) | (below > thick - 4) & (below < thick)
    return np.where(free & shell, rng.uniform(-300, 100), hu).astype(np.float32)


def _cut(hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut the frame so that it crops the body on one side or two."""
    top, bottom, left, right = _body_box(hu)
    for side in rng.permutation(4)[: rng.integers(1, 4)]:
        part = rng.uniform(0.06, 0.32 if side < 2 else 0.5)
        if side == 0:
            top = int(top + part * (bottom - top))
        elif side == 1:
            bottom = int(bottom - part * (bottom - top))
        elif side == 2:
            left = int(left + part * (right - left))
        else:
            right = int(right - part * (right - left))
    return hu[top : bottom + 1, left : right + 1]


def scanned(one: Labelled, protocol: Protocol, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return what a reporter gets of a slice under a protocol: (n, n) int16, HU."""
    grid = to_grid(one.hu, one.spacing_mm, size, "body")
    return _stored(scan(grid.object[None], protocol, [rng], Simulation(size))[0])


def quick(one: Labelled, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return almost that, a hundred times as fast: blurred, with noise that streaks across.

    On the grid of the measurements little is left of either, so one serves for the other.
    """
    centre: Literal["body", "image"] = "body" if rng.random() < 0.85 else "image"
    image = to_grid(one.hu, one.spacing_mm, size, centre).image
    white = rng.standard_normal(image.shape)
    along = rng.uniform(0.3, 2.5)
    noise = ndimage.gaussian_filter(white, (0.4, along)) + 0.5 * white
    image = ndimage.gaussian_filter(image, rng.uniform(0.2, 0.9))
    return _stored(image + rng.uniform(3, 60) * noise / noise.std())


def _stored(hu: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(hu), *HU_RANGE).astype(np.int16)


def nonsense(count: int, seed: int, size: int = 128) -> Iterator[np.ndarray]:
    """Yield images (n, n) int16 that show no region: discs, test objects, blobs, noise, a table."""
    for turn in range(count):
        rng = np.random.default_rng((seed, turn))
        axis = (np.arange(size) + 0.5) / size - 0.5
        x, y = np.meshgrid(axis, axis)
        image = np.full((size, size), -1000.0)
        kind = turn % 5
        if kind < 2:
            a, b = rng.uniform(0.15, 0.48, 2)
            body = (x / a) ** 2 + (y / b) ** 2 < 1
            image[body] = rng.uniform(-200, 400)
            for _ in range(kind * rng.integers(1, 12)):
                cx, cy = rng.uniform(-0.4, 0.4, 2)
                insert = np.hypot(x - cx, y - cy) < rng.uniform(0.01, 0.12)
                image[body & insert] = rng.choice([-1000, -800, -100, 100, 300, 900, 1500])
        elif kind == 2:
            rough = ndimage.gaussian_filter(rng.standard_normal((size, size)), rng.uniform(1, 14))
            image += rough / rough.std() * rng.uniform(100, 900) + rng.uniform(-300, 1100)
        elif kind == 3:
            a, b = rng.uniform(0.1, 0.45, 2)
            cx, cy = rng.uniform(-0.2, 0.2, 2)
            image[(np.abs(x - cx) < a) & (np.abs(y - cy) < b)] = rng.uniform(-300, 1200)
        else:
            below = y + rng.uniform(0, 1) * x**2 - 0.2
            table = (below > 0) & (below < rng.uniform(0.01, 0.15))
            image[table] = rng.uniform(-400, 300)
        image += rng.normal(0, rng.uniform(0, 60), image.shape)
        yield _stored(image)
