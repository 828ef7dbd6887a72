"""The pictures of docs/physics.md, of a phantom patient.

    python benchmarks/physics_pictures.py docs/images

Writes physics_scan.png, physics_kernel.png and physics_object.png, and prints the numbers that
stand in them as one line of JSON.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.grid import GridSlice, place
from physfed_ray.data.phantom import PhantomSource

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SIZE = 128
Image = NDArray[np.float32]


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    plt.rcParams.update({"font.size": 8, "figure.dpi": 160, "savefig.bbox": "tight"})
    print(
        json.dumps(
            {
                "benchmark": "physics_pictures",
                "scan": draw_scan(folder / "physics_scan.png", PRESETS["paper-4"]),
                "kernel": draw_kernel(folder / "physics_kernel.png", PRESETS["paper-3"]),
                "object": draw_object(folder / "physics_object.png", PRESETS["paper-2"]),
            }
        )
    )


def phantom(object_scale: int) -> GridSlice:
    """Return a slice through the chest of a phantom patient, drawn at 512 x 512."""
    source = PhantomSource(1, 8, seed=1, size=512)
    volume = source.load("phantom-00", None)
    return place(volume.slices[4], volume.spacings_mm[4], SIZE, "body").resample(object_scale)


def draw_scan(file: Path, protocol: Protocol) -> dict[str, float]:
    """Draw what a scan is made of, from the object to the input and the label."""
    simulation, grid = Simulation(SIZE, 4), phantom(4)
    expected = expect(grid.object[None], protocol, simulation)
    measured = measure(expected, protocol, [np.random.default_rng(0)], simulation)
    low = reconstruct(measured, protocol, simulation)[0]
    figure, axes = plt.subplots(1, 6, figsize=(12, 2.4))
    show(axes[0], grid.object, "object, 512 x 512", "HU")
    plain(axes[1], expected[0].T, "line integrals expected", "viridis")
    plain(axes[2], (measured - expected)[0].T, "noise of the line integrals", "gray")
    show(axes[3], low, "image (input), 128 x 128", "HU")
    show(axes[4], grid.image, "label: area mean", "HU")
    show(axes[5], low - grid.image, f"input minus label, {psnr(low, grid.image):.1f} dB", "error")
    save(figure, file)
    return {"input_psnr": psnr(low, grid.image)}


def draw_kernel(file: Path, protocol: Protocol) -> dict[str, Any]:
    """Draw noise under the kernel of the 256 grid and under that of the grid in use."""
    grid, found = phantom(4), {}
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), width_ratios=(1, 1, 1, 1.4))
    show(axes[0], grid.image, "label, 128 x 128", "HU")
    for axis, pixels in zip(axes[1:], (0.425, 0.85), strict=False):
        simulation = Simulation(SIZE, 4, pixels)
        expected = expect(grid.object[None], protocol, simulation)
        rngs = [np.random.default_rng(k) for k in range(32)]
        noisy = reconstruct(measure(expected, protocol, rngs, simulation), protocol, simulation)
        noise = noisy - noisy.mean(axis=0)
        score = float(np.mean([psnr(low, grid.image) for low in noisy]))
        show(axis, noisy[0] - grid.image, f"kernel {pixels:g} pixel, {score:.1f} dB", "error")
        frequency, power = noise_power(noise)
        axes[3].plot(frequency, power, label=f"kernel {pixels:g} pixel")
        found[str(pixels)] = {"input_psnr": score, "power_at_nyquist": float(power[-1])}
    axes[3].set(xlabel="cycles per pixel", ylabel="noise power, HU² pixel²", xlim=(0, 0.5))
    axes[3].set_ylim(bottom=0)
    axes[3].legend(frameon=False)
    save(figure, file)
    return found


def noise_power(noise: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the radial noise power of the middle of images (K, n, n), up to half a cycle."""
    middle = noise[:, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    side = middle.shape[-1]
    window = np.hanning(side)[:, None] * np.hanning(side)
    spectrum = np.abs(np.fft.fft2(middle * window)) ** 2 / np.square(window).sum()
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    edges = np.linspace(0, 0.5, 17)
    rings = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    power = np.array([spectrum[:, ring].mean() for ring in rings])
    return (edges[:-1] + edges[1:]) / 2, power


def draw_object(file: Path, protocol: Protocol) -> dict[str, float]:
    """Draw the errors of noiseless scans of ever finer objects."""
    found = {}
    figure, axes = plt.subplots(1, 5, figsize=(12, 2.6))
    for axis, (scale, pixels) in zip(
        axes, ((1, 0.425), (1, 0.85), (2, 0.85), (4, 0.85), (8, 0.85)), strict=True
    ):
        simulation, grid = Simulation(SIZE, scale, pixels), phantom(scale)
        expected = expect(grid.object[None], protocol, simulation)
        low = reconstruct(expected, protocol, simulation)[0]
        score = found[f"{scale}, kernel {pixels:g}"] = psnr(low, grid.image)
        what = "the image's own pixels" if scale == 1 else f"object {scale} times as fine"
        show(axis, low - grid.image, f"{what},\nkernel {pixels:g}: {score:.1f} dB", "error")
    save(figure, file)
    return found


def show(axis: Axes, image: Image, title: str, kind: str) -> None:
    """Show an image in HU, or an error of at most 100 HU."""
    low, high = (-1000, 500) if kind == "HU" else (-100, 100)
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=8)


def plain(axis: Axes, values: Image, title: str, colours: str) -> None:
    """Show line integrals, views to the right and bins upwards."""
    axis.imshow(values, cmap=colours, aspect="auto", interpolation="nearest")
    axis.set(xticks=[], yticks=[], xlabel="views", ylabel="bins")
    axis.set_title(title, fontsize=8)


def psnr(image: Image, truth: Image) -> float:
    """Return the PSNR in a window of 3000 HU, dB."""
    error = np.clip(image, -1000, 2000) - truth
    return round(float(-10 * np.log10(np.mean(np.square(error / 3000, dtype=np.float64)))), 2)


def save(figure: Any, file: Path) -> None:
    """Write a figure."""
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()
