"""Scores of DA-CLIP, by hand."""

import math

import pytest
import torch

from physfed_ray.assets.da_clip.scoring import (
    Seen,
    dose_rank_correlation,
    doses_table,
    nearest_region_accuracy,
)

DOSES = torch.tensor([0.0, 1.0, 2.0])


def seen(dose: list[float], reciprocal: list[float]) -> Seen:
    """Return slices that lie at places along the first of two coordinates."""
    places = torch.tensor([[place, 0.1] for place in dose], dtype=torch.float64)
    count = len(dose)
    labels = torch.tensor(reciprocal, dtype=torch.float64)
    quality = torch.linspace(1, 0, count, dtype=torch.float64)
    return Seen(places, places, quality, labels, ("a",) * count, ("p",) * count)


def test_ranks_of_doses_of_training_and_of_others() -> None:
    found = dose_rank_correlation(
        seen([0.9, 0.5, -0.7, 0.2, -0.9], [0.0, 1.0, 2.0, 1.5, 3.0]), DOSES
    )
    assert found == {"dose_rank": pytest.approx(1.0), "unseen_dose_rank": pytest.approx(1.0)}
    mixed = seen([0.9, 0.5, -0.7, -0.9, 0.2, 0.1], [0.0, 1.0, 2.0, 1.0, 2.0, 0.0])
    assert abs(dose_rank_correlation(mixed, DOSES)["dose_rank"]) < 0.9
    assert set(dose_rank_correlation(mixed, DOSES)) == {"dose_rank"}


def test_the_nearest_slice_of_another_patient_counts() -> None:
    anatomy = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.02], [0.0, 1.0], [0.9, 0.1], [1.0, 5.0]]),
        dim=1,
    ).double()
    nothing = torch.zeros(6, dtype=torch.float64)
    regions = ("chest", "chest", "chest", "head", "head", "pelvis")
    patients = ("p", "p", "q", "r", "s", "t")
    found = nearest_region_accuracy(Seen(anatomy, anatomy, nothing, nothing, regions, patients))
    # both of p find q, q finds p; both heads find others; nobody else has a pelvis
    assert found == pytest.approx(3 / 5)
    alone = Seen(anatomy, anatomy, nothing, nothing, tuple("abcdef"), patients)
    assert math.isnan(nearest_region_accuracy(alone))


def test_the_table_has_a_row_for_each_dose() -> None:
    table = doses_table(seen([0.9, 0.5, -0.7, 0.2], [0.0, 1.0, 2.0, 1.5]), DOSES)
    assert [row[0] for row in table.rows] == ["1/1", "1/2", "1/2.83", "1/4"]
    assert [row[1] for row in table.rows] == ["yes", "yes", "no", "yes"]
    assert [row[3] for row in table.rows] == [1.0, 0.667, 0.0, 0.333]
    assert all(len(row) == len(table.columns) for row in table.rows)
