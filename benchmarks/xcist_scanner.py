"""XCIST (``gecatsim``) as a scanner of a protocol, for ``xcist.py``."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ellipses import Ellipse
from numpy.typing import NDArray

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS, FLOOR_COUNTS
from physfed_ray.ct.protocol import PRESETS

PROTOCOL = PRESETS["paper-3"]
BONE = "ICRU_skeleton_cortical_bone_adult"
SHAPES = (
    ("water", Ellipse(1, 100, 100)),
    (BONE, Ellipse(1, 15, 15, 45, 25)),
    ("air", Ellipse(1, 15, 15, -40, -35)),
)
"""Materials of the object, each of which replaces the ones before it; mm."""


@dataclass(frozen=True)
class Physics:
    """What one run of XCIST models.

    Attributes:
        kev: Energy of a single line, or none for a spectrum of 120 kVp.
        rows: Rows of the detector; the middle one is read.
        images: Whether whole scans are made, too.
        extra: XCIST's own settings, by section and name.
    """

    kev: float | None = None
    rows: int = 1
    images: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class Xcist:
    """XCIST as a scanner of this geometry: line integrals out, (views, bins)."""

    def __init__(self, physics: Physics, folder: Path, seed: int) -> None:
        """Configure it and find the tube current.

        Args:
            physics: What it models.
            folder: Where it writes.
            seed: Seeds its Poisson and its normal numbers.
        """
        import gecatsim

        self._raw, self._rows = gecatsim.rawread, physics.rows
        self._ct = ct = gecatsim.CatSim()
        phantom = folder / "phantom.ppm"
        phantom.write_text(phantom_text())
        p = PROTOCOL
        settings = {
            "phantom.callback": "Phantom_Analytic",
            "phantom.projectorCallback": "C_Projector_Analytic",
            "phantom.projectorNumThreads": 1,
            "phantom.filename": str(phantom),
            "scanner.detectorCallback": "Detector_ThirdgenCurved",  # flat: one module
            "scanner.sid": p.source_mm,
            "scanner.sdd": p.source_mm + p.detector_mm,
            "scanner.detectorColsPerMod": p.bins,
            "scanner.detectorColCount": p.bins,
            "scanner.detectorRowsPerMod": physics.rows,
            "scanner.detectorRowCount": physics.rows,
            "scanner.detectorColOffset": 0.0,
            "scanner.detectorColSize": p.bin_mm,
            "scanner.detectorRowSize": p.bin_mm,
            "scanner.detectorColFillFraction": 1.0,
            "scanner.detectorRowFillFraction": 1.0,
            "scanner.detectorPrefilter": [],
            "physics.monochromatic": physics.kev or -1,
            "physics.energyCount": 1 if physics.kev else 40,
            "protocol.spectrumFilename": "tungsten_tar10.0_120_filt.dat",
            "protocol.flatFilter": [] if physics.kev else ["Al", 3.0],
            "protocol.bowtie": [],
            "protocol.viewsPerRotation": p.views,
            "protocol.rotationTime": 1.0,
            "protocol.mA": 1.0,
        }
        for name in ("colSample", "rowSample", "srcXSample", "srcYSample", "viewSample"):
            settings[f"physics.{name}Count"] = 1
        for name, value in (settings | physics.extra).items():
            section, key = name.split(".")
            setattr(getattr(ct, section), key, value)
        ct.resultsName = str(folder / "scan")
        ct.get_current_cfg().clib.setall(seed + 1, seed + 2)
        np.random.seed(seed)
        self._set_current()

    def _set_current(self) -> None:
        """Let the middle bin of air detect the protocol's photons."""
        with silent():
            cfg = self._ct.air_scan()
        detected = (cfg.detFlux * cfg.sim.Wvec).reshape(PROTOCOL.bins, self._rows, -1)
        detected = detected[:, self._rows // 2]
        energies = np.atleast_1d(cfg.sim.Evec)
        self._ct.protocol.mA = PROTOCOL.photons / float(detected[PROTOCOL.bins // 2].sum())
        middle = detected[PROTOCOL.bins // 2]
        self.mean_kev = float(middle @ energies / middle.sum())
        self.swank = float((middle @ energies) ** 2 / (middle @ energies**2 * middle.sum()))
        self.mas_per_view = self._ct.protocol.mA / PROTOCOL.views
        self._ct.scanner.detectionGain = 1 / self.mean_kev
        self._ct.scanner.eNoise = ELECTRONIC_NOISE_COUNTS
        with silent():
            self._ct.air_scan()
        self.air = self._read("air", 1)[0]

    def standing(self, view: int, repeats: int, *, noisy: bool) -> NDArray[np.float64]:
        """Measure one view many times, (repeats, bins), in photons."""
        return self._measure(view * 360 / PROTOCOL.views, 0, repeats, noisy)

    def turning(self, *, noisy: bool) -> NDArray[np.float64]:
        """Measure all views once, (views, bins), in photons."""
        return self._measure(0.0, 1, PROTOCOL.views, noisy)

    def logarithm(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return line integrals, floored as ours are."""
        return -np.log(np.maximum(counts, FLOOR_COUNTS) / self.air)

    def _measure(
        self, degrees: float, direction: int, views: int, noisy: bool
    ) -> NDArray[np.float64]:
        ct = self._ct
        ct.protocol.startAngle = degrees + 180  # its source starts at the top, ours at the bottom
        ct.protocol.rotationDirection = direction
        ct.protocol.viewCount, ct.protocol.stopViewId = views, views - 1
        ct.physics.enableQuantumNoise = ct.physics.enableElectronicNoise = int(noisy)
        with silent():
            ct.phantom_scan()
        return self._read("scan", views)

    def _read(self, kind: str, views: int) -> NDArray[np.float64]:
        shape = [views, self._rows, PROTOCOL.bins]
        found = self._raw(f"{self._ct.resultsName}.{kind}", shape, "float")
        return found[:, self._rows // 2, ::-1].astype(np.float64)  # its bins run the other way


def phantom_text() -> str:
    """Return the object in XCIST's language, long along the axis."""
    lines = ["materialList = {" + " ".join(f"'{material}'" for material, _ in SHAPES) + " };"]
    for index, (_, shape) in enumerate(SHAPES, 1):
        lines += [
            f"object.center({index},:) = [{shape.x:.6f} {shape.y:.6f} 0.000000];",
            f"object.half_axes({index},:) = [{shape.a:.6f} {shape.b:.6f} 500.000000];",
            f"object.euler_angs({index},:) = [0.000000 0.000000 0.000000];",
            f"object.density({index}) = 1.000000;",
            f"object.type({index}) = 2;",
            f"object.material({index}) = {index};",
            f"object.axial_lims({index},:) = [0 0];",
            f"object.shape({index}) = 0;",
            f"object.clip{{{index}}} = [];",
            "",
        ]
    return "\n".join(lines)


def mu_per_mm(material: str, kev: float) -> float:
    """Return XCIST's attenuation at one energy."""
    from gecatsim.pyfiles.GetMu import GetMu

    return float(GetMu(material, np.array([kev], np.float32))[0]) / 10


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Drop what XCIST prints, in Python and in C."""
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(null, stream)
        yield
        sys.stdout.flush()
    finally:
        for stream, old in zip((1, 2), kept, strict=True):
            os.dup2(old, stream)
            os.close(old)
        os.close(null)
