"""A client's turn: what it reports of its losses, and how often it waits for the device."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.store import read_client_data
from physfed_ray.federation.client.training import (
    ClientResult,
    build_network,
    publish_client,
    to_device,
    train_client,
)
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.given import RoundInput
from physfed_ray.methods.registry import METHODS

MakeSpec = Callable[..., Spec]


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def turn(spec: Spec) -> ClientResult:
    """Train the second of three clients for a round, as a host does."""
    network, states, optimizer = build_network(spec)
    path = spec.files[1].train
    assert path is not None
    codes = spec.method.codes(network, torch.tensor([client.g for client in spec.clients]))
    extras = {} if codes is None else {"codes": codes.cpu().numpy()}
    given = RoundInput(1, spec.clients[1], np.zeros(0, np.float32), extras)
    data = read_client_data(path)
    trained = [file.train for file in spec.files if file.train is not None]
    published = [
        publish_client(spec, client, read_client_data(file))
        for client, file in zip(spec.clients, trained, strict=True)
    ]
    if published[0]:
        collected = spec.method.collect(published)
        extras |= {f"published.{name}": value for name, value in collected.items()}
    return train_client(spec, network.train(), states, optimizer, data, given, None)


def watched(spec: Spec, monkeypatch: pytest.MonkeyPatch, at: int = 0) -> list[dict[str, float]]:
    """Note the losses of each step; let that of the ``at``-th be infinite."""
    steps: list[dict[str, float]] = []
    loss_of = type(spec.method).loss

    def loss(self: Any, *args: Any) -> Any:
        loss, parts = loss_of(self, *args)
        steps.append(
            {name: float(value.detach()) for name, value in {"loss": loss, **parts}.items()}
        )
        return (loss * torch.inf if len(steps) == at else loss), parts

    monkeypatch.setattr(type(spec.method), "loss", loss)
    return steps


@pytest.mark.parametrize("method", ["fedavg", "scan_physfed", "fedkd"])
def test_reported_losses_are_the_means_of_python_floats_to_the_bit(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    spec = make_spec(method, unseen=0, local_epochs=4)
    steps = watched(spec, monkeypatch)
    result = turn(spec)
    assert result.steps == len(steps) == 8
    expected = {}
    for name in steps[0]:
        total = 0.0
        for step in steps:
            total += step[name]
        expected[name] = total / len(steps)
    assert result.losses == expected


def test_the_first_loss_that_is_not_finite_is_named_at_the_end_of_the_turn(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("fedavg", unseen=0, local_epochs=4)
    steps = watched(spec, monkeypatch, at=3)
    result = turn(spec)
    assert result.diverged
    assert result.missing == "loss is inf in round 1, batch 3"
    assert len(steps) == 8  # nobody looked in between, for which a GPU would stand idle


@pytest.mark.parametrize("method", list(METHODS))
def test_a_step_reads_no_number(make_spec: MakeSpec, method: str) -> None:
    counts = []
    for epochs in (1, 2):
        with Reads() as reads:
            result = turn(make_spec(method, unseen=0, local_epochs=epochs))
        counts.append((result.steps, reads.count))
    (few, first), (many, second) = counts
    assert few < many
    assert second == first


@pytest.mark.cuda
@pytest.mark.parametrize("method", list(METHODS))
def test_a_step_never_waits_for_a_gpu(make_spec: MakeSpec, method: str) -> None:
    def waits(epochs: int) -> tuple[int, int]:
        spec = replace(make_spec(method, unseen=0, local_epochs=epochs), device="cuda")
        turn(spec)  # what CUDA and cuDNN do once
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                result = turn(spec)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return result.steps, sum("synchroniz" in str(w.message) for w in caught)

    (few, first), (many, second) = waits(1), waits(3)
    assert few < many
    assert second == first


def test_a_batch_arrives_whole_with_its_images_channels_last(make_spec: MakeSpec) -> None:
    path = make_spec("fedavg").files[0].train
    assert path is not None
    _, batch = next(iter(whole_batches(read_client_data(path), 2)))
    moved = to_device(batch, "cpu")
    for name in ("low", "full", "g", "embedding", "embedding_mask", "origin"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))
    assert moved.low.is_contiguous(memory_format=torch.channels_last)
    assert moved.image_size == batch.image_size
