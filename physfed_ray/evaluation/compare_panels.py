"""The pictures of a comparison: every method on the same slices."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from physfed_ray.evaluation import pictures
from physfed_ray.evaluation.compare_tables import Comparison
from physfed_ray.evaluation.groups import Group
from physfed_ray.evaluation.report import shown_policy, two_lines
from physfed_ray.evaluation.run_tables import policy_label
from physfed_ray.evaluation.runs import ClientEntry, Run


def compare_panels(comparison: Comparison, split: str, count: int) -> Figure | None:
    """Draw every method on the same slices of a few clients, of the first seed all have.

    Args:
        comparison: What is compared.
        split: "test" or "unseen".
        count: Number of clients.

    Returns:
        None where the runs have no seed or no example in common.
    """
    common = set.intersection(*(set(group.seeds) for group in comparison.groups))
    if not common:
        return None
    seed = min(common)
    shown = [(group, next(r for r in group.runs if r.seed == seed)) for group in comparison.groups]
    first = shown[0][1]
    headings: list[str] = ["Low dose"]
    panels = []
    for entry in _telling(first.clients if split == "test" else first.unseen, count):
        example = first.example(split, entry.id)
        if example is None:
            return None
        headings, images = ["Low dose"], [example.low]
        for label, image in _results(shown, split, entry.id, example.full):
            headings.append(label)
            images.append(image)
        full, *rest = (pictures.to_hu(x, first.window_hu) for x in (example.full, *images))
        panels.append(pictures.Panel(two_lines(entry), full, tuple(rest)))
    return pictures.stacked_panels(panels, headings) if len(headings) > 1 else None


def _results(
    shown: Sequence[tuple[Group, Run]], split: str, client: str, full: np.ndarray
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


def _telling(entries: Sequence[ClientEntry], count: int) -> list[ClientEntry]:
    """Choose the protocol with the fewest views, that with the fewest photons, then the others."""
    chosen = [
        min(entries, key=lambda e: e.protocol["views"]),
        min(entries, key=lambda e: e.protocol["photons"]),
        *entries,
    ]
    return list({entry.id: entry for entry in chosen}.values())[:count]
