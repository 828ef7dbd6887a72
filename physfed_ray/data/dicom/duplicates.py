"""One image stored twice: found by its UID, and believed only if the images agree."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from physfed_ray.data.dicom.files import read_hu
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
        digests = image_digests([header.path for header in same_place])
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


def image_digests(paths: Sequence[Path]) -> list[str]:
    """Return what is equal for equal images: of the files' bytes, or of their HU if they differ.

    Files that cannot be read are equal to none.
    """
    whole = [_file_digest(path) for path in paths]
    if len(set(whole)) == 1:
        return whole
    return [_hu_digest(path) or written for path, written in zip(paths, whole, strict=True)]


def _file_digest(path: Path) -> str:
    try:
        return blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return f"unreadable {path}"


def _hu_digest(path: Path) -> str | None:
    try:
        hu = read_hu(path)
    except (LeftOut, OSError):
        return None
    return blake2b(repr(hu.shape).encode() + hu.tobytes(), digest_size=16).hexdigest()
