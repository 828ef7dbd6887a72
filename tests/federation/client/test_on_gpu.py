"""A client's turn and its images on a GPU, beside the same on the CPU."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from physfed_ray.data.store import read_client_data
from physfed_ray.federation.client.inference import Inference
from physfed_ray.federation.client.training import build_network
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.registry import METHODS
from tests.federation.client.test_training import turn

MakeSpec = Callable[..., Spec]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
SAME = 1e-3
"""Most that a loss in float32 may differ from the CPU's, of its value."""
BF16 = 0.03
"""Likewise of a loss in bfloat16, which keeps 8 bits."""
DRAWN = {"fedfdd": 0.2}
"""Likewise of methods that draw on the device, where other numbers come."""
BF16_IMAGE = 0.02
"""Most that a pixel may differ in bfloat16, of the window."""


@pytest.fixture(autouse=True)
def whole_float32() -> Iterator[None]:
    """Let convolutions in float32 not round their inputs to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", list(METHODS))
def test_the_losses_of_a_turn(make_spec: MakeSpec, method: str, device: str) -> None:
    if device == "cpu" and method != "scan_physfed":
        pytest.skip("on the CPU, one method tries the way")
    spec = make_spec(method, unseen=0, optimizer="sgd")  # Adam makes a step of a rounding error
    here, there = turn(spec), turn(replace(spec, device=device))
    assert not there.missing
    assert there.losses == pytest.approx(here.losses, rel=DRAWN.get(method, SAME), abs=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["fedavg", "scan_physfed"])
def test_the_losses_of_a_turn_in_bf16(make_spec: MakeSpec, method: str, device: str) -> None:
    spec = make_spec(method, unseen=0, optimizer="sgd")
    there = turn(replace(spec, device=device, precision="bf16"))
    assert there.losses["loss"] == pytest.approx(turn(spec).losses["loss"], rel=BF16)


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["fedavg", "scan_physfed"])
def test_a_turn_says_the_same_twice(make_spec: MakeSpec, method: str) -> None:
    """To the bit with cuDNN's deterministic convolutions; as they come, within rounding."""
    spec = replace(make_spec(method, unseen=0, local_epochs=2), device="cuda")
    assert turn(spec).losses == pytest.approx(turn(spec).losses, rel=SAME)
    torch.backends.cudnn.deterministic = True
    try:
        assert turn(spec).losses == turn(spec).losses
    finally:
        torch.backends.cudnn.deterministic = False


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("precision", "bound"), [("fp32", SAME), ("bf16", BF16_IMAGE)])
def test_images(make_spec: MakeSpec, device: str, precision: str, bound: float) -> None:
    spec = make_spec("scan_physfed", unseen=0)
    path = spec.files[0].test
    assert path is not None
    data = read_client_data(path)

    def images(where: str, how: str) -> np.ndarray:
        network, _, _ = build_network(replace(spec, device=where))
        return Inference(spec.method, network, where, how).denoise(data)  # type: ignore[arg-type]

    np.testing.assert_allclose(images(device, precision), images("cpu", "fp32"), atol=bound)
