"""The head, from the skull base (z = 0) to the vertex."""

from math import sqrt

import numpy as np

from physfed_ray.data.anatomy.canvas import AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU, Canvas, Space
from physfed_ray.data.anatomy.shapes import Shape, capsule, ellipse, ellipsoid, mirrored, path
from physfed_ray.data.anatomy.trunk import Build

SIDES = (-1, 1)
CSF_HU, GREY_HU, WHITE_HU = 7.0, 39.0, 29.0


class Head:
    """One patient's head."""

    field_mm = 240.0
    length_mm = 132.0

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the patient."""
        self.build = build = Build.draw(rng)
        self.noise_hu = 0.55 * build.noise_hu
        self.space = Space.draw(rng, self.field_mm, self.length_mm, 1.6)
        self.a = rng.uniform(70, 77) * build.scale**0.3
        self.b = rng.uniform(88, 97) * build.scale**0.3
        self.table = rng.uniform(5.5, 8.0)
        self.atrophy = rng.uniform(0.6, 1.7)
        self.lesion = str(rng.choice(["none", "none", "bleed", "stroke", "tumour"]))
        self.lesion_at = (
            int(rng.choice(SIDES)) * rng.uniform(22, 44),
            rng.uniform(-35, 35),
            rng.uniform(55, 95),
        )
        self.lesion_mm = rng.uniform(9, 20)
        self.pineal = bool(rng.random() < 0.7)

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        round_off = sqrt(max(0.05, 1 - max(0.0, (z - 62) / 78) ** 2))
        base = 1 - 0.10 * max(0.0, 1 - z / 45)
        a, b = self.a * round_off * base, self.b * round_off * base
        scalp = ellipse(0, 0, a + 7 + 4 * (z < 60), b + 7)
        if z < 42:
            scalp = scalp | self._face(canvas, z)
        canvas.paint(scalp, SKIN_HU + 20)
        canvas.paint(scalp.grow(-2), FAT_HU + 25, grain=6, blotch=15)
        if z < 60:
            for side in SIDES:
                muscle = ellipse(side * (a + 3), -22, 5.5, 30, side * 0.1)
                canvas.paint(muscle & scalp.grow(-3), MUSCLE_HU, grain=5)
        skull = ellipse(0, 0, a, b)
        self._skull(canvas, skull, z)
        brain = skull.grow(-self.table * (0.9 + 0.2 * (z > 100)))
        if z < 42:
            self._posterior_fossa(canvas, z, a, b)
        else:
            self._brain(canvas, z, brain, b)

    def _skull(self, canvas: Canvas, skull: Shape, z: float) -> None:
        """Paint the skull: two dense tables with looser bone between."""
        build = self.build
        canvas.paint(skull, 1.1 * build.cortex, grain=30)
        inner = skull.grow(-self.table)
        canvas.paint(skull.grow(-0.35 * self.table) - inner.grow(0.3 * self.table), 480, grain=60)
        if z > 42:
            canvas.paint(inner, CSF_HU + 4, grain=3)

    def _face(self, canvas: Canvas, z: float) -> Shape:
        """Return the outline of the face below the forehead."""
        nose = ellipsoid(z, (0, -self.b - 6, 4), (11, 18, 22))
        return ellipse(0, -0.42 * self.b, 0.86 * self.a, 0.66 * self.b) | nose

    def _brain(self, canvas: Canvas, z: float, brain: Shape, b: float) -> None:
        """Paint cortex, white matter, sulci, deep nuclei, ventricles and falx."""
        w = canvas.window(brain)
        distance = brain.distance(canvas.x[w], canvas.y[w])
        cover = np.clip(0.5 - (distance + 1.2 * self.atrophy) / (1.3 * canvas.pixel), 0, 1)
        depth = -distance
        folds = np.abs(canvas.strand[w])
        ribbon = np.clip((9.0 - depth + 9 * (0.7 - folds)) / 3, 0, 1) * np.clip(
            (26 - depth) / 6, 0, 1
        )
        canvas.blend(w, cover, WHITE_HU + (GREY_HU - WHITE_HU) * ribbon, 2.0, 1.0)
        sulci = np.clip(1 - folds / (0.26 * self.atrophy), 0, 1) * np.clip((17 - depth) / 6, 0, 1)
        canvas.blend(w, cover * sulci, CSF_HU)
        if z < 88:
            self._deep(canvas, z)
        self._ventricles(canvas, z)
        self._lesion(canvas, z)
        gap = ellipse(0, 0, 1.3 + 0.7 * self.atrophy, 2 * b)
        for start, end in ((-b, -0.45 * b), (0.42 * b, b)):
            middle, half = (start + end) / 2, (end - start) / 2
            if z > 92:
                middle, half = 0.0, b
            slit = ellipse(0, middle, gap.box[2], half) & brain
            canvas.paint(slit, CSF_HU)
            canvas.paint(capsule((0, middle - half), (0, middle + half), 0.7) & brain, 55)
        if z > 60:
            sinus = ellipse(0, b - self.table - 4, 4.5, 4) & brain
            canvas.paint(sinus, 52 + 0.6 * self.build.contrast)
        if z < 62:
            self._cisterns(canvas, z)

    def _deep(self, canvas: Canvas, z: float) -> None:
        """Paint the insula's cleft, the basal ganglia and the thalamus."""
        for side in SIDES:
            canvas.paint(
                ellipsoid(z, (side * 23, -8, 66), (7, 17, 20), side * -0.25), GREY_HU, grain=2
            )
            canvas.paint(
                ellipsoid(z, (side * 11, -22, 70), (4.5, 9, 18), side * 0.3), GREY_HU, grain=2
            )
            canvas.paint(
                ellipsoid(z, (side * 10, 10, 66), (8, 12, 15), side * -0.4), GREY_HU, grain=2
            )
            if z < 78:
                cleft = path(mirrored([(58, -14), (40, -10), (37, 10)], side), [1.6, 1.8, 1.2])
                canvas.paint(cleft.grow(3.5), GREY_HU, grain=2)
                canvas.paint(cleft.grow(0.4 * self.atrophy), CSF_HU)

    def _ventricles(self, canvas: Canvas, z: float) -> None:
        """Paint the side ventricles, the third ventricle and what lies in them."""
        s = 0.75 + 0.25 * self.atrophy
        for side in SIDES:
            front = ellipsoid(z, (side * 8 * s, -26, 80), (4.2 * s, 15, 17), side * 0.35)
            body = ellipsoid(z, (side * 11 * s, 2, 90), (5.5 * s, 30, 10), side * -0.12)
            back = ellipsoid(z, (side * 21 * s, 36, 80), (6 * s, 15, 15), side * -0.5)
            for horn in (front, body, back):
                canvas.paint(horn, CSF_HU, grain=2)
            plexus = ellipsoid(z, (side * 21 * s, 32, 78), (2.6, 3.6, 6))
            canvas.paint(plexus, 140)
        canvas.paint(ellipsoid(z, (0, 4, 62), (2.2 * s, 13, 16)), CSF_HU)
        if self.pineal:
            canvas.paint(ellipsoid(z, (0, 24, 64), (2.4, 2.6, 4)), 190)

    def _cisterns(self, canvas: Canvas, z: float) -> None:
        """Paint the star of fluid around the midbrain, and the midbrain."""
        if z > 56:
            return
        star = (
            ellipse(0, 2, 19, 19)
            | capsule((0, -10), (0, -26), 4)
            | capsule((-16, -12), (-40, -16), 2.6)
        )
        star = star | capsule((16, -12), (40, -16), 2.6)
        canvas.paint(star, CSF_HU)
        canvas.paint(ellipse(0, 3, 15, 14), 33, grain=2)
        canvas.paint(ellipse(0, 12, 1.5, 1.5), CSF_HU)
        for x, y in ((-12, -15), (12, -15), (0, -17)):
            canvas.paint(ellipse(x, y, 1.9, 1.9), self.build.blood)

    def _lesion(self, canvas: Canvas, z: float) -> None:
        """Paint a bleeding, a stroke or a tumour."""
        if self.lesion == "none":
            return
        x, y, height = self.lesion_at
        r = self.lesion_mm
        outer = ellipsoid(z, (x, y, height), (1.5 * r, 1.3 * r, 1.3 * r), 0.5)
        core = ellipsoid(z, (x, y, height), (r, 0.85 * r, r), 0.5)
        canvas.paint(outer, 20, grain=2)
        hu = {"bleed": 68.0, "stroke": 17.0, "tumour": 42 + 0.5 * self.build.contrast}[self.lesion]
        canvas.paint(core, hu, grain=3, blotch=2)

    def _posterior_fossa(self, canvas: Canvas, z: float, a: float, b: float) -> None:
        """Paint what lies within the skull's outline below the brain: see the parts."""
        build, t = self.build, self.table
        inner = ellipse(0, 0, a - t, b - t)
        canvas.paint(inner, 33, grain=3, blotch=1.5)
        rear = ellipse(0, 0.38 * b, 0.66 * a, 0.5 * b)
        canvas.paint(rear.grow(2.5), CSF_HU)
        canvas.paint(rear, 36, grain=2.5, blotch=1.5)
        for side in SIDES:
            temporal = ellipse(side * 0.55 * a, -0.16 * b, 0.30 * a, 0.27 * b, side * 0.3)
            canvas.paint(temporal.grow(3), CSF_HU)
            canvas.paint(temporal, 35, grain=2.5, blotch=2)
            ridge = path(
                mirrored([(12, -2), (0.52 * a, 0.14 * b), (0.88 * a, 0.3 * b)], side),
                [4.5, 5 + 4 * (1 - z / 42), 9.0],
            )
            canvas.bone(ridge, 1.8, 700, build.cortex * 1.15)
            self._air_cells(canvas, (side * 0.82 * a, 0.34 * b), z)
        canvas.bone(ellipse(0, -0.14 * b, 14, 16), 1.5, 250, 700)
        canvas.paint(ellipse(0, 0.16 * b, 15, 12), CSF_HU)
        canvas.paint(ellipse(0, 0.17 * b, 12, 10), 33, grain=2)
        canvas.paint(ellipse(0, 0.33 * b, 5.5 * self.atrophy**0.5, 4), CSF_HU)
        self._front(canvas, z, a, b)

    def _air_cells(self, canvas: Canvas, centre: tuple[float, float], z: float) -> None:
        """Paint the air cells of the mastoid."""
        for number in range(9):
            turn = number * 2.4 + z / 9.0
            r = 3.0 * sqrt(number)
            cell = ellipse(
                centre[0] + r * np.cos(turn), centre[1] + r * np.sin(turn), 2.3, 1.8, turn
            )
            canvas.paint(cell, AIR_HU + 150)

    def _front(self, canvas: Canvas, z: float, a: float, b: float) -> None:
        """Paint orbits with eyes and muscles, the sinuses and the bone between."""
        build = self.build
        block = ellipse(0, -0.68 * b, 17, 0.36 * b)
        canvas.bone(block, 1.2, 60, 0.75 * build.cortex)
        for side in SIDES:
            cells = ellipse(side * 7, -0.66 * b, 5.8, 0.26 * b, side * 0.08)
            canvas.paint(cells, AIR_HU + 10)
            canvas.septa(cells, 150, 0.22, 0.9)
            if z < 30:
                canvas.paint(ellipse(side * 6.5, -0.24 * b, 5.5, 9, side * 0.3), AIR_HU + 15)
            wing = path(mirrored([(16, -0.3 * b), (0.72 * a, -0.36 * b)], side), [4.0, 2.5])
            canvas.bone(wing, 1.2, 400, 0.8 * build.cortex)
        for side in SIDES:
            orbit = ellipsoid(z, (side * 31, -b + 31, 22), (15, 26, 20), side * 0.34)
            canvas.bone(orbit.grow(3), 3.0, 600, 0.9 * build.cortex)
            canvas.paint(orbit.grow(0.5), FAT_HU, grain=5)
            eye = ellipsoid(z, (side * 35, -b + 15, 22), (12.2, 12.2, 12.2))
            canvas.paint(eye.grow(1.0), 45)
            canvas.paint(eye.grow(-0.6), 12, grain=2)
            lens = ellipsoid(z, (side * 35.5, -b + 5.5, 22), (4.4, 2.2, 4.4))
            canvas.paint(lens, 85)
            if not eye.empty:
                for lift in (-0.75, 0.65):
                    start = (side * (34 + 11 * lift), -b + 20.0)
                    canvas.paint(capsule(start, (side * 21, -b + 50), 1.9), MUSCLE_HU)
                canvas.paint(capsule((side * 34, -b + 26), (side * 21, -b + 50), 1.7), 35)
        canvas.paint(ellipse(0, -0.96 * b, 7, 3), AIR_HU + 30)
