"""What chest, abdomen and pelvis have in common: wall, spine, ribs, vessels, bowel."""

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np

from physfed_ray.data.anatomy.canvas import AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU, Canvas
from physfed_ray.data.anatomy.shapes import (
    EMPTY,
    Shape,
    capsule,
    ellipse,
    ellipsoid,
    squarish,
)

SKIN_MM = 1.8
RIB_SPACING_MM = 27.0
RIB_DESCENT_MM = 115.0
"""How far a rib falls from the spine to the sternum."""
DISC_SPACING_MM = 32.0


@dataclass(frozen=True)
class Build:
    """What makes one adult differ from another.

    Attributes:
        scale: Size relative to the average.
        fat_mm: Thickness of the subcutaneous fat at the side of the trunk.
        muscle: Muscle bulk relative to the average.
        contrast: Enhancement of the blood over plain, HU (0 without contrast medium).
        organ: Enhancement of the organs, HU.
        marrow: Mean of the marrow, HU.
        cortex: Peak of the cortex, HU.
        noise_hu: Noise of the full-dose image, HU.
    """

    scale: float
    fat_mm: float
    muscle: float
    contrast: float
    organ: float
    marrow: float
    cortex: float
    noise_hu: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Build":
        """Draw an adult; half of them were given contrast medium."""
        phase = rng.choice([0.0, 0.0, 0.55, 1.0])
        return cls(
            scale=rng.uniform(0.9, 1.1),
            fat_mm=float(np.clip(rng.lognormal(np.log(17), 0.5), 6, 42)),
            muscle=rng.uniform(0.8, 1.2),
            contrast=phase * rng.uniform(110, 200),
            organ=phase * rng.uniform(35, 60),
            marrow=rng.uniform(90, 190),
            cortex=rng.uniform(750, 1250),
            noise_hu=rng.uniform(7, 13),
        )

    @property
    def blood(self) -> float:
        """HU of large vessels."""
        return 42.0 + self.contrast


def wall(canvas: Canvas, build: Build, a: float, b: float, muscle_mm: float) -> tuple[Shape, Shape]:
    """Paint skin, subcutaneous fat and the muscle wall of a trunk with half axes ``a``, ``b``.

    Args:
        canvas: The slice.
        build: The patient's build.
        a: Half width of the body, mm.
        b: Half depth, mm.
        muscle_mm: Thickness of the muscle at the sides; 0 leaves fat alone.

    Returns:
        The outline of the muscle and that of the cavity inside it.
    """
    body = squarish(0, 0, a, b) & Shape(
        (-400, -400, 400, 0.95 * b), lambda x, y: y - np.float32(0.95 * b)
    )
    canvas.paint(body, SKIN_HU + 20)
    canvas.paint(body.grow(-SKIN_MM), FAT_HU, grain=6, blotch=4)
    fat = build.fat_mm
    front, back = 0.75 * fat, 0.6 * fat
    muscle = squarish(0, (front - back) / 2, a - fat - 3, b - (front + back) / 2 - 3)
    canvas.septa(body.grow(-SKIN_MM - 1), -60, 0.06, 0.5)
    top = -b + front + 0.6 * muscle_mm + 3
    bottom = spine_y(build, b) + 24 * build.scale
    inner = squarish(0, (top + bottom) / 2, a - fat - 3 - muscle_mm, (bottom - top) / 2)
    if muscle_mm:
        canvas.paint(muscle, MUSCLE_HU, grain=6, blotch=3)
        canvas.septa(muscle.grow(-2), FAT_HU + 20, 0.12, 0.75)
    return muscle, inner


def spine_y(build: Build, b: float) -> float:
    """Return where the middle of the vertebrae lies in a trunk of half depth ``b``, mm."""
    return 0.95 * b - 0.6 * build.fat_mm - 66 * build.scale


def spine(canvas: Canvas, build: Build, z: float, cy: float, scale: float = 1.0) -> None:
    """Paint a vertebra or a disc, the canal and the processes, the vertebra's middle at ``cy``."""
    k = build.scale * scale
    phase = (z / (DISC_SPACING_MM * k)) % 1.0
    body = ellipse(0, cy, 22 * k, 16.5 * k) - ellipse(0, cy + 20 * k, 12 * k, 7 * k)
    canal_y = cy + 23 * k
    arch = EMPTY
    for side in (-1, 1):
        root, joint = (side * 14 * k, cy + 12 * k), (side * 16 * k, cy + 27 * k)
        arch = arch | capsule(root, joint, 4.5 * k) | capsule(joint, (0, cy + 38 * k), 3.6 * k)
        if phase > 0.35:
            arch = arch | capsule(joint, (side * 36 * k, cy + 31 * k), 4.2 * k, 3.0 * k)
    arch = arch | capsule((0, cy + 37 * k), (0, cy + (52 + 14 * phase) * k), 3.4 * k, 3.0 * k)
    canvas.paint(ellipse(0, canal_y, 12 * k, 10 * k), -70)
    if phase < 0.2:
        canvas.paint(body, 85, grain=8)
        canvas.paint(body.grow(-5 * k), 70, grain=8)
        arch = capsule((-16 * k, cy + 27 * k), (-11 * k, cy + 33 * k), 6 * k) | capsule(
            (16 * k, cy + 27 * k), (11 * k, cy + 33 * k), 6 * k
        )
        canvas.bone(arch, 2.2, build.marrow + 150, build.cortex)
    else:
        # Near the end plates the section runs through dense bone.
        plate = max(0.0, 1 - min(abs(phase - 0.2), abs(1.0 - phase)) / 0.08)
        canvas.bone(arch, 1.8, build.marrow + 60, 0.9 * build.cortex)
        canvas.bone(body, 1.5, build.marrow + 140 * plate, 0.6 * build.cortex)
    canvas.paint(ellipse(0, canal_y, 9 * k, 7.5 * k), 22)
    canvas.paint(ellipse(0, canal_y, 6 * k, 4.5 * k), 42)


def back_muscles(canvas: Canvas, build: Build, cy: float, bulk: float = 1.0) -> None:
    """Paint the muscles along both sides of the spinous processes."""
    k = build.scale * (0.85 + 0.15 * build.muscle)
    for side in (-1, 1):
        erector = ellipse(side * 30 * k, cy + 41 * k, 27 * k * bulk, 18 * k * bulk, side * 0.12)
        canvas.paint(erector.grow(2.5), FAT_HU + 20)
        canvas.paint(erector, MUSCLE_HU, grain=6, blotch=3)
        canvas.septa(erector.grow(-3), FAT_HU + 30, 0.16, 0.7)


def ribs(canvas: Canvas, build: Build, z: float, cage: Shape, cy: float, costal: float) -> None:
    """Paint the ribs that cross the slice: dense rods that fall from the spine to the front.

    Args:
        canvas: The slice.
        build: The patient's build.
        z: Height in the body, mm.
        cage: The inner border of the rib cage.
        cy: y of the middle of the cage, mm.
        costal: From which part of the half turn (0 behind, 1 in front) ribs are cartilage.
    """
    distance = cage.distance(canvas.x, canvas.y) - 5.5
    turn = np.arctan2(np.abs(canvas.x), canvas.y - cy) / np.float32(pi)
    spacing = RIB_SPACING_MM * build.scale
    rise = (z + RIB_DESCENT_MM * turn) / spacing + 0.06 * canvas.blotch
    dz = (rise - np.floor(rise) - 0.5) * spacing
    rod = np.sqrt(np.square(distance / 5.0) + np.square(dz / 6.5))
    border = (rod - 1) * 5.0
    ends = np.maximum(0.1 - turn, turn - 0.95) * 300
    border = np.maximum(border, ends)
    everywhere = (slice(None), slice(None))
    cover = np.clip(0.5 - border / (1.3 * canvas.pixel), 0, 1)
    inside = np.clip((-border - 1.2) / 1.4, 0, 1)
    bony = np.clip((costal - turn) / 0.02, 0, 1)
    value = (1 - inside) * 0.75 * build.cortex + inside * build.marrow
    value = bony * value + (1 - bony) * (90 + 12 * canvas.grain)
    canvas.blend(everywhere, cover, value)


def intercostal(canvas: Canvas, cage: Shape) -> None:
    """Paint the layer of muscle and fat that the ribs lie in."""
    ring = cage.grow(12) - cage
    canvas.paint(ring, 25, grain=8, blotch=25)


class Bowel:
    """Loops of bowel: bent rows of ellipsoids with wall, content and gas in front."""

    def __init__(
        self,
        rng: np.random.Generator,
        loops: int,
        room: tuple[float, float, float, float],
        heights: tuple[float, float],
        half_mm: tuple[float, float] = (9.0, 17.0),
    ) -> None:
        """Draw loops with centres in the box ``room`` (x0, y0, x1, y1) and between ``heights``."""
        x0, y0, x1, y1 = room
        self._rows = [
            (
                rng.uniform(x0, x1),
                rng.uniform(y0, y1),
                rng.uniform(*heights),
                rng.uniform(*half_mm),
                rng.uniform(1.0, 2.2),
                rng.uniform(0, pi),
                rng.random() < 0.25,
                rng.choice([-1.0, -1.0, 12.0, 25.0, 220.0], p=[0.1, 0.08, 0.42, 0.3, 0.1]),
            )
            for _ in range(loops)
        ]

    def paint(self, canvas: Canvas, z: float, enhancement: float, mask: np.ndarray) -> None:
        """Paint the loops that cross height ``z``."""
        for x, y, height, half, length, turn, gas, content in self._rows:
            swing = 10 * sin(z / 17.0 + turn)
            loop = ellipsoid(z, (x + swing, y, height), (half * length, half, 2.2 * half), turn)
            if loop.empty:
                continue
            canvas.paint(loop, 42 + 0.6 * enhancement, grain=6, mask=mask)
            level = y - 0.35 * half if gas else -500.0
            filling(canvas, loop.grow(-2.6), level, content, mask)


def filling(
    canvas: Canvas, shape: Shape, level: float, content: float, mask: np.ndarray | None = None
) -> None:
    """Fill a hollow organ: fluid of ``content`` HU below ``level`` (y), gas above it.

    A content of -1 means gas and stool without a level.
    """
    if shape.empty:
        return
    if content == -1.0:
        canvas.paint(shape, -90, grain=60, blotch=85, mask=mask)
        return
    canvas.paint(shape, content, grain=7, blotch=6, mask=mask)
    if content < 100 and level > shape.box[1]:
        x0, y0, x1, y1 = shape.box
        above = Shape((x0, y0, x1, min(level, y1)), lambda x, y: y - np.float32(level))
        canvas.paint(shape & above, AIR_HU + 15, mask=mask)


def crescent(cx: float, cy: float, r: float, thick: float, turn: float) -> Shape:
    """Return a crescent, as a spleen or a scapula has in section."""
    dx, dy = cos(turn) * thick, sin(turn) * thick
    return ellipse(cx, cy, r, 1.35 * r, turn) - ellipse(cx + dx, cy + dy, 1.1 * r, 1.4 * r, turn)
