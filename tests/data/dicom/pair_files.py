"""Folders with CT at two doses, laid out as TCIA's and Mayo's are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

Layout = Literal["tcia", "mayo"]
Doses = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Full and low dose of each patient, (N, h, w) whole HU each."""

NAMES = {"full": ("Full dose images", "full", "FD"), "low": ("Low Dose Images", "quarter", "QD")}


def noisy_pairs(patients: int, slices: int = 3, side: int = 32, seed: int = 0) -> dict[str, Any]:
    """Return disks of water with structure, and the same with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    made = {}
    for patient in range(patients):
        disk = np.hypot(x, y) < side * (0.32 + 0.02 * (patient % 4))
        full = np.where(disk, 40 * np.sin(x / 3 + patient) + 60, -1000)
        full = np.rint(np.stack([full + disk * 10 * k for k in range(slices)]))
        low = full + np.rint(rng.normal(0, 25, full.shape)) * disk
        made[f"L{patient + 1:03d}"] = full, low
    return made


def write_pairs(
    root: Path,
    doses: Doses,
    write_ct: Callable[..., Path],
    layout: Layout = "tcia",
    spacing_mm: float = 1.0,
    **attributes: Any,
) -> Path:
    """Write all slices of all patients as files, 5 mm apart; keywords are those of ``write_ct``."""
    for patient, both in doses.items():
        for role, images in zip(("full", "low"), both, strict=True):
            description, word, letters = NAMES[role]
            for index, hu in enumerate(images):
                if layout == "tcia":
                    folder = (
                        f"{patient}/12-23-2021-NA-NA-62464/1.000000-{description}-68{index % 2}"
                    )
                    name = f"1-{index:03d}.dcm"
                else:
                    folder = f"{word}_1mm/{patient}/{word}_1mm"
                    name = f"{patient}_{letters}_1_1.CT.0001.{index:04d}.2015.12.22.IMA"
                given = {
                    "SeriesDescription": description if layout == "tcia" else "Abdomen",
                    "patient": patient if layout == "tcia" else f"{patient}_{letters}",
                    "PixelSpacing": [spacing_mm, spacing_mm],
                    "InstanceNumber": index + 1,
                    "ConvolutionKernel": "B30f",
                    "SliceThickness": 1,
                }
                write_ct(
                    root / folder / name,
                    hu.astype(np.float32),
                    series=role,
                    z_mm=5.0 * index,
                    **given | attributes,
                )
    return root
