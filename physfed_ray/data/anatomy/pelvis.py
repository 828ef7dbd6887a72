"""The pelvis, from the upper thighs (z = 0) to the iliac crests."""

import numpy as np

from physfed_ray.data.anatomy.canvas import AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU, Canvas, Space
from physfed_ray.data.anatomy.shapes import (
    EMPTY,
    Shape,
    capsule,
    ellipse,
    ellipsoid,
    mirrored,
    path,
)
from physfed_ray.data.anatomy.trunk import (
    SKIN_MM,
    Bowel,
    Build,
    back_muscles,
    filling,
    spine,
    wall,
)

HIP_Z = 72.0
"""Height of the middle of the femoral heads, mm."""
SIDES = (-1, 1)


class Pelvis:
    """One patient's pelvis."""

    length_mm = 190.0

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the patient."""
        self.build = build = Build.draw(rng)
        self.noise_hu = build.noise_hu
        self.a = 148 * build.scale + build.fat_mm
        self.b = rng.uniform(98, 112) * build.scale + 0.7 * build.fat_mm
        self.field_mm = 2 * (1.06 * self.a + 14)
        self.space = Space.draw(rng, self.field_mm, self.length_mm)
        self.bladder = rng.uniform(0.7, 1.2)
        self.urine = float(rng.choice([4.0, 8.0, 8.0, 280.0])) if build.contrast else 6.0
        self.female = bool(rng.random() < 0.5)
        self.stool = float(rng.choice([-1.0, -1.0, 20.0]))
        self.loops = Bowel(rng, 22, (-58, -62, 58, 10), (95, 205), (9, 16))
        self.sclerosis = [
            (rng.uniform(60, 110) * side, rng.uniform(-20, 30), rng.uniform(60, 150), r)
            for side, r in zip(SIDES, rng.choice([0, 0, 6, 9], 2), strict=True)
        ]

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        up = z / self.length_mm
        a = self.a * (1 + 0.05 * np.sin(np.pi * min(1.0, z / 140)))
        if z < 26:
            self._thighs(canvas, z)
            return
        _, inner = wall(canvas, self.build, a, self.b, 9 + 6 * up)
        canvas.paint(inner.grow(6), FAT_HU + 5, grain=6, blotch=4)
        self._cleft(canvas, z)
        self._gluteal(canvas, z)
        inside = canvas.cover(inner)
        self._front(canvas, z)
        self._organs(canvas, z, inside)
        self._bones(canvas, z)
        self._vessels(canvas, z)

    def _thighs(self, canvas: Canvas, z: float) -> None:
        """Paint the two thighs below the perineum."""
        k, build = self.build.scale, self.build
        gap = 1.0 - z / 26
        half = 0.49 * self.a
        for side in SIDES:
            x = side * (half + 3 + 5 * gap)
            thigh = ellipse(x, 8, half, 0.86 * self.b)
            canvas.paint(thigh, SKIN_HU + 20)
            canvas.paint(thigh.grow(-SKIN_MM), FAT_HU, grain=6, blotch=4)
            bulk = thigh.grow(-0.75 * build.fat_mm - 3)
            canvas.paint(bulk, MUSCLE_HU, grain=6, blotch=3)
            canvas.septa(bulk, FAT_HU + 20, 0.1, 0.7)
            self._femur(canvas, z, side)
            canvas.paint(ellipse(side * 62 * k, -42 * k, 15, 12), FAT_HU)
        self._vessels(canvas, z)

    def _cleft(self, canvas: Canvas, z: float) -> None:
        """Cut the cleft between the buttocks."""
        if z < 105:
            depth = 0.8 * self.build.fat_mm + 34 * (1 - z / 105)
            cut = capsule((0, self.b + 8), (0, 0.95 * self.b - depth), 2.4, 0.8)
            canvas.paint(cut.grow(1.8), SKIN_HU)
            canvas.paint(cut, AIR_HU)

    def _gluteal(self, canvas: Canvas, z: float) -> None:
        """Paint the muscles behind and beside the hip bones."""
        k, build = self.build.scale, self.build
        size = build.muscle * (0.75 + 0.35 * np.sin(np.pi * min(1.0, z / 165)))
        rear = 0.95 * self.b - 0.75 * build.fat_mm
        for side in SIDES:
            great = path(
                mirrored(
                    [(24 * k, rear - 12), (70 * k, rear - 20 * k), (118 * k, rear - 62 * k)], side
                ),
                [9 * size, 19 * size, 8 * size],
            )
            canvas.paint(great, MUSCLE_HU, grain=6, blotch=3)
            canvas.septa(great, FAT_HU + 20, 0.1, 0.7)
            if z > 55:
                least = path(
                    mirrored([(76 * k, 22 * k), (118 * k, 0), (112 * k, -34 * k)], side),
                    [17 * size, 17 * size, 12 * size],
                )
                canvas.paint(least, MUSCLE_HU, grain=6, blotch=3)
                canvas.septa(least, FAT_HU + 20, 0.1, 0.7)
            if z < 100:
                thigh = path(
                    mirrored([(76 * k, -52 * k), (110 * k, -38 * k), (128 * k, 0)], side),
                    [13, 14, 9],
                )
                canvas.paint(thigh, MUSCLE_HU, grain=6, blotch=3)
                canvas.septa(thigh, FAT_HU + 20, 0.1, 0.7)
                deep = path(
                    mirrored([(30 * k, 4), (52 * k, 20 * k), (84 * k, 30 * k)], side), [7, 9, 7]
                )
                canvas.paint(deep, MUSCLE_HU, grain=6)

    def _front(self, canvas: Canvas, z: float) -> None:
        """Paint iliopsoas and rectus muscles."""
        k = self.build.scale
        up = max(0.0, (z - HIP_Z) / 118)
        for side in SIDES:
            psoas = ellipse(
                side * (74 - 38 * up) * k, (-32 + 46 * up) * k, 17 * k, 18 * k, side * 0.4
            )
            canvas.paint(psoas.grow(2), FAT_HU)
            canvas.paint(psoas, MUSCLE_HU + 3, grain=6)
            if z > 110:
                iliac = path(
                    mirrored([(56 * k, 38 * k), (82 * k, 8 * k), (96 * k, -34 * k)], side),
                    [7, 9, 6],
                )
                canvas.paint(iliac, MUSCLE_HU, grain=6)
            rectus = ellipse(
                side * 27, -self.b + 0.75 * self.build.fat_mm + 10, 24, 6.5, side * 0.1
            )
            canvas.paint(rectus, MUSCLE_HU, grain=6)

    def _organs(self, canvas: Canvas, z: float, inside: np.ndarray) -> None:
        """Paint bowel, bladder, womb or prostate, and rectum."""
        organ, k, s = self.build.organ, self.build.scale, self.bladder
        self.loops.paint(canvas, z, organ, inside)
        if self.female:
            womb = ellipsoid(z, (6, 6, 100), (30, 20, 32), 0.2)
            canvas.paint(womb, 52 + 1.1 * organ, grain=6, blotch=6, mask=inside)
        else:
            gland = ellipsoid(z, (0, 2, 56), (24, 18, 20))
            canvas.paint(gland, 44 + 0.8 * organ, grain=6, blotch=5, mask=inside)
        bladder = ellipsoid(z, (0, -24, 88), (44 * s, 32 * s, 36 * s))
        canvas.paint(bladder.grow(2.5), 40, mask=inside)
        canvas.paint(bladder, self.urine, grain=5, mask=inside)
        if z < 150:
            swing = 7 * np.sin(z / 23.0)
            rectum = ellipse(swing, 38 * k, 19 + swing / 3, 17)
            canvas.paint(rectum, 44 + 0.6 * organ, grain=6)
            filling(canvas, rectum.grow(-3.5), 36, self.stool)

    def _bones(self, canvas: Canvas, z: float) -> None:
        """Paint sacrum, hip bones, thigh bones, the symphysis and islands of dense bone."""
        k = self.build.scale
        if z > 62:
            self._sacrum(canvas, z)
        for side in SIDES:
            self._hip(canvas, z, side)
            self._femur(canvas, z, side)
        for x, y, height, r in self.sclerosis:
            if r:
                spot = ellipsoid(z, (x * k, y, height), (r, r, r))
                canvas.paint(spot, 420, mask=(canvas.image > 130).astype(np.float32))
        if abs(z - 44) < 13:
            canvas.paint(capsule((0, -52 * k), (0, -38 * k), 3.5), 90)

    def _sacrum(self, canvas: Canvas, z: float) -> None:
        """Paint the sacrum, narrower and further back downwards, or the last lumbar vertebra."""
        k, build = self.build.scale, self.build
        rear = 0.95 * self.b - 0.6 * build.fat_mm
        if z > 165:
            spine(canvas, build, z, rear - 62 * k, 1.0)
            back_muscles(canvas, build, rear - 64 * k, 0.8)
            return
        part = (z - 62) / 103
        y = rear - (22 + 26 * part) * k
        wing = (7 + 40 * part) * k
        body = path(
            [(-wing, y - 4), (0, y - 6 * part), (wing, y - 4)],
            [6 + 5 * part, 7 + 9 * part, 6 + 5 * part],
        )
        canvas.bone(body, 1.6, build.marrow - 20, 0.6 * build.cortex)
        if part > 0.3:
            for side in SIDES:
                canvas.paint(ellipse(side * 16 * k, y + 2, 4.2, 4.2), -30)
            crest = capsule((0, y + 10), (0, y + 18 * part + 8), 3)
            canvas.bone(crest, 1.5, build.marrow, 0.8 * build.cortex)
            canvas.paint(ellipse(0, y + 9 * part + 3, 6, 3.5), 15)

    def _hip(self, canvas: Canvas, z: float, side: int) -> None:
        """Paint the hip bone: wing above, socket at the hip, rami below."""
        k, build = self.build.scale, self.build
        rear = 0.95 * self.b - 0.6 * build.fat_mm
        if z > HIP_Z + 26:
            high = min(1.0, (z - HIP_Z - 26) / 60)
            points = [
                (44 * k, rear - 44 * k),
                (66 * k, 26 * k),
                ((86 + 12 * high) * k, -2),
                ((92 + 20 * high) * k, (-14 - 30 * high) * k),
            ]
            wing = path(mirrored(points, side), [8.5, 6.5 - 2.5 * high, 7 - 3 * high, 6.5])
            if z > 160:
                wing = wing - ellipse(0, -60, 96 * k, 60 + (z - 160))
            canvas.bone(wing, 2.0, build.marrow, build.cortex)
            return
        shape: Shape = EMPTY
        if z > HIP_Z - 30:
            cup = ellipse(side * 82 * k, 2, 31 * k, 31 * k) - ellipse(
                side * 87 * k, 2, 26 * k, 25.5 * k
            )
            half_plane = Shape(
                (-300, -300, 300, 300), lambda x, y: (side * x - 88 * k).astype(np.float32)
            )
            column = path(
                mirrored([(58 * k, 12), (64 * k, 30 * k), (60 * k, 42 * k)], side), [9, 9, 6]
            )
            shape = (cup & half_plane) | column
        if 26 < z < HIP_Z - 12:
            shape = shape | path(
                mirrored([(5, -46 * k), (38 * k, -34 * k), (60 * k, -16 * k)], side), [8.5, 6, 8]
            )
        if z < HIP_Z - 24:
            seat = ellipsoid(z, (side * 58 * k, 34 * k, 36), (14 * k, 20 * k, 34), side * 0.5)
            shape = shape | seat
            if z < 38:
                shape = shape | capsule((side * 16 * k, -34 * k), (side * 46 * k, 14 * k), 5.5)
        canvas.bone(shape, 1.8, build.marrow, build.cortex)

    def _femur(self, canvas: Canvas, z: float, side: int) -> None:
        """Paint head, neck, trochanter or shaft of the thigh bone."""
        k, build = self.build.scale, self.build
        head = ellipsoid(z, (side * 88 * k, 2, HIP_Z), (23.5 * k, 23.5 * k, 24.0))
        canvas.bone(head, 1.5, build.marrow + 130, 0.7 * build.cortex)
        if z < HIP_Z - 2:
            fall = min(1.0, max(0.0, (HIP_Z - 2 - z) / 30))
            lump = ellipsoid(z, (side * 128 * k, 14, 52), (17 * k, 19 * k, 26))
            neck = EMPTY
            if z > 42:
                start, end = (side * (88 + 22 * fall) * k, 3.0), (side * 122 * k, 10.0)
                neck = capsule(start, end, 13 * k)
            shaft = ellipse(side * 116 * k, 10, 15.5 * k, 15.5 * k) if z < 48 else EMPTY
            cortex = 2.0 + 5 * max(0.0, 1 - z / 44)
            marrow = build.marrow * min(1.0, z / 40) - 60 * max(0.0, 1 - z / 40)
            canvas.bone(lump | neck | shaft, cortex, marrow, (1.1 + 0.4 * (z < 44)) * build.cortex)

    def _vessels(self, canvas: Canvas, z: float) -> None:
        """Paint the iliac and femoral vessels and the nodes of the groin."""
        k, blood = self.build.scale, self.build.blood
        up = min(1.0, max(0.0, (z - HIP_Z) / 118))
        for side in SIDES:
            x, y = side * (58 - 34 * up) * k, (-46 + 46 * up) * k
            canvas.paint(ellipse(x, y, 6.0, 6.0), blood, grain=5)
            canvas.paint(ellipse(x - side * 12, y + 4, 7.5, 6.5), 0.85 * blood + 6, grain=5)
            if z < 80:
                canvas.paint(ellipse(x + side * 12, y - 12, 5, 3), 40)
                canvas.paint(ellipse(x - side * 6, y - 18, 3, 4), 35)
