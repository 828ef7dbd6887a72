"""``python -m physfed_ray`` is the ``physfed`` command."""

from physfed_ray.cli import main

main()
