"""Where a federation runs: in one process or on a Ray cluster."""
