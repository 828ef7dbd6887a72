"""``python -m physfed_ray`` is the ``physfed`` command."""

import sys

from physfed_ray.cli import main

sys.exit(main())
