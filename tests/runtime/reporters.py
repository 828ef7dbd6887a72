"""Reports whose reporter does on demand what reporters should not, in whatever process it is.

A file in a folder says what; ``once-`` in front of its name means that it is gone then.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np

from physfed_ray.data.description import Slice
from physfed_ray.data.scanning import image_hash
from physfed_ray.data.store import Scans, write_scans
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.reports.base import PartSettings, Reporter, TextEncoder
from physfed_ray.reports.describer import Describer

SECRET = "a nodule of 8 mm in the left upper lobe"
HOURS_S = 7200


class Sums(Reporter):
    """Reports the sum of a slice, after it has done what the folder says.

    Args:
        folder: Where the demands are, and where it notes the size of each batch.
    """

    name = "sums"
    uses_gpu = True  # so that no process of the caller's own describes

    def __init__(self, folder: Path) -> None:
        super().__init__(PartSettings())
        self._folder = folder

    @property
    def version(self) -> str:
        """See ``Reporter``."""
        return "1"

    def report(self, hu: np.ndarray) -> list[str]:
        """See ``Reporter``."""
        if self._asked("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._asked("hang"):
            time.sleep(HOURS_S)
        if self._asked("quote"):
            raise ValueError(SECRET)
        if self._asked("complain"):
            raise PhysFedError("there is no model here; copy it.")
        if self._asked("dawdle"):
            time.sleep(0.3)
        (self._folder / f"batch-{len(hu)}-{uuid4().hex}").touch()
        return [f"{SECRET}: {image.sum():.0f}" for image in hu]

    def _asked(self, what: str) -> bool:
        if (self._folder / what).exists():
            return True
        try:
            (self._folder / f"once-{what}").unlink()
        except FileNotFoundError:
            return False
        return True


class Lengths(TextEncoder):
    """Two vectors of a text's length and its last character."""

    name = "lengths"
    tokens = 2
    dim = 3

    @property
    def version(self) -> str:
        """See ``TextEncoder``."""
        return "1"

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See ``TextEncoder``."""
        vectors = [[[len(t), ord(t[-1]), 1.0], [0.5, 0.0, 0.0]] for t in texts]
        return np.array(vectors, np.float32), np.ones((len(texts), 2), np.uint8)


class OddReports(Reports):
    """Reports by ``Sums`` and ``Lengths``."""

    folder: Path

    def make(self) -> Describer:
        """See ``Reports``."""
        return Describer(Sums(self.folder), Lengths(PartSettings()))

    def batches(self) -> list[int]:
        """Return the sizes of the batches so far."""
        return [int(path.name.split("-")[1]) for path in self.folder.glob("batch-*")]


def random_slices(path: Path, count: int, size: int = 16, seed: int = 0) -> list[Slice]:
    """Write random scans and return their slices."""
    hu = np.random.default_rng(seed).integers(-1000, 1500, (count, size, size)).astype(np.int16)
    blank = np.zeros(hu.shape, np.float32)
    images = [image_hash(image) for image in hu]
    scans = Scans(
        low=blank,
        full=blank,
        body=blank.astype(np.uint8),
        hu=hu,
        patient=["p"] * count,
        slice=np.arange(count, dtype=np.int32),
        scale=np.ones(count, np.float32),
        image=images,
    )
    write_scans(path, scans)
    return [Slice(image, path, row) for row, image in enumerate(images)]
