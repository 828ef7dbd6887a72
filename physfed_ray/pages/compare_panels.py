"""The pictures of a comparison: every method on the same slice, one figure a client."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from physfed_ray.pages.pictures import Panel
from physfed_ray.pages.run_page import entries_with_examples, shown_policy
from physfed_ray.pages.zoomed import paper_window, zoomed_panels
from physfed_ray.results.compare_tables import Comparison
from physfed_ray.results.groups import Group
from physfed_ray.results.run_tables import policy_label
from physfed_ray.results.runs import ClientEntry, RunResults
from physfed_ray.window import denormalise


def compare_panels(comparison: Comparison, split: str) -> Iterable[tuple[ClientEntry, Figure]]:
    """Draw every method on the same slice of each client, of the first seed that all have.

    Args:
        comparison: What is compared.
        split: "test" or "unseen".

    Yields:
        A client and its figure, for those of whom the runs have an example; a few where they are
        many.
    """
    common = set.intersection(*(set(group.seeds) for group in comparison.groups))
    if not common:
        return
    seed = min(common)
    shown = [(group, next(r for r in group.runs if r.seed == seed)) for group in comparison.groups]
    first = shown[0][1]
    for entry in entries_with_examples(first, split):
        example = first.example(split, entry.id)
        assert example is not None, "that is how the entries were chosen"
        results = dict(_results(shown, split, entry.id, example.full))
        if not results:
            continue
        full, *rest = (
            denormalise(image, first.window_hu)
            for image in (example.full, example.low, *results.values())
        )
        panel = Panel(entry.label, full, tuple(rest))
        yield entry, zoomed_panels(panel, ("Low dose", *results), paper_window(full))


def _results(
    shown: Sequence[tuple[Group, RunResults]], split: str, client: str, full: np.ndarray
) -> Iterable[tuple[str, np.ndarray]]:
    """Yield label and image of every method whose example is the same slice."""
    for group, run in shown:
        policy = shown_policy(run, split)
        example = run.example(split, client)
        if example is None or not np.array_equal(example.full, full):
            continue
        if policy in example.denoised:
            label = policy_label(group.label, policy) if policy else group.label
            yield label, example.denoised[policy]
