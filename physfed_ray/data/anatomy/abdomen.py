"""The abdomen, from the iliac crest (z = 0) to the dome of the liver."""

import numpy as np

from physfed_ray.data.anatomy.canvas import FAT_HU, MUSCLE_HU, Canvas, Space
from physfed_ray.data.anatomy.shapes import Shape, capsule, ellipse, ellipsoid, path
from physfed_ray.data.anatomy.trunk import (
    Bowel,
    Build,
    back_muscles,
    filling,
    intercostal,
    ribs,
    spine,
    spine_y,
    wall,
)
from physfed_ray.data.anatomy.vessels import Tree


class Abdomen:
    """One patient's abdomen."""

    length_mm = 200.0

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the patient."""
        self.build = build = Build.draw(rng)
        self.noise_hu = build.noise_hu
        self.a = 150 * build.scale + build.fat_mm
        self.b = rng.uniform(100, 112) * build.scale + 0.6 * build.fat_mm
        self.field_mm = 2 * (1.04 * self.a + 14)
        self.space = Space.draw(rng, self.field_mm, self.length_mm)
        self.liver = rng.uniform(0.9, 1.12)
        self.left_lobe = rng.uniform(0.7, 1.15)
        self.fatty = rng.choice([0.0, 0.0, 25.0])
        self.spleen = rng.uniform(0.8, 1.2)
        self.stomach = float(rng.choice([12.0, 25.0, 250.0]))
        self.level = rng.uniform(-62, -30)
        self.kidney_z = (rng.uniform(85, 98), rng.uniform(95, 110))
        self.loops = Bowel(rng, 34, (-75, -70, 80, 15), (-10, 115))
        self.colon = Bowel(rng, 8, (-70, -82, 70, -58), (70, 120), (13, 20))
        self.content = float(rng.choice([-1.0, 20.0, -1.0]))
        self.stones = rng.random() < 0.3
        self.portal = Tree.grow(
            rng, (-38, -10, 140), rng.normal(0, 1, (5, 3)) * (22, 14, 16) - (22, 0, 0), 4.0, 4
        )
        self.mesentery = Tree.grow(
            rng, (4, -18, 105), rng.normal(0, 1, (8, 3)) * (14, 10, 14) - (0, 8, 14), 2.6, 5
        )
        self.lesions = [
            (rng.uniform(-105, -35), rng.uniform(-45, 40), rng.uniform(110, 185), r, depth)
            for r, depth in zip(
                rng.choice([0, 0, 6, 11, 20], 4), rng.choice([-45, -30, 25], 4), strict=True
            )
        ]
        self.cyst = (int(rng.choice([-1, 1])), float(rng.choice([0, 0, 12, 22])))

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        build, up = self.build, z / self.length_mm
        a = self.a * (0.93 + 0.1 * abs(up - 0.4))
        muscle_mm = (17 + 9 * up) * build.muscle + 2
        _, inner = wall(canvas, build, a, self.b, muscle_mm)
        _, y0, x1, y1 = inner.box
        cage = ellipse(0, (y0 + y1) / 2, x1, (y1 - y0) / 2)
        cavity = inner if up < 0.45 else cage
        back = spine_y(build, self.b)
        middle = (y0 + y1) / 2
        self._layers(canvas, inner, up)
        back_muscles(canvas, build, back)
        canvas.paint(cavity, FAT_HU, grain=6, blotch=4)
        inside = canvas.cover(cavity.grow(-2))
        self._muscles(canvas, z, back, x1)
        self._bowels(canvas, z, inside, x1)
        self._organs(canvas, z, inside, x1, (y0, y1))
        for side, height in zip((-1, 1), self.kidney_z, strict=True):
            self._kidney(canvas, z, side, (side * 64 * build.scale, back - 4, height))
        if up > 0.78:
            shift = 34 * (up - 0.78) / 0.22
            recess = cage.grow(-2.5) - ellipse(0, middle - shift, x1 - 3, (y1 - y0) / 2 - 3)
            column = ellipse(0, back, 30 * build.scale, 24 * build.scale)
            canvas.paint(recess - column, -820, grain=18, blotch=16)
        self._great_vessels(canvas, z, back)
        if up > 0.35:
            intercostal(canvas, cage)
            ribs(canvas, build, z, cage, middle, 0.35 + 0.45 * up)
        spine(canvas, build, z, back, 1.05)

    def _layers(self, canvas: Canvas, inner: Shape, up: float) -> None:
        """Paint the fat between the layers of the abdominal wall and the two rectus muscles."""
        if up < 0.6:
            for depth in (5.0, 10.0):
                canvas.paint(inner.grow(depth + 0.7) - inner.grow(depth - 0.7), -40)
        _, y0, _, _ = inner.box
        gap = ellipse(0, y0 - 4, 62, 14)
        canvas.paint(gap, FAT_HU)
        for side in (-1, 1):
            rectus = ellipse(side * 31, y0 - 4, 28, 6.5 * self.build.muscle, side * 0.12)
            canvas.paint(rectus, MUSCLE_HU, grain=6)

    def _muscles(self, canvas: Canvas, z: float, back: float, half: float) -> None:
        """Paint the psoas and quadratus muscles."""
        k, up = self.build.scale, z / self.length_mm
        psoas = max(0.0, 1 - up / 0.75)
        for side in (-1, 1):
            if psoas > 0.1:
                bulk = 9 + 13 * psoas
                muscle = ellipse(side * (29 + 9 * psoas) * k, back + 2, 0.9 * bulk * k, bulk * k)
                canvas.paint(muscle, MUSCLE_HU + 4, grain=6)
            flank = ellipse(side * 0.5 * half, back + 22 * k, 22 * k, 8 * k, side * -0.35)
            if up < 0.6:
                canvas.paint(flank, MUSCLE_HU, grain=6)

    def _kidney(
        self, canvas: Canvas, z: float, side: int, centre: tuple[float, float, float]
    ) -> None:
        """Paint a kidney with cortex, pyramids and sinus in its bed of fat."""
        k, plain = self.build.scale, 34.0
        turn = side * 0.6
        kidney = ellipsoid(z, centre, (27 * k, 33 * k, 56 * k), turn)
        if kidney.empty:
            return
        x, y, middle = centre
        hilum = ellipsoid(z, (x - side * 20, y - 10, middle), (18, 13, 30), turn)
        gerota = kidney.grow(11)
        canvas.paint(gerota, -70)
        canvas.paint(gerota.grow(-1.2), FAT_HU, grain=6)
        canvas.paint(kidney, plain + 2.6 * self.build.organ, grain=7)
        medulla = kidney.grow(-7) - hilum.grow(5)
        canvas.paint(medulla, plain + 1.6 * self.build.organ, grain=7, blotch=9)
        canvas.paint(hilum, FAT_HU + 10)
        pelvis = ellipsoid(z, (x - side * 16, y - 7, middle), (9, 5, 16), turn)
        canvas.paint(pelvis, 8 + 0.2 * self.build.organ)
        if self.cyst[0] == side and self.cyst[1]:
            cyst = ellipsoid(z, (x + side * 24, y - 8, middle + 14), (self.cyst[1],) * 3)
            canvas.paint(cyst, 6, grain=5)

    def _organs(
        self,
        canvas: Canvas,
        z: float,
        inside: np.ndarray,
        half: float,
        depth: tuple[float, float],
    ) -> None:
        """Paint stomach, pancreas, spleen, liver and gall bladder."""
        build, k = self.build, self.build.scale
        front, rear = depth
        middle = (front + rear) / 2
        stomach = ellipsoid(z, (46, front + 42, 152), (44, 34, 52), 0.5) | ellipsoid(
            z, (14, front + 34, 122), (46, 18, 24), 0.2
        )
        canvas.paint(stomach, 45 + 0.4 * build.organ, grain=6, mask=inside)
        filling(canvas, stomach.grow(-4.5), self.level, self.stomach, inside)
        if abs(z - 118) < 16:
            drop = z - 118
            pancreas = path(
                [
                    (-28, middle + 6),
                    (0, middle - 6 + drop / 4),
                    (34, middle + 4),
                    (66, middle + 16),
                ],
                [13, 8, 8, 6],
            )
            canvas.paint(pancreas, 42 + 0.9 * build.organ, grain=7, blotch=14, mask=inside)
            canvas.septa(pancreas, FAT_HU + 40, 0.25, 0.7)
        s = self.spleen
        spleen = ellipsoid(
            z, (half - 28 * s, rear - 52, 150), (27 * s, 50 * s, 52 * s), -0.35
        ) - ellipse(half - 72 * s, rear - 62, 26, 40, -0.3)
        canvas.paint(spleen, 50 + 1.15 * build.organ, grain=7, mask=inside)
        self._liver(canvas, z, inside, half, middle)
        gall = ellipsoid(z, (-44 * k, middle - 38, 104), (15, 20, 26), -0.4)
        canvas.paint(gall.grow(1.5), 40, mask=inside)
        canvas.paint(gall, 9, grain=4, mask=inside)
        if self.stones:
            canvas.paint(ellipsoid(z, (-44 * k, middle - 28, 100), (5, 4, 6)), 260, mask=inside)

    def _liver(
        self, canvas: Canvas, z: float, inside: np.ndarray, half: float, middle: float
    ) -> None:
        """Paint the liver with its vessels and lesions; fatty livers are darker."""
        s, build = self.liver, self.build
        right = ellipsoid(z, (-half + 66 * s, middle - 2, 142), (80 * s, 84 * s, 92 * s), 0.15)
        left = ellipsoid(
            z, (-12, middle - 46, 158), (72 * self.left_lobe, 34, 46 * self.left_lobe), 0.2
        )
        notch = ellipse(10, middle + 46, 44, 48)
        liver = (right | left) - notch
        tissue = 60 - self.fatty + build.organ
        canvas.paint(liver, tissue, grain=7, blotch=3, mask=inside)
        fissure = capsule((-14, middle - 30), (-18, middle - 62), 2.4)
        if left.empty or liver.empty:
            return
        within = inside * canvas.cover(liver.grow(-2))
        canvas.paint(fissure, FAT_HU + 30, mask=within)
        self.portal.paint(canvas, z, 40 + 0.95 * build.contrast, within)
        for x, y, height, r, depth in self.lesions:
            if r:
                spot = ellipsoid(z, (x, middle + 0.6 * y, height), (r, 0.9 * r, r))
                canvas.paint(spot.grow(2), tissue + 0.4 * depth, grain=7, mask=within)
                canvas.paint(spot, max(tissue + depth, 4), grain=7, mask=within)

    def _bowels(self, canvas: Canvas, z: float, inside: np.ndarray, half: float) -> None:
        """Paint the colon, the small bowel and the vessels of the mesentery."""
        organ = self.build.organ
        self.mesentery.paint(canvas, z, 40 + 0.8 * self.build.contrast, inside)
        self.loops.paint(canvas, z, organ, inside)
        self.colon.paint(canvas, z, organ, inside)
        for side, top in ((-1, 95.0), (1, 125.0)):
            if z < top:
                wobble = 6 * np.sin(z / 11.0 + side)
                colon = ellipse(side * (half - 24), 12 + wobble, 19 + wobble / 2, 22)
                canvas.paint(colon, 42 + 0.6 * organ, grain=6, mask=inside)
                filling(canvas, colon.grow(-2.5), 4 + wobble, self.content, inside)

    def _great_vessels(self, canvas: Canvas, z: float, back: float) -> None:
        """Paint the aorta (calcified in some), the caval vein and the upper mesenteric vessels."""
        k, build = self.build.scale, self.build
        front = back - 27 * k
        canvas.paint(ellipse(10 * k, front, 10.5 * k, 10.5 * k), build.blood, grain=5)
        if self.stones:
            canvas.paint(capsule((3 * k, front + 7), (10 * k, front + 10), 1.2), 600)
        canvas.paint(
            ellipse(-17 * k, front + 2, 12.5 * k, 9.5 * k), 0.85 * build.blood + 6, grain=5
        )
        for x, r in ((4, 4.0), (-7, 5.5)):
            canvas.paint(ellipse(x * k, front - 22, r, r), build.blood, grain=5)
        if z > 150:
            for side in (-1, 1):
                crus = capsule((side * 10 * k, front - 9), (side * 24 * k, back - 4), 4.5)
                canvas.paint(crus, MUSCLE_HU)
