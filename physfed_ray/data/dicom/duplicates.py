"""One image stored twice: found by its UID, and believed only if the images agree."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from physfed_ray.data.dicom.frames import read_image
from physfed_ray.data.dicom.headers import SliceHeader
from physfed_ray.data.dicom.reasons import LeftOut

DUPLICATE = "duplicate slice"
OTHER_PATIENTS_IMAGE = "image of another patient too"


def without_copies(
    headers: Iterable[SliceHeader],
) -> tuple[list[SliceHeader], dict[str, list[SliceHeader]]]:
    """Keep one of the files that hold one image; other images under the same UID stay.

    A copy has the UID, the series, the position and the pixels of another file. One that is filed
    under another patient is left out as well, under a reason of its own: the same body could
    otherwise be trained on and tested with.

    Args:
        headers: In the order in which the first is to be kept.
    """
    places: dict[tuple[object, ...], list[SliceHeader]] = defaultdict(list)
    for rank, header in enumerate(headers):
        place = (header.instance_uid, header.study, header.series, f"{header.position_mm:.2f}")
        places[place if header.instance_uid else (rank,)].append(header)
    kept: list[SliceHeader] = []
    left_out: dict[str, list[SliceHeader]] = defaultdict(list)
    for same_place in places.values():
        if len({header.path for header in same_place}) == 1:
            kept += same_place  # One file, or frames of one.
            continue
        first: dict[str, SliceHeader] = {}
        digests = image_digests(same_place)
        by_patient = sorted(
            zip(digests, same_place, strict=True), key=lambda p: (p[1].patient, p[0])
        )
        for digest, header in by_patient:
            other = first.setdefault(digest, header)
            if other.path == header.path:
                kept.append(header)
            else:
                same = other.patient == header.patient
                left_out[DUPLICATE if same else OTHER_PATIENTS_IMAGE].append(header)
    return kept, left_out


def image_digests(headers: Sequence[SliceHeader]) -> list[str]:
    """Return what is equal for equal images: of the files' bytes, or of their HU if they differ.

    Images that cannot be read are equal to none.
    """
    whole = [_written_digest(header) for header in headers]
    if len(set(whole)) == 1:
        return whole
    return [_hu_digest(header) or written for header, written in zip(headers, whole, strict=True)]


def _written_digest(header: SliceHeader) -> str:
    try:
        state = header.path.stat()
        digest = _file_digest(header.path, state.st_size, state.st_mtime_ns)
    except OSError:
        digest = f"unreadable {header.path}"
    return digest if header.frame_index is None else f"{digest} {header.frame_index}"


@lru_cache(maxsize=64)
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    """Hash a file; kept for the next frames of it."""
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _hu_digest(header: SliceHeader) -> str | None:
    try:
        hu, _ = read_image(header.path, header.frame_index)
    except (LeftOut, OSError):
        return None
    return blake2b(repr(hu.shape).encode() + hu.tobytes(), digest_size=16).hexdigest()
