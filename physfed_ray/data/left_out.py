"""What a source found and what it left out, in words: counts by reason, no paths, no names."""

from collections.abc import Mapping
from typing import Any


def source_line(summary: Mapping[str, Any]) -> str:
    """Return a source's summary as one line: what was found, left out and noted, and why."""
    found = ", ".join(f"{summary[k]} {k}" for k in ("patients", "series", "slices") if k in summary)
    told = (summary.get("told") or {}).items()
    parts = (
        ("files left out", left_out_words(summary)),
        ("noted", counted(summary.get("notes"))),
        ("please look at", ", ".join(f"{what} ({n} patients)" for what, n in told)),
    )
    return "; ".join([f"data: {found}", *(f"{what}: {words}" for what, words in parts if words)])


def left_out_sentence(summary: Mapping[str, Any]) -> str:
    """Return what to say after "not enough patients", with a blank first; empty if nothing is."""
    reasons = left_out_words(summary)
    return f" Files left out: {reasons}." if reasons else ""


def left_out_words(summary: Mapping[str, Any]) -> str:
    """Return counts by reason, the largest first, and what a DICOMDIR lists in vain."""
    words = counted(summary.get("left_out"))
    if missing := summary.get("missing_from_dicomdir", 0):
        words = ", ".join(filter(None, [words, f"{missing} listed in a DICOMDIR but not there"]))
    return words


def counted(counts: Mapping[str, int] | None) -> str:
    """Return "3 truncated, 1 localizer": numbers by reason, the largest first."""
    ordered = sorted((counts or {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{number} {why}" for why, number in ordered)
