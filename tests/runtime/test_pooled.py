"""Pooled training by Ray Train's workers: the bits of one, the closeness of two, and losses."""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.train import WorkerGroupError
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Federation
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch
from physfed_ray.methods.pooled import Pooled, PooledSettings
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.cluster import Slots
from physfed_ray.runtime.inline import InlineRuntime
from physfed_ray.runtime.on_ray import RayRuntime
from physfed_ray.runtime.pooled import count_workers, failure, pooled_slots
from physfed_ray.runtime.pooled_worker import WorkersLostError, WorkerTeam
from tests.runtime.test_runtimes import numbers, on_one_node, run

MakeSpec = Callable[..., Spec]
GPUS = {"CPU": 16.0, "GPU": 4.0}


class Deadly(Pooled):
    """Kills the first worker that finds a file, and takes the file away."""

    file: Path

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the parent's loss, or die."""
        try:
            self.file.unlink()
        except FileNotFoundError:
            return super().loss(network, batch, state)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.cluster
def test_a_resumed_run_on_one_worker_has_the_bits_of_the_inline_runtime(
    make_spec: MakeSpec, ray_session: None, tmp_path: Path
) -> None:
    """With the moments from the checkpoint, short batches, and data that are new in each round."""
    make = {"method": "pooled", "batch_size": 3, "local_epochs": 2, "noise": "fresh"}
    whole = make_spec(**make, rounds=4, run_root=tmp_path / "whole")
    expected = run(whole, InlineRuntime(whole))
    half = make_spec(**make, rounds=2, run_root=tmp_path / "half")
    run(half, InlineRuntime(half))
    rest = make_spec(**make, rounds=4, run_root=tmp_path / "half")
    place = RayRuntime(rest, on_one_node(1))
    resumed = run(rest, place)
    table = ray.util.placement_group_table(place._placed.groups[0])
    assert table["state"] == "REMOVED"
    assert np.array_equal(expected[2], resumed[2])
    assert numbers(*expected[:2]) == numbers(*resumed[:2])


@pytest.mark.cluster
def test_two_workers_are_close_also_when_one_dies_and_the_host(
    make_spec: MakeSpec, ray_session: None, tmp_path: Path
) -> None:
    """Batches of 3 from 10 slices: parts of 2 and 1, and in the last step of 1 and none."""
    spec = make_spec("pooled", batch_size=3, rounds=4, settings={"workers": 2})
    expected = run(spec, InlineRuntime(spec))
    method = Deadly(spec.method.settings, spec.method.task)
    method.file = tmp_path / "deadly"
    spec = replace(spec, method=method, run_root=str(tmp_path / "run"))
    events: list[Event] = []

    def disturb(event: Event) -> None:
        events.append(event)
        rounds_done = [event["round"] for event in events if event["event"] == "round"]
        if event["event"] == "round" and rounds_done == [1]:
            method.file.touch()
        if event["event"] == "round" and rounds_done == [1, 2, 3]:
            ray.kill(place._hosts[0])

    directory = RunDirectory(spec.run_root or "")
    with closing(RayRuntime(spec, on_one_node(1))) as place:
        rounds = Rounds(spec, Federation(), place, directory, disturb, lambda rows: None)
        rounds.run()
        vector = np.array(place.server("broadcast")[0])
    said = [event["text"] for event in events if event["event"] == "message"]
    assert said == [
        "a worker of host-0:c1..c3 died; replaced, going on after round 1",
        "the process of a host died; replaced, going on after round 2",
    ]
    np.testing.assert_allclose(vector, expected[2], rtol=1e-5, atol=1e-6)
    losses = [
        [r[4] for r in found.metrics.rows() if r[3] == "mse"] for found in (rounds, expected[0])
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_what_failed_workers_mean() -> None:
    lost = ray.exceptions.RayActorError()
    collateral = WorkersLostError("a worker did not hear of another")
    ours, bug = PhysFedError("too little memory"), KeyError("x")

    def meant(*errors: Exception) -> Exception:
        return failure(WorkerGroupError("words", dict(enumerate(errors))))

    assert isinstance(meant(lost, collateral), WorkersLostError)
    assert meant(lost, bug) is bug
    assert meant(bug, ours) is ours
    assert isinstance(failure(ray.exceptions.RayActorError()), WorkersLostError)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_make_up_the_batch(
    size: int, make_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three images; the mean over the parts, by their weights, is that over the batch."""
    batch = make_batch(3)
    seen, mean = [], 0.0
    for rank in range(size):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: size)
        part, weight = WorkerTeam().part(batch)
        mean += weight * float(part.low.mean())
        assert len(part.low) == len(part.full) == len(part.embedding) == len(part.origin) > 0
        assert torch.equal(part.g[:, :2], part.origin)
        seen += part.origin[:, 0].tolist() if weight else []
    assert sorted(seen) == [0, 1, 2]
    assert mean == pytest.approx(float(batch.low.mean()))


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Return a maker of batches whose images are numbered by their origin."""

    def make(count: int) -> Batch:
        return Batch(
            low=torch.rand(count, 1, 4, 4),
            full=torch.rand(count, 1, 4, 4),
            g=torch.arange(count)[:, None].expand(count, 7),
            embedding=torch.zeros(count, 1, 8),
            embedding_mask=torch.ones(count, 1, dtype=torch.bool),
            origin=torch.arange(count)[:, None].expand(count, 2),
            image_size=4,
        )

    return make


def test_workers_are_one_a_gpu_or_one_on_cpus() -> None:
    auto, three = PooledSettings(), PooledSettings(workers=3)
    assert count_workers(auto, 1, True, [GPUS, GPUS]) == 8
    assert count_workers(auto, 8, True, [GPUS]) == 2  # as many as have their CPUs
    assert count_workers(auto, 1, False, [GPUS]) == 1
    assert count_workers(three, 4, False, [GPUS]) == 3
    with pytest.raises(PhysFedError, match=r"workers = 3 asks for 3 processes of 8 CPU\(s\).*2:"):
        count_workers(three, 8, False, [GPUS])


def test_host_and_workers_fit_where_the_clients_would() -> None:
    federation = Federation()
    assert pooled_slots(PooledSettings(), federation, 2, [GPUS]) == Slots((1,), 0.5, 0.25)
    cpus = [{"CPU": 2.0}]
    assert pooled_slots(PooledSettings(workers=2), federation, 1, cpus) == Slots((1,), 0.25, 0)
    with pytest.raises(PhysFedError, match="room for 2"):
        pooled_slots(PooledSettings(workers=3), federation, 1, cpus)
    none = Federation(gpus_per_host=0)
    assert pooled_slots(PooledSettings(), none, 1, [GPUS]).num_gpus == 0
