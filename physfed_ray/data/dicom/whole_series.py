"""Every series of a folder that can be denoised, with all its slices in order.

The source of training data (``source``) leaves out what a patient has twice, and slices of whom it
is not clear whose they are. Who denoises wants all of it back: each reconstruction of a scan, each
phase, the shortest series. So series stay apart here and whole, and only a second file of one and
the same image is left out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from physfed_ray.data.dicom.duplicates import without_copies
from physfed_ray.data.dicom.files import INDEX, quiet_pydicom
from physfed_ray.data.dicom.headers import LeftOutFrame, SliceHeader, read_headers
from physfed_ray.data.dicom.listing import folder_of, list_folder, missing_from_index
from physfed_ray.data.dicom.reasons import DERIVED, LeftOut
from physfed_ray.data.dicom.series import OTHER_IMAGE, by_content, when
from physfed_ray.data.dicom.source import THREADS
from physfed_ray.data.dicom.stacks import place, stacks
from physfed_ray.data.left_out import left_out_words
from physfed_ray.errors import PhysFedError

_NAME_BYTES = 5
_ORDER_BYTES = 16


@dataclass(frozen=True)
class WholeSeries:
    """A series as it lies on the disk.

    Attributes:
        name: A name for files, which tells nobody's: ``series-002-1a2b3c4d5e``.
        slices: Stack by stack, each along the body; slices without a place come last.
    """

    name: str
    slices: tuple[SliceHeader, ...]

    @property
    def digest(self) -> str:
        """Hex digits that stand for which images these are, in which order."""
        digest = blake2b(digest_size=_ORDER_BYTES)
        for header in self.slices:
            size = header.path.stat().st_size
            digest.update(f"{header.instance_uid} {header.frame_index} {size}\n".encode())
        return digest.hexdigest()

    @property
    def in_frames(self) -> bool:
        """Whether a file holds several of its slices, or may."""
        return any(header.frame_index is not None for header in self.slices)


@dataclass(frozen=True)
class Found:
    """What lies under a folder.

    Attributes:
        series: What can be denoised, by date, study and number.
        files: How many files there are.
        left_out: Images that cannot be, by reason.
        notes: Images that can, by what is to be said of them.
        missing: Files that a DICOMDIR lists in vain.
    """

    series: tuple[WholeSeries, ...]
    files: int
    left_out: Mapping[str, int]
    notes: Mapping[str, int]
    missing: int = 0

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return sum(len(series.slices) for series in self.series)


def find_series(root: Path, *, derived: bool = False) -> Found:
    """Read every header under a folder, or of one file.

    Args:
        root: A folder, a DICOMDIR in one, or a file.
        derived: Let in what was computed from other images.

    Raises:
        PhysFedError: It does not exist, or holds no series that can be denoised.
    """
    if not root.exists():
        raise PhysFedError(f"{root} does not exist: give a folder, a DICOMDIR or a file of CT")
    listing = list_folder(folder_of(root))
    left_out: dict[str, int] = defaultdict(int)
    for reason, paths in listing.skipped.items():
        left_out[reason] += len(paths)
    with quiet_pydicom():
        headers, missing = _read(listing.files, derived, left_out)
        series = _series(headers, left_out)
    notes: dict[str, int] = defaultdict(int)
    for header in headers:
        for note in header.notes:
            notes[note] += 1
    found = Found(series, len(listing.files), _sorted(left_out), _sorted(notes), missing)
    if not series:
        raise _nothing(root, found)
    return found


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _nothing(root: Path, found: Found) -> PhysFedError:
    words = left_out_words({"left_out": found.left_out, "missing_from_dicomdir": found.missing})
    advice = "add --derived to denoise what was computed from other images, or " * (
        DERIVED in found.left_out
    )
    return PhysFedError(
        f"no axial CT slice in {root} can be denoised ({found.files} files, left out: "
        f"{words or 'none'}): {advice}give others"
    )


def _read(
    files: Sequence[Path], derived: bool, left_out: dict[str, int]
) -> tuple[list[SliceHeader], int]:
    """Read headers, count what is left out, and what an index lists in vain."""

    def read(number: int, path: Path) -> list[SliceHeader | LeftOutFrame] | LeftOut:
        try:
            return read_headers(path, number, lossy=True, derived=derived)
        except LeftOut as reason:
            return reason

    headers: list[SliceHeader] = []
    missing = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for path, result in zip(
            files, pool.map(read, range(1, len(files) + 1), files), strict=True
        ):
            if isinstance(result, LeftOut):
                left_out[str(result)] += 1
                if str(result) == INDEX:
                    missing += missing_from_index(path, files)
                continue
            for entry in result:
                if isinstance(entry, SliceHeader):
                    headers.append(entry)
                else:
                    left_out[entry.reason] += 1
    return headers, missing


def _series(headers: Sequence[SliceHeader], left_out: dict[str, int]) -> tuple[WholeSeries, ...]:
    groups: dict[tuple[str, str, str], list[SliceHeader]] = defaultdict(list)
    for header in sorted(headers, key=by_content):
        groups[header.patient, header.study, header.series].append(header)
    ordered = []
    for key, group in groups.items():
        images, copies = without_copies(group)
        for reason, dropped in copies.items():
            left_out[reason] += len(dropped)
        images = _one_image_per_uid(images, left_out)
        ordered.append((key, _in_order(images)))
    ordered.sort(key=lambda pair: (when(pair[1]), pair[0]))
    return tuple(WholeSeries(_name(key, slices), slices) for key, slices in ordered)


def _one_image_per_uid(
    images: Sequence[SliceHeader], left_out: dict[str, int]
) -> list[SliceHeader]:
    """Keep one of several images that claim to be one: what is derived of them would claim so too.

    Frames of a file share its UID, and are told apart by their numbers.
    """
    first: dict[tuple[str, int | None], SliceHeader] = {}
    kept = []
    for header in images:
        place = header.instance_uid, header.frame_index
        if header.instance_uid and first.setdefault(place, header) is not header:
            left_out[OTHER_IMAGE] += 1
        else:
            kept.append(header)
    return kept


def _in_order(images: Sequence[SliceHeader]) -> tuple[SliceHeader, ...]:
    """Order slices stack by stack, the stacks as they were taken; none is dropped."""
    _, positioned, lost = place(images)
    parts = stacks(positioned)
    for part in parts:
        part.sort(key=lambda h: (round(h.position_mm, 2), h.order, h.time, h.number))
    parts.sort(key=lambda part: (min(h.order for h in part), part[0].position_mm))
    return tuple(header for part in (*parts, lost) for header in part)


def _name(key: tuple[str, str, str], slices: Sequence[SliceHeader]) -> str:
    told = blake2b("\0".join(key).encode("utf-8", "replace"), digest_size=_NAME_BYTES).hexdigest()
    return f"series-{max(0, slices[0].series_number):03d}-{told}"
