"""What a run, a suite or a sweep says while it works."""

from typing import Any

Event = dict[str, Any]
"""``event`` names its kind; the other keys depend on it."""
