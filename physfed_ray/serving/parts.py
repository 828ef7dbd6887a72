"""Series cut into batches, each of which is denoised and written whole or again."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from physfed_ray.data.dicom.derived import Model, derive, read_source, write_derived
from physfed_ray.data.dicom.files import decoding, quiet_pydicom, stored_words
from physfed_ray.data.dicom.headers import SliceHeader
from physfed_ray.data.dicom.hounsfield import to_hu
from physfed_ray.data.dicom.pixel_format import read_format
from physfed_ray.data.dicom.reasons import LeftOut
from physfed_ray.data.dicom.whole_series import WholeSeries
from physfed_ray.errors import PhysFedError
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.own_grid import Rule
from physfed_ray.serving.wanted import Wanted, model_of

OTHER_SIZE = "pixels of another size than the header says"


@dataclass(frozen=True)
class Part:
    """Slices of one matrix and one pixel length that follow each other in a series.

    Attributes:
        series: Name of the series.
        first: Place of the first slice in it, from 1.
        slices: The slices.
    """

    series: str
    first: int
    slices: tuple[SliceHeader, ...]

    def paths(self, out: Path) -> list[Path]:
        """Return where each slice is written."""
        return [place_of(out, self.series, self.first + i) for i in range(len(self.slices))]


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        slices: How many it has.
        made: How many were written now.
        there: How many were there before.
        left_out: Slices that could not be read, by reason.
        notes: Slices that were, by what was done to them.
    """

    slices: int
    made: int = 0
    there: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


RunParts = Callable[[Wanted, str, Path, Sequence[Part]], Iterator[Outcome]]
"""Makes parts, in any order: of what is wanted, the model's hash, the folder, the parts."""


def place_of(out: Path, series: str, place: int) -> Path:
    """Return the file of a slice; names sort as the slices do."""
    return out / series / f"{place:05d}.dcm"


def cut(series: WholeSeries, batch: int) -> Iterator[Part]:
    """Cut a series into batches; where they are cut does not depend on what is there already."""
    first = 1
    for _, group in groupby(series.slices, key=lambda h: (h.stack[7:8], h.spacing_mm)):
        alike = tuple(group)
        for start in range(0, len(alike), batch):
            yield Part(series.name, first + start, alike[start : start + batch])
        first += len(alike)


@dataclass(frozen=True)
class _Image:
    """A slice as it was read: its place in the part, its data set, (h, w) HU."""

    place: int
    source: Dataset
    hu: np.ndarray


class PartMaker:
    """Denoises parts and writes them.

    Args:
        denoiser: The network.
        model: What the files say of it.
        rule: On which grid it sees the series.
        out: The folder.
    """

    def __init__(self, denoiser: Denoiser, model: Model, rule: Rule, out: Path) -> None:
        self._denoiser, self._model, self._rule, self._out = denoiser, model, rule, out

    def __call__(self, part: Part) -> Outcome:
        """Make what is missing of a part.

        Raises:
            PhysFedError: The disk is full, or the network makes no numbers.
        """
        paths = part.paths(self._out)
        missing = [not path.is_file() for path in paths]
        outcome = Outcome(len(paths), there=missing.count(False))
        if not any(missing):
            return outcome
        images = [found for i, header in enumerate(part.slices)
                  if (found := self._read(i, header, outcome)) is not None]  # fmt: skip
        if not images:
            return outcome
        hu = np.stack([image.hu for image in images])
        spacing_mm = part.slices[0].spacing_mm
        denoised = self._denoiser(hu, spacing_mm, rule=self._rule, batch=len(hu))
        wanted = [(image, result) for image, result in zip(images, denoised, strict=True)
                  if missing[image.place]]  # fmt: skip
        for image, result in wanted:
            frame = part.slices[image.place].frame_index
            derived = derive(image.source, result, self._model, frame=frame)
            self._write(derived, paths[image.place])
        return replace(outcome, made=len(wanted))

    def _read(self, place: int, header: SliceHeader, outcome: Outcome) -> "_Image | None":
        """Read a slice; where it cannot be used, why is counted."""
        try:
            source = read_source(header.path, header.frame_index)
            with quiet_pydicom(), decoding():
                hu, notes = to_hu(stored_words(source), read_format(source))
            if hu.shape != (source.Rows, source.Columns):
                raise LeftOut(OTHER_SIZE)
        except LeftOut as reason:
            outcome.left_out[str(reason)] += 1
            return None
        outcome.notes.update(notes)
        return _Image(place, source, hu)

    def _write(self, image: Dataset, path: Path) -> None:
        try:
            write_derived(image, path)
        except OSError as error:
            raise PhysFedError(
                f"{path.parent} cannot be written to ({error.strerror or error}): make room there "
                "and give the same command again, which goes on"
            ) from error


def part_maker(wanted: Wanted, expected: str, out: Path) -> PartMaker:
    """Load the model and return what makes parts with it.

    Args:
        wanted: The model.
        expected: Its hash.
        out: The folder.

    Raises:
        PhysFedError: It has become another one, because the run goes on.
    """
    run, denoiser = wanted.load()
    if denoiser.model_hash != expected:
        raise PhysFedError(
            f"the model in {wanted.run} is no longer the one that this began with: let the run "
            "end, and choose another OUT"
        )
    return PartMaker(denoiser, model_of(run, denoiser, wanted.rule), wanted.rule, out)


def here(wanted: Wanted, expected: str, out: Path, parts: Sequence[Part]) -> Iterator[Outcome]:
    """Make parts in this process, one after the other."""
    maker = part_maker(wanted, expected, out)
    for part in parts:
        yield maker(part)
