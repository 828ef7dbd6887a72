"""Necks and shoulders for training, which ``PhantomSource`` does not have."""

import numpy as np

from physfed_ray.data.anatomy.canvas import (
    AIR_HU,
    FAT_HU,
    MUSCLE_HU,
    SKIN_HU,
    Canvas,
    Space,
)
from physfed_ray.data.anatomy.shapes import capsule, ellipse, path
from physfed_ray.data.anatomy.trunk import SKIN_MM, Build, spine


class Neck:
    """A neck, from above the shoulders (z = 0) to the teeth."""

    length_mm = 120.0

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the patient."""
        self.build = build = Build.draw(rng)
        self.noise_hu = build.noise_hu
        self.a = rng.uniform(52, 68) * build.scale + 0.3 * build.fat_mm
        self.b = rng.uniform(54, 66) * build.scale + 0.3 * build.fat_mm
        self.field_mm = float(rng.uniform(240, 340))
        self.space = Space.draw(rng, self.field_mm, self.length_mm, 2.2)
        self.airway = rng.uniform(7, 11)
        self.cartilage = rng.random() < 0.6
        self.jaw = rng.uniform(62, 80)
        self.fillings = rng.random() < 0.3

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        build, k = self.build, self.build.scale
        mouth = max(0.0, z - self.jaw)
        flare = 0.6 * max(0.0, 25 - z)
        a, b = self.a + flare + 0.25 * mouth, self.b
        skin = ellipse(0, 0, a, b)
        if mouth:
            skin = skin | ellipse(0, -b + 10, 0.78 * a, 42 + 0.4 * mouth)
        canvas.paint(skin, SKIN_HU + 20)
        canvas.paint(skin.grow(-SKIN_MM), FAT_HU, grain=6, blotch=4)
        bulk = skin.grow(-0.25 * build.fat_mm - 3)
        canvas.paint(bulk, MUSCLE_HU, grain=6, blotch=4)
        canvas.septa(bulk, FAT_HU + 15, 0.22, 0.85)
        back = 0.12 * b
        spine(canvas, build, z, back, 0.62)
        air = ellipse(0, back - 34 * k, self.airway, self.airway * (1.0 + 0.3 * (z < 40)))
        if mouth:
            air = ellipse(0, back - 30 * k, 1.6 * self.airway, 0.6 * self.airway)
        for side in (-1, 1):
            x, y = side * 27 * k, back - 22 * k
            canvas.paint(ellipse(x, y, 4, 4), build.blood)
            canvas.paint(ellipse(x + side * 9, y + 3, 7, 5), 0.9 * build.blood)
            canvas.paint(capsule((x + side * 6, y - 16), (x + side * 20, y + 6), 6), MUSCLE_HU + 6)
            if 12 < z < 35:
                lobe = ellipse(side * (self.airway + 8), back - 32 * k, 7, 11)
                canvas.paint(lobe, 105 + 0.6 * build.contrast, grain=6)
        if self.cartilage and 35 < z < self.jaw - 8:
            for side in (-1, 1):
                plate = capsule((0, back - 54 * k), (side * 20, back - 30 * k), 1.8)
                canvas.bone(plate, 0.8, 180, 420)
        canvas.paint(air.grow(2), 50)
        canvas.paint(air, AIR_HU)
        if mouth:
            self._jaw(canvas, a, b, mouth)

    def _jaw(self, canvas: Canvas, a: float, b: float, mouth: float) -> None:
        front, width = -b - 20 - 0.3 * mouth, 0.62 * a
        bend = (0.8 * width, front + 34)
        points = [(-width, 0.0), (-bend[0], bend[1]), (0.0, front), bend, (width, 0.0)]
        arch = path(points, [5.0, 6.0, 6.5, 6.0, 5.0])
        canvas.bone(arch, 2.2, self.build.marrow + 150, self.build.cortex)
        if mouth > 12:
            for turn in np.linspace(-1, 1, 10):
                x = 0.7 * width * turn
                y = front + 6 + 28 * turn * turn
                tooth = 2900.0 if self.fillings and abs(turn) > 0.6 else 1900.0
                canvas.paint(ellipse(x, y, 3.6, 4.2), tooth)


class Shoulders:
    """Lower neck and shoulders above the lungs, arms at the sides or up."""

    length_mm = 60.0

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the patient."""
        self.build = build = Build.draw(rng)
        self.noise_hu = build.noise_hu
        self.a = rng.uniform(185, 225) * build.scale + 0.5 * build.fat_mm
        self.b = rng.uniform(68, 92) * build.scale + 0.4 * build.fat_mm
        self.field_mm = 2 * (1.05 * self.a + 14)
        self.space = Space.draw(rng, self.field_mm, self.length_mm)
        self.lean = rng.uniform(-12, 12)
        self.apex = rng.uniform(0, 20)

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        build, k = self.build, self.build.scale
        a, b = self.a * (1 - z / 400), self.b * (1 - z / 300)
        waist = ellipse(0, 0, 0.62 * a, b) | ellipse(-0.55 * a, 6, 0.45 * a, 0.72 * b)
        skin = waist | ellipse(0.55 * a, 6, 0.45 * a, 0.72 * b)
        canvas.paint(skin, SKIN_HU + 20)
        canvas.paint(skin.grow(-SKIN_MM), FAT_HU, grain=6, blotch=4)
        bulk = skin.grow(-0.4 * build.fat_mm - 3)
        canvas.paint(bulk, MUSCLE_HU, grain=6, blotch=4)
        canvas.septa(bulk, FAT_HU + 15, 0.2, 0.8)
        back = 0.1 * b
        spine(canvas, build, z, back, 0.75)
        for side in (-1, 1):
            tilt = side * self.lean * (1 - z / 80)
            x = side * 0.76 * a
            canvas.bone(ellipse(x, 2 + tilt, 23 * k, 24 * k), 3, build.marrow + 60, build.cortex)
            scapula = capsule((x - side * 28, 14 + tilt), (side * 0.42 * a, 0.62 * b), 6 * k, 3 * k)
            canvas.bone(scapula, 2, build.marrow + 80, build.cortex)
            if z < 40:
                inner, outer = (side * 0.12 * a, -0.66 * b), (side * 0.5 * a, -0.2 * b + tilt)
                canvas.bone(capsule(inner, outer, 7 * k), 2.2, build.marrow + 80, build.cortex)
            canvas.paint(ellipse(side * 30, back - 20 * k, 6, 6), build.blood)
            if z < self.apex:
                tip = ellipse(side * 44 * k, back + 4, 24 * (1 - z / 30), 18 * (1 - z / 30))
                canvas.paint(tip, -820, grain=18)
        airway = ellipse(0, back - 34 * k, 9, 10)
        canvas.paint(airway.grow(2), 50)
        canvas.paint(airway, AIR_HU)
