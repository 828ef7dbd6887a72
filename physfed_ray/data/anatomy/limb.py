"""Both legs, from the calf (z = 0) over the knee to the thigh."""

from math import cos, pi, sin

import numpy as np

from physfed_ray.data.anatomy.canvas import FAT_HU, MUSCLE_HU, SKIN_HU, Canvas, Space
from physfed_ray.data.anatomy.shapes import EMPTY, Shape, capsule, ellipse, ellipsoid
from physfed_ray.data.anatomy.trunk import SKIN_MM, Build

KNEE_Z = 165.0
SIDES = (-1, 1)


class Limb:
    """One patient's legs; some scans show only one."""

    length_mm = 390.0

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the patient."""
        self.build = build = Build.draw(rng)
        self.noise_hu = build.noise_hu
        self.fat = 0.55 * build.fat_mm
        self.radius = rng.uniform(54, 66) * build.scale * (0.75 + 0.25 * build.muscle)
        self.sides = SIDES if rng.random() < 0.6 else (int(rng.choice(SIDES)),)
        widest = 1.12 * (self.radius + self.fat)
        self.apart = widest + rng.uniform(4, 16) if len(self.sides) == 2 else 0.0
        self.field_mm = 2 * (self.apart + widest + 14)
        self.space = Space.draw(rng, self.field_mm, self.length_mm, 2.6)
        self.seeds = self._muscles(rng)
        self.tumour = float(rng.choice([0, 0, 24, 42]))
        self.tumour_z = rng.uniform(230, 330)
        self.tumour_turn = rng.uniform(0, 2 * pi)
        self.tumour_side = int(rng.choice(self.sides))
        self.necrosis = rng.uniform(0.0, 0.7)

    @staticmethod
    def _muscles(rng: np.random.Generator) -> np.ndarray:
        """Draw (M, 4): where the middle of each muscle lies and how it drifts along the limb."""
        turns = np.concatenate([np.arange(7) / 7, 0.07 + np.arange(5) / 5]) * 2 * pi
        turns += rng.normal(0, 0.12, 12)
        out = np.r_[np.full(7, 0.78), np.full(5, 0.42)] + rng.normal(0, 0.04, 12)
        drift = rng.normal(0, 0.28, (12, 2))
        return np.column_stack([out * np.cos(turns), out * np.sin(turns), drift]).astype(np.float32)

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        for side in self.sides:
            self._leg(canvas, z, side)

    def _girth(self, z: float) -> float:
        """Return the radius of the muscles: calf, narrow knee, thigh that widens upwards."""
        knee = np.exp(-(((z - KNEE_Z) / 42) ** 2))
        calf = 0.82 * np.exp(-(((z - 60) / 85) ** 2))
        thigh = 1 / (1 + np.exp(-(z - 205) / 22)) * (0.78 + 0.3 * (z - 205) / 185)
        return float(self.radius * max(max(calf, thigh), 0.74 * knee, 0.55))

    def _leg(self, canvas: Canvas, z: float, side: int) -> None:
        cx, cy = side * self.apart, 0.0
        r = self._girth(z)
        knee = float(np.exp(-(((z - KNEE_Z) / 34) ** 2)))
        skin = ellipse(cx, cy, (r + self.fat) * 1.02, (r + self.fat) * 1.06)
        tumour = self._tumour(z, side, cx, cy, r)
        skin = skin | tumour.grow(self.fat + 2) if not tumour.empty else skin
        canvas.paint(skin, SKIN_HU + 20)
        canvas.paint(skin.grow(-SKIN_MM), FAT_HU, grain=6, blotch=4)
        canvas.septa(skin.grow(-SKIN_MM - 1), -55, 0.05, 0.5)
        self._veins(canvas, cx, cy, r, side)
        self._compartments(canvas, (cx, cy), r, side, z, knee)
        self._mass(canvas, tumour)
        if z > KNEE_Z + 2:
            self._femur(canvas, z, side, cx, cy, r)
        else:
            self._shank(canvas, z, side, cx, cy, r)
        if abs(z - KNEE_Z) < 38:
            self._patella(canvas, z, cx, cy, r)
        self._vessels(canvas, z, side, cx, cy, r)

    def _compartments(
        self,
        canvas: Canvas,
        centre: tuple[float, float],
        r: float,
        side: int,
        z: float,
        knee: float,
    ) -> None:
        """Paint muscles as cells around their middles, with fat between them.

        At the knee they thin out to tendons.
        """
        bulk = ellipse(*centre, r, r * 1.03)
        w = canvas.window(bulk)
        u = (canvas.x[w] - centre[0]) * np.float32(side / r)
        v = (canvas.y[w] - centre[1]) * np.float32(1 / r)
        along = np.float32((z - 195) / 195)
        places = self.seeds[:, :2] + along * self.seeds[:, 2:]
        squares = np.stack([(u - p) ** 2 + (v - q) ** 2 for p, q in places])
        squares.partition(1, axis=0)
        first, second = np.sqrt(squares[0]), np.sqrt(squares[1])
        margin = (second - first) * r / 2 - (0.9 + 4.5 * knee) - 0.7 * canvas.blotch[w]
        inside = np.clip(0.5 - bulk.distance(canvas.x[w], canvas.y[w]) / canvas.pixel, 0, 1)
        canvas.blend(w, inside, FAT_HU + 8, 6)
        cover = inside * np.clip(0.5 + margin / (1.3 * canvas.pixel), 0, 1)
        canvas.blend(w, cover, MUSCLE_HU + 3, 6, 3)
        canvas.septa(bulk, FAT_HU + 40, 0.09, 0.5)

    def _tumour(self, z: float, side: int, cx: float, cy: float, r: float) -> Shape:
        """Return the section of the soft-tissue tumour."""
        if not self.tumour or side != self.tumour_side:
            return EMPTY
        x = cx + 0.55 * r * cos(self.tumour_turn)
        y = cy + 0.55 * r * sin(self.tumour_turn)
        size = self.tumour
        return ellipsoid(z, (x, y, self.tumour_z), (size, 0.8 * size, 1.3 * size), 0.6)

    def _mass(self, canvas: Canvas, tumour: Shape) -> None:
        """Paint the tumour, darker where it is necrotic."""
        canvas.paint(tumour.grow(2), FAT_HU + 60)
        canvas.paint(tumour, 38 + 0.5 * self.build.organ, grain=7, blotch=8)
        canvas.paint(tumour.grow(-self.tumour * (1 - self.necrosis)), 15, grain=6, blotch=7)

    def _femur(self, canvas: Canvas, z: float, side: int, cx: float, cy: float, r: float) -> None:
        """Paint the thigh bone: two condyles above the knee, a tube further up."""
        k, build = self.build.scale, self.build
        end = max(0.0, 1 - (z - KNEE_Z) / 75) ** 1.5
        y = cy - 0.12 * r * (1 - end)
        marrow = (build.marrow + 20) * end - 75 * (1 - end)
        cortex = 1.3 + 3.0 * (1 - end)
        x = cx + side * 4 * (1 - end)
        bone = ellipse(x, y, (14 + 21 * end) * k, (14 + 10 * end) * k)
        if end > 0.35:
            for part in SIDES:
                bone = bone | ellipse(
                    x + part * 19 * k, y + 14 * end * k, 15 * k, 20 * k, part * -0.2
                )
            bone = (
                bone - ellipse(x, y + 32 * k, 9 * k, 15 * k) - ellipse(x, y - 27 * k, 10 * k, 6 * k)
            )
        canvas.bone(bone, cortex, marrow, (1 + 0.6 * (1 - end)) * build.cortex)

    def _shank(self, canvas: Canvas, z: float, side: int, cx: float, cy: float, r: float) -> None:
        """Paint shin bone and calf bone."""
        k, build = self.build.scale, self.build
        end = max(0.0, 1 - (KNEE_Z - z) / 60) ** 1.5
        x, y = cx - side * 10 * (1 - end), cy - (0.42 * r) * (1 - end)
        marrow = (build.marrow + 10) * end - 75 * (1 - end)
        shin = ellipse(x, y, (12.5 + 23 * end) * k, (15 + 8 * end) * k, 0.5 * side * (1 - end))
        canvas.bone(shin, 1.3 + 2.6 * (1 - end), marrow, (1 + 0.6 * (1 - end)) * build.cortex)
        if z < KNEE_Z - 14:
            top = max(0.0, 1 - (KNEE_Z - 14 - z) / 30)
            calf = ellipse(cx + side * (0.55 * r), cy + 2, (6.5 + 4 * top) * k, (7 + 4 * top) * k)
            canvas.bone(calf, 1.2 + 0.8 * (1 - top), build.marrow - 40, build.cortex)

    def _patella(self, canvas: Canvas, z: float, cx: float, cy: float, r: float) -> None:
        """Paint the kneecap, or its tendon below."""
        y = cy - r * 0.86
        k = self.build.scale
        cap = ellipsoid(z, (cx, y, KNEE_Z + 20), (23 * k, 11 * k, 23))
        if cap.empty:
            canvas.paint(ellipse(cx, y - 2, 14, 3.5), 75)
        canvas.bone(cap, 1.6, self.build.marrow + 60, 0.8 * self.build.cortex)

    def _vessels(self, canvas: Canvas, z: float, side: int, cx: float, cy: float, r: float) -> None:
        """Paint the artery, the vein and the nerve, which wind to the back of the knee."""
        blood = self.build.blood
        turn = 0.5 * pi + min(1.0, max(0.0, (z - KNEE_Z) / 200)) * 0.65 * pi
        x, y = cx + side * 0.5 * r * cos(turn), cy + 0.5 * r * sin(turn)
        canvas.paint(ellipse(x, y, 9.5, 8.5), FAT_HU)
        canvas.paint(ellipse(x - 3, y, 3.6, 3.6), blood, grain=5)
        canvas.paint(ellipse(x + 4, y + 3, 4.4, 4.0), 0.85 * blood + 6, grain=5)
        canvas.paint(ellipse(cx + side * 6, cy + 0.52 * r, 7, 5), FAT_HU)
        canvas.paint(ellipse(cx + side * 6, cy + 0.52 * r, 4, 3), 25)

    def _veins(self, canvas: Canvas, cx: float, cy: float, r: float, side: int) -> None:
        """Paint veins in the subcutaneous fat."""
        out = r + 0.5 * self.fat
        for turn in (0.9 * pi, 0.62 * pi, 0.25 * pi):
            x, y = cx + side * out * cos(turn), cy + out * sin(turn)
            if self.fat > 6:
                canvas.paint(capsule((x, y), (x + 1, y + 2), 1.7), 40)
