"""Reports and embeddings on Ray: a pool of actors, fed and scaled by Ray Data."""

from collections.abc import Iterator, Sequence

from physfed_ray.data.description import DescribedSlices, Slice, run_inline
from physfed_ray.experiment import Reports


def describe_on_ray(reports: Reports, slices: Sequence[Slice]) -> Iterator[DescribedSlices]:
    """Describe slices in a pool of actors; see ``physfed_ray.data.description.run_inline``."""
    return run_inline(reports, slices)
