"""What a terminal or a log shows of runs, suites and sweeps while they work."""
