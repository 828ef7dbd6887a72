"""Which client serves an unseen protocol, by numbers worked out here."""

import numpy as np
import pytest
from torch import nn

from physfed_ray.federation.routes import has_private, nearest_client, nearest_code
from physfed_ray.methods.registry import METHODS


def test_the_code_with_the_largest_cosine_wins_whatever_its_length() -> None:
    codes = np.array([[3.0, 4.0], [10.0, 0.0], [0.0, -1.0]], np.float32)
    route = nearest_code(codes, np.array([1.0, 0.0], np.float32))
    assert (route.client, route.cosine) == (1, 1.0)
    route = nearest_code(codes, np.array([0.0, 2.0], np.float32))
    assert (route.client, route.cosine) == (0, pytest.approx(0.8))
    assert route.code.tolist() == [3.0, 4.0]


def test_a_code_of_zero_is_near_to_nobody() -> None:
    route = nearest_code(np.zeros((2, 2), np.float32), np.ones(2, np.float32))
    assert (route.client, route.cosine) == (0, 0.0)


def test_the_nearest_protocol_and_how_near() -> None:
    others = [(0.0, 0.0), (1.0, 1.0), (4.0, 5.0)]
    assert nearest_client((1.0, 2.0), others) == (1, 1.0)
    assert nearest_client((1.0, 1.0), others) == (1, 0.0)


@pytest.mark.parametrize(
    ("name", "private"),
    [("fedavg", False), ("pooled", False), ("moon", False), ("fedkd", False),
     ("local", True), ("fedper", True), ("fedbn", True), ("scan_physfed", True)],
)  # fmt: skip
def test_private_is_what_clients_denoise_with(name: str, private: bool, make_spec) -> None:
    method = make_spec(name).method
    network = method.build(1)
    assert isinstance(network, nn.Module)
    assert has_private(method, network) == private
    assert name in METHODS
