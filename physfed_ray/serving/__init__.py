"""A trained run at work: its model rebuilt from the run directory alone."""
