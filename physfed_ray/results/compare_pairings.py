"""Whether the best method of a comparison is surely the best: pairs of seed and client."""

import math

from physfed_ray.results.compare_tables import Comparison, Scope
from physfed_ray.results.pairing import pair
from physfed_ray.results.run_tables import WHOLE
from physfed_ray.results.runs import finite_mean
from physfed_ray.results.tables import Column


def pairings(
    comparison: Comparison, column: Column, scope: Scope
) -> tuple[str, list[tuple[str, ...]]] | None:
    """Compare the best method with every other, seed by seed and client by client.

    Args:
        comparison: The methods; bounds are left out.
        column: The metric, higher is better.
        scope: Where the methods were scored.

    Returns:
        The best method, and label, difference, pairs won and p for every other, the second best
        first; None with fewer than two.
    """
    scores: dict[str, dict[tuple[int, str], float]] = {}
    for served in comparison.served(scope):
        found = {
            (run.seed, client): column.scale * value
            for run in served.group.runs
            for client, value in run.client_means(served.split, column.metric).items()
        }
        if served.ranked and found:
            scores[served.label] = found
    order = sorted(scores, key=lambda label: -finite_mean(scores[label].values()))
    if len(order) < 2:
        return None
    rows: list[tuple[str, ...]] = []
    for label in order[1:]:
        paired = pair(scores[order[0]], scores[label])
        if paired is not None:
            p = "–" if math.isnan(paired.p) else f"{paired.p:.2g}"
            won = f"{paired.wins} of {paired.pairs}"
            rows.append((label, f"{paired.difference:+.2f}", won, p))
    return order[0], rows


def lead(comparison: Comparison, scope: Scope) -> str:
    """Say by how much the best method leads the second, and how sure that is, "" without two."""
    sentences = []
    for column in WHOLE:
        found = pairings(comparison, column, scope)
        if found is None or not found[1]:
            return ""
        best, ((second, difference, won, p), *_) = found
        sure = "too few for a test" if p == "–" else f"p = {p}"
        sentences.append(
            f"{column.heading}, {best} minus {second}: {difference} {column.difference_unit}, "
            f"higher in {won} pairs of seed and client ({sure})."
        )
    return "Best against second. " + " ".join(sentences)
