"""Suites: many runs side by side, what of them is missing, and what they share of a machine."""
