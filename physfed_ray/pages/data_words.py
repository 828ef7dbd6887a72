"""What was read, in words: the counts that a source of images leaves in a run's summary."""

from collections.abc import Iterator, Mapping
from typing import Any

from physfed_ray.results.groups import flatten

WORDS = {
    "source": "",
    "kind": "kind of source",
    "files": "files",
    "patients": "patients",
    "series": "series",
    "slices": "slices",
    "left_out": "left out",
    "left_out_file_numbers": "left out, by their numbers in the sorted listing",
    "missing_from_dicomdir": "listed by a DICOMDIR and not there",
    "regions": "patients of the region",
    "unusable_patients": "patients that could not be used",
    "unusable_slices": "slices that could not be used",
    "unused_patients": "patients that nobody needed",
    "front_end": "chosen for the front end",
    "kernel_pixels": "kernel (pixels)",
}
"""What a key is called; any other key is read as it is written, without its underscores."""


def data_words(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of a table: in words what was counted, and the count.

    Args:
        summary: ``data`` of a run's summary, without its splits.
    """
    return [(name[0].upper() + name[1:], value) for name, value in _lines(summary, "")]


def _lines(summary: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for key, value in summary.items():
        name = WORDS.get(str(key), str(key).replace("_", " "))
        where = ": ".join(filter(None, (before, name)))
        if isinstance(value, Mapping) and value:
            yield from _lines(value, where)
        elif not isinstance(value, Mapping):
            ((_, text),) = flatten(value) if not isinstance(value, list) else [("", _listed(value))]
            yield where or "source", text


def _listed(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values) or "none"
