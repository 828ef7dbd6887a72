"""The chest, from the dome of the liver (z = 0) to the shoulders."""

from math import exp, pi

import numpy as np

from physfed_ray.data.anatomy.canvas import AIR_HU, FAT_HU, MUSCLE_HU, Canvas, Space
from physfed_ray.data.anatomy.shapes import (
    Shape,
    capsule,
    ellipse,
    ellipsoid,
    mirrored,
    path,
)
from physfed_ray.data.anatomy.trunk import (
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

LUNG_HU = -860.0
HEART_Z, HILUM_Z, ARCH_Z = 75.0, 118.0, 160.0


class Chest:
    """One patient's chest."""

    length_mm = 215.0

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the patient."""
        self.build = build = Build.draw(rng)
        self.noise_hu = build.noise_hu
        self.a = 152 * build.scale + build.fat_mm
        self.b = rng.uniform(106, 118) * build.scale + 0.65 * build.fat_mm
        self.field_mm = 2 * (self.a + 56)
        self.space = Space.draw(rng, self.field_mm, self.length_mm)
        self.breast = rng.uniform(22, 40) if rng.random() < 0.45 else 0.0
        self.heart = rng.uniform(0.88, 1.18)
        self.tilt = rng.uniform(0.45, 0.75)
        self.lung_hu = LUNG_HU + rng.uniform(-30, 40)
        self.trees = [self._tree(rng, side) for side in (-1, 1)]
        self.nodules = [
            (side * rng.uniform(50, 105), rng.uniform(-50, 50), rng.uniform(50, 180), r)
            for side, r in zip(rng.choice([-1, 1], 4), rng.choice([0, 0, 4, 7, 14], 4), strict=True)
        ]
        self.effusion = rng.choice([0.0, 0.0, 0.0, 14.0, 26.0], 2)

    def _tree(self, rng: np.random.Generator, side: int) -> Tree:
        """Draw the vessels of one lung, from its hilum to the pleura."""
        directions = rng.standard_normal((20, 3))
        directions[:, 0] = side * (0.25 + np.abs(directions[:, 0]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        trunks = directions * rng.uniform(20, 34, (20, 1)) * (1.0, 1.0, 1.7)
        return Tree.grow(rng, (side * 32, 5, HILUM_Z), trunks, 3.4, 7)

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        build, up = self.build, z / self.length_mm
        shoulder = 1 / (1 + exp(-(up - 0.86) * 22))
        taper = 1 - 0.35 * max(0.0, up - 0.55)
        waist = min(1.0, max(0.0, up - 0.55) / 0.3)
        a = self.a * (1 - 0.07 * waist + 0.2 * shoulder)
        b = self.b * (1 - 0.06 * waist - 0.1 * shoulder)
        if up > 0.88:
            self._shoulder_skin(canvas)
        if self.breast:
            self._breasts(canvas, z)
        wall(canvas, build, a, b, 0)
        back = spine_y(build, b)
        rear, front = back + 27 * build.scale, -b + 0.75 * build.fat_mm + 17
        cage_a = (self.a - build.fat_mm - 22) * (1 - 0.36 * max(0.0, up - 0.6) / 0.4)
        cage_b, cy = (rear - front) / 2 * taper, rear - (rear - front) / 2 * taper
        cage = ellipse(0, cy, cage_a, cage_b)
        self._shoulders(canvas, z, cage_a, cage_b, cy)
        back_muscles(canvas, build, back, 0.85)
        intercostal(canvas, cage)
        canvas.paint(cage, FAT_HU + 10, grain=6, blotch=5)
        lungs = self._lungs(canvas, z, cage, cy, back)
        self._mediastinum(canvas, z, cage_b, cy, back)
        self._below(canvas, z, cage)
        ribs(canvas, build, z, cage, cy, 0.78)
        spine(canvas, build, z, back, 0.9)
        self._sternum(canvas, z, cy - cage_b)
        self._nodules(canvas, z, lungs)

    def _shoulder_skin(self, canvas: Canvas) -> None:
        """Paint skin and fat over the deltoid muscles."""
        cover = 38 + 0.3 * self.build.fat_mm
        for side in (-1, 1):
            round_end = ellipse(side * (self.a - 2), 4, cover, cover + 4)
            canvas.paint(round_end, 50)
            canvas.paint(round_end.grow(-2), FAT_HU, grain=6)

    def _breasts(self, canvas: Canvas, z: float) -> None:
        """Paint the breasts, fat with strands of gland."""
        for side in (-1, 1):
            half = (62.0, self.breast + 35, 62.0)
            breast = ellipsoid(z, (side * 82, -self.b + 30, 95), half, side * 0.25)
            canvas.paint(breast, 40)
            canvas.paint(breast.grow(-2), FAT_HU, grain=6)
            gland = breast.grow(-14)
            canvas.paint(gland, -45, grain=12, blotch=45)

    def _shoulders(self, canvas: Canvas, z: float, a: float, b: float, cy: float) -> None:
        """Paint the muscles outside the cage, the scapulae, clavicles and humeral heads."""
        build, high = self.build, z / self.length_mm
        behind = Shape((-300, cy - 8, 300, 300), lambda x, y: np.float32(cy - 8) - y)
        cage = ellipse(0, cy, a, b)
        broad = (cage.grow(13 + 9 * build.muscle) - cage.grow(13)) & behind
        canvas.paint(broad, MUSCLE_HU, grain=6, blotch=3)
        canvas.septa(broad, FAT_HU + 20, 0.16, 0.8)
        upper = max(0.0, high - 0.5) / 0.5
        body = (canvas.image > -900).astype(np.float32)
        out = self.a * (1.1 if high > 0.85 else 0.97) - 0.3 * build.fat_mm
        for side in (-1, 1):
            if upper:
                cape = path(
                    mirrored(
                        [
                            (26, cy + b + 16),
                            (min(a + 8, out - 14), cy + b - 8),
                            (min(a + 38, out - 8), cy + 14),
                        ],
                        side,
                    ),
                    [7 + 5 * upper, 7 + 10 * upper, 6 + 15 * upper],
                )
                canvas.paint(cape, MUSCLE_HU, grain=6, blotch=4, mask=body)
                canvas.septa(cape, FAT_HU + 20, 0.16, 0.8)
            if high > 0.35:
                tip = min(1.0, (high - 0.35) / 0.3)
                blade = path(
                    mirrored(
                        [
                            (a - 42, cy + b - 4),
                            (min(a + 4, out - 26), cy + 0.62 * b),
                            (min(a + 22, out - 16), cy + 22),
                        ],
                        side,
                    ),
                    [2.0, 2.6, 2.0 + 4.5 * tip],
                )
                canvas.paint(blade.grow(11), MUSCLE_HU, grain=6, blotch=4, mask=body)
                canvas.septa(blade.grow(11), FAT_HU + 20, 0.12, 0.7)
                canvas.bone(blade, 1.3, build.marrow, build.cortex)
            pectoral = path(
                mirrored(
                    [(18, cy - b - 9), (0.6 * a, cy - 0.9 * b - 4), (a + 14, cy - 0.3 * b)], side
                ),
                [5.0, 8.0 + 6 * high, 7.0],
            )
            canvas.paint(pectoral, MUSCLE_HU, grain=6, blotch=3)
            canvas.septa(pectoral, FAT_HU + 20, 0.14, 0.7)
            if high > 0.9:
                self._shoulder(canvas, side, a, b, cy)

    def _shoulder(self, canvas: Canvas, side: int, a: float, b: float, cy: float) -> None:
        """Paint a shoulder: deltoid muscle, head of the humerus, collar bone."""
        build = self.build
        head = ellipse(side * (self.a + 2), cy + 6, 21, 23)
        deltoid = head.grow(13) | capsule((side * self.a, cy + 6), (side * (a + 26), cy + 12), 24)
        canvas.paint(deltoid, MUSCLE_HU, grain=6, blotch=3)
        canvas.septa(deltoid.grow(-3), FAT_HU + 20, 0.14, 0.8)
        canvas.bone(head, 2.0, build.marrow + 40, build.cortex)
        collar = path(mirrored([(28, cy - b - 4), (70, cy - b + 4)], side), [7.0, 5.0])
        canvas.bone(collar, 2.2, build.marrow, build.cortex)

    def _central(self, z: float, cage_b: float, cy: float, back: float) -> Shape:
        """Return what lies between the lungs: heart, great vessels, spine."""
        k, s = self.build.scale, self.heart
        column = ellipse(0, cy - 0.1 * cage_b, 21 * k, cage_b)
        bump = ellipse(0, back, 27 * k, 21 * k)
        heart = ellipsoid(
            z, (20 * s, -24, HEART_Z), (66 * s, 46 * s, 62 * s), -self.tilt
        ) | ellipsoid(z, (-22, -14, HEART_Z + 8), (34 * s, 38 * s, 58))
        great = ellipsoid(z, (4, -18, 145), (38 * k, 34 * k, 48))
        hila = ellipsoid(z, (0, 6, HILUM_Z), (48, 15, 26))
        return column | bump | heart.grow(3) | great | hila

    def _lungs(self, canvas: Canvas, z: float, cage: Shape, cy: float, back: float) -> np.ndarray:
        """Paint both lungs and their vessels; return how much of each pixel is lung."""
        pleura = cage.grow(-2.5)
        right = ellipsoid(z, (-72, -8, -28), (82, 82, 78))
        left = ellipsoid(z, (76, -12, -36), (72, 76, 74))
        space = pleura - self._central(z, (cage.box[3] - cage.box[1]) / 2, cy, back)
        lungs = canvas.cover(space - right - left)
        for side, depth in zip((-1, 1), self.effusion, strict=True):
            rest = np.clip((cy + 62 - depth * max(0.0, 1 - z / 130) - canvas.y) / 3 + 3, 0, 1)
            lungs = np.where(canvas.x * side > 0, lungs * (rest if depth else 1), lungs)
        everywhere = (slice(None), slice(None))
        fluid = canvas.cover(space - right - left)
        canvas.blend(everywhere, fluid, 12.0, 6)
        gravity = 0.35 * canvas.y
        canvas.blend(everywhere, lungs, self.lung_hu + gravity, 16, 14)
        for tree in self.trees:
            tree.paint(canvas, z, 35 + 0.5 * self.build.contrast, lungs)
        return lungs

    def _mediastinum(self, canvas: Canvas, z: float, cage_b: float, cy: float, back: float) -> None:
        """Paint the heart, the great vessels, the airways and the oesophagus."""
        k, blood = self.build.scale, self.build.blood
        self._heart(canvas, z)
        aorta_y = back - 16 * k
        if z < ARCH_Z:
            self._vessel(canvas, (20 * k, aorta_y), 12.5 * k)
        if HILUM_Z - 20 < z < ARCH_Z:
            self._vessel(canvas, (-12 * k, -34), 16 * k)
        if abs(z - ARCH_Z) < 11:
            arch = path([(-10 * k, -34), (14 * k, -14), (21 * k, aorta_y)], [12.5, 13, 12.5])
            canvas.paint(arch, blood, grain=5)
        if z > HILUM_Z - 22:
            self._vessel(canvas, (-28 * k, -26), 9.5 * k, 0.9)
        if abs(z - HILUM_Z) < 13:
            trunk = path([(16, -42), (24, -18), (40, 0)], [14, 13, 8])
            canvas.paint(trunk | path([(14, -14), (-40, -4)], [11, 8]), blood, grain=5)
        if z > ARCH_Z + 8:
            for x, y, r in (
                (-18, -30, 6),
                (4, -26, 4.5),
                (18, -14, 5),
                (-30, -32, 7),
                (26, -34, 7),
            ):
                self._vessel(canvas, (x * k, y), r)
        canvas.paint(ellipse(9 * k, aorta_y - 8, 7, 5), 38, grain=6)
        if z > HILUM_Z + 10:
            canvas.paint(ellipse(-1, 4, 10.5, 10), 60)
            canvas.paint(ellipse(-1, 4, 8.5, 8), AIR_HU + 5)
        elif z > HILUM_Z - 26:
            drop = (HILUM_Z + 10 - z) * 0.9
            for side in (-1, 1):
                end = (side * (8 + drop), 4 + 0.25 * drop)
                tube = capsule((side * max(3.0, drop - 14), 4), end, 7.2)
                canvas.paint(tube.grow(1.6), 45)
                canvas.paint(tube, AIR_HU + 5)

    def _vessel(
        self, canvas: Canvas, place: tuple[float, float], r: float, share: float = 1.0
    ) -> None:
        """Paint a vessel cut across, its wall and its blood."""
        canvas.paint(ellipse(*place, r + 0.8, r + 0.8), 40)
        canvas.paint(ellipse(*place, r, r), 42 + share * self.build.contrast, grain=5)

    def _heart(self, canvas: Canvas, z: float) -> None:
        """Paint the heart: muscle, four chambers and the fat around it."""
        s, blood = self.heart, self.build.blood
        muscle = 45 + 0.45 * self.build.contrast
        whole = ellipsoid(z, (20 * s, -24, HEART_Z), (62 * s, 42 * s, 58 * s), -self.tilt)
        atrium = ellipsoid(z, (-24, -14, HEART_Z + 8), (28 * s, 34 * s, 52))
        canvas.paint(atrium, 0.9 * blood + 4, grain=5)
        canvas.paint(whole, muscle, grain=6, blotch=4)
        chambers: list[tuple[Shape, float]] = [
            (ellipsoid(z, (40 * s, -22, HEART_Z - 6), (32 * s, 19 * s, 44), -self.tilt), blood),
            (
                ellipsoid(z, (4 * s, -46, HEART_Z - 4), (40 * s, 16 * s, 44), -self.tilt),
                0.9 * blood,
            ),
            (ellipsoid(z, (6, 6, HEART_Z + 22), (34 * s, 18 * s, 34)), blood),
        ]
        for chamber, hu in chambers:
            canvas.paint(chamber, hu + 3, grain=5)
        if abs(z - HEART_Z) < 40:
            for x, y in ((-12 * s, -56 * s), (-4 * s, 10.0), (58 * s, -46 * s)):
                canvas.paint(ellipse(x, y, 8, 3.0, -self.tilt), FAT_HU + 40)
                canvas.paint(ellipse(x, y, 1.6, 1.6), blood)

    def _below(self, canvas: Canvas, z: float, cage: Shape) -> None:
        """Paint the liver's dome, the stomach's bubble and the spleen below the diaphragm."""
        inside = canvas.cover(cage.grow(-5))
        liver = ellipsoid(z, (-72, -8, -28), (80, 80, 76))
        canvas.paint(liver, 58 + self.build.organ, grain=7, blotch=3, mask=inside)
        lobe = ellipsoid(z, (-6, -34, -18), (62, 40, 56))
        canvas.paint(lobe, 58 + self.build.organ, grain=7, blotch=3, mask=inside)
        dome = ellipsoid(z, (76, -12, -36), (70, 74, 72))
        canvas.paint(dome, FAT_HU + 15, grain=6, mask=inside)
        spleen = ellipsoid(z, (92, 30, -30), (34, 46, 62), 0.3)
        canvas.paint(spleen, 50 + 1.2 * self.build.organ, grain=6, mask=inside)
        stomach = ellipsoid(z, (58, -26, -30), (42, 38, 58))
        canvas.paint(stomach, 42, grain=6, mask=inside)
        filling(canvas, stomach.grow(-4), -24, 18, inside)

    def _sternum(self, canvas: Canvas, z: float, y: float) -> None:
        """Paint the breastbone between the costal cartilages."""
        up = z / self.length_mm
        if up < 0.22:
            return
        broad = 17 + 12 * max(0.0, up - 0.75) / 0.25
        plate = ellipse(0, y - 4, broad, 6.5)
        canvas.bone(plate, 1.4, self.build.marrow - 30, 0.75 * self.build.cortex)

    def _nodules(self, canvas: Canvas, z: float, lungs: np.ndarray) -> None:
        """Paint the nodules of the lungs."""
        for x, y, height, r in self.nodules:
            if r:
                spot = ellipsoid(z, (x, y, height), (r, 0.85 * r, r), pi / 5)
                canvas.paint(spot, 35 + 0.3 * self.build.organ, grain=8, mask=lungs)
