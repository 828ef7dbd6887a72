"""What a run, a suite or a sweep says while it works."""

from typing import Any

Event = dict[str, Any]
"""``event`` names its kind; the other keys depend on it."""

PREPARING = {"prepare": "scans", "images": "images", "reports": "reports"}
"""Kinds of events that count what is prepared, and what each counts."""
