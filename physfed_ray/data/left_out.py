"""What a source found and what it left out, in words: counts by reason, no paths, no names."""

from collections.abc import Mapping
from typing import Any


def source_line(summary: Mapping[str, Any]) -> str:
    """Return a source's summary as one line: what was found, and what was left out and why."""
    found = ", ".join(f"{summary[k]} {k}" for k in ("patients", "series", "slices") if k in summary)
    reasons = left_out_words(summary)
    return f"data: {found}" + (f"; files left out: {reasons}" if reasons else "")


def left_out_sentence(summary: Mapping[str, Any]) -> str:
    """Return what to say after "not enough patients", with a blank first; empty if nothing is."""
    reasons = left_out_words(summary)
    return f" Files left out: {reasons}." if reasons else ""


def left_out_words(summary: Mapping[str, Any]) -> str:
    """Return counts by reason, the largest first, and what a DICOMDIR lists in vain."""
    counts: Mapping[str, int] = summary.get("left_out", {})
    words = [f"{n} {why}" for why, n in sorted(counts.items(), key=lambda item: -item[1])]
    if missing := summary.get("missing_from_dicomdir", 0):
        words.append(f"{missing} listed in a DICOMDIR but not there")
    return ", ".join(words)
