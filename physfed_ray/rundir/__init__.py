"""The run directory: its files, manifest and metrics, in a local folder or a bucket."""
