"""Serving an unseen protocol: work that grows with its images, not with their square."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.data import dataset
from physfed_ray.data.store import write_client_data
from physfed_ray.federation.client.inference import EVALUATION_BATCH
from physfed_ray.federation.client.unseen import UnseenService
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.serving import evaluate_all
from physfed_ray.federation.spec import Spec
from tests.conftest import random_client_data
from tests.federation.test_rounds import Run


@pytest.fixture
def spec(make_spec: Callable[..., Spec], tmp_path: Path) -> Spec:
    """Return a federation with a codebook, and an unseen protocol of five batches."""
    spec = make_spec("scan_physfed", clients=2, rounds=1)
    images, path = 4 * EVALUATION_BATCH + 3, tmp_path / "many.arrow"
    write_client_data(path, random_client_data(1, images))
    return replace(spec, unseen=(replace(spec.unseen[0], test=path, slices=images),))


def test_features_of_a_batch_are_those_of_its_images_alone(spec: Spec) -> None:
    host = Run(spec).runtime._hosts[0]
    vector, _ = ParameterServer(spec).broadcast()
    service = UnseenService(host.network)
    code = np.ones(128, np.float32)
    for start in range(0, spec.unseen[0].slices, EVALUATION_BATCH):
        low = host.network.data(spec.unseen[0].test).low[start : start + EVALUATION_BATCH]
        _, *skips = service.features(vector, 0, code, start)
        assert np.array_equal(skips[0][:, 0], low)  # RED-CNN's first skip is the image


def test_each_image_is_taken_once_for_the_codebook(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch is made once for its features; the other policies take all images, too."""
    made: list[int] = []
    real = dataset.whole_batch

    def counted(data, rows):
        made.append(len(range(*rows.indices(len(data)))))
        return real(data, rows)

    run = Run(spec).go()
    monkeypatch.setattr("physfed_ray.federation.client.unseen.whole_batch", counted)
    evaluate_all(run.rounds)
    assert made == [EVALUATION_BATCH] * 4 + [3]
