"""Image metrics by name."""
