"""Hashed words: no model, the same vector everywhere."""

import numpy as np
import pytest

from physfed_ray.reports.hashed import HashedWords

TEXTS = ["Axial CT of the chest.", "", "chest, of the: AXIAL ct", "liver \ud800", "胸部 🫁"]


def encoder(**settings: int) -> HashedWords:
    return HashedWords(HashedWords.Settings(**settings))


def test_shapes_and_unit_length() -> None:
    vectors, mask = encoder(dim=64).encode(TEXTS)
    assert (vectors.shape, vectors.dtype, mask.tolist()) == ((5, 1, 64), np.float32, [[1]] * 5)
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(1, abs=1e-6)


def test_order_and_words_count_and_case_and_signs_do_not() -> None:
    vectors, _ = encoder().encode([*TEXTS, "axial ct of the chest"])
    assert np.array_equal(vectors[0], vectors[5])
    assert 0.3 < float(vectors[0, 0] @ vectors[2, 0]) < 0.9
    assert abs(float(vectors[0, 0] @ vectors[3, 0])) < 0.3


def test_the_vector_is_the_same_on_every_machine() -> None:
    vectors, _ = encoder(dim=8).encode(["lung"])
    again, _ = encoder(dim=8).encode(["other", "lung"])
    assert np.array_equal(vectors[0], again[1])
    assert (np.abs(vectors) * 3**0.5).round().sum() <= 3  # "", "lung" and the pair of them
