"""Whole images through a network: in batches, alone or in two halves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from physfed_ray.data.dataset import whole_batch
from physfed_ray.federation.client.inference import EVALUATION_BATCH, Inference
from physfed_ray.federation.client.training import to_device
from physfed_ray.federation.flat import flat_network
from physfed_ray.federation.spec import Spec
from tests.conftest import random_client_data


@pytest.fixture
def inference(make_spec: Callable[..., Spec]) -> Inference:
    """Return a network away from its start, in training as a host leaves it."""
    method = make_spec("scan_physfed").method
    network, states = flat_network(method, 1, "cpu")
    for state in states:
        noise = torch.rand(state.vector.shape, generator=torch.Generator().manual_seed(1))
        state.vector.add_(noise, alpha=0.02)  # upwards, so that its few features stay alive
    return Inference(method, network.train(), "cpu", "fp32")


def test_images_are_those_of_the_method_batch_by_batch(inference: Inference) -> None:
    data = random_client_data(1, EVALUATION_BATCH + 3)
    denoised = inference.denoise(data)
    assert denoised.shape == data.low.shape
    assert denoised.dtype == np.float32
    for rows in (slice(0, EVALUATION_BATCH), slice(EVALUATION_BATCH, None)):
        batch = to_device(whole_batch(data, rows), "cpu")
        with torch.inference_mode():
            expected = inference.method.denoise(inference.module.eval(), batch)
        assert np.array_equal(denoised[rows], expected.squeeze(1).clamp(0, 1).numpy())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_halves_give_what_the_whole_gives(inference: Inference, precision: str) -> None:
    """But for rounding: features are laid out anew on their way, and in bfloat16 rounded."""
    inference = replace(inference, precision=precision)
    data, code = random_client_data(2, 3), torch.linspace(-1, 1, 128)
    features = inference.features(whole_batch(data, slice(0, 3)), code)
    assert all(f.dtype == torch.float32 for f in features)
    halves, whole = inference.decode(features), inference.denoise(data, code)
    np.testing.assert_allclose(halves, whole, atol=1e-6 if precision == "fp32" else 0.02)
    assert not np.array_equal(whole, inference.denoise(data))  # by the code of g
