"""Where a federation runs: in one process or on a Ray cluster."""

import os

# Without this, any call of Ray's in a process that has no cluster (any more) would join whichever
# one it finds on this machine, or start one. Only ``cluster.connect`` does either.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
