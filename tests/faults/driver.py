"""The ``physfed`` command without the pages at the end: they take longer than these runs."""

import sys

from physfed_ray.cli import main
from physfed_ray.runtime import run

if __name__ == "__main__":
    run.write_page = lambda directory: None
    sys.exit(main())
