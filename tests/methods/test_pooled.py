"""Pooled: equal to plain centralised training, evaluated on every client; nothing crosses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from physfed_ray.data.store import concatenate, read_client_data
from physfed_ray.experiment import Federation as Settings
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.serving import FinalResults, evaluate_all
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.pooled import PooledSettings
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.inline import InlineRuntime
from physfed_ray.seeds import generator
from tests.methods.by_hand import Federation, assert_equal, distance, squared_error
from tests.screen.test_describe import described, load

MakeSpec = Callable[..., Spec]
SLICES = 3 + 4 + 3


def run(
    spec: Spec, hosts: int = 1, **settings: Any
) -> tuple[np.ndarray, dict[tuple[Any, ...], float], FinalResults]:
    """Return the shared vector, the metrics without times, and the last evaluation."""
    directory = None if spec.run_root is None else RunDirectory(spec.run_root)
    place = InlineRuntime(spec, hosts)
    rounds = Rounds(
        spec, Settings(**settings), place, directory, lambda event: None, lambda rows: None
    )
    rounds.resume()
    rounds.run()
    results = evaluate_all(rounds)
    rows = {r[:4]: r[4] for r in [*rounds.metrics.rows(), *results.rows] if r[3] != "seconds"}
    return np.array(place.server("broadcast")[0]), rows, results


def train_by_hand(spec: Spec, w: Tensor, *, fresh: bool) -> Tensor:
    """Return the seven numbers (7,) float64 after all rounds over all slices in one array."""
    parts = [read_client_data(files.train) for files in spec.files if files.train]
    low, full = (
        torch.from_numpy(np.concatenate([getattr(p, name) for p in parts])).double().unsqueeze(1)
        for name in ("low", "full")
    )
    k, m, v = 0, torch.zeros(7).double(), torch.zeros(7).double()
    for number in range(1, spec.training.rounds + 1):
        if fresh:
            k, m, v = 0, torch.zeros(7).double(), torch.zeros(7).double()
        rng = generator(spec.seed, number, "c1", "batches")
        for _ in range(spec.training.local_epochs):
            order = rng.permutation(SLICES)
            for start in range(0, SLICES, 3):
                rows = torch.from_numpy(order[start : start + 3])
                loss = squared_error(w.requires_grad_(), low[rows], full[rows])
                (gradient,) = torch.autograd.grad(loss, w)
                k, w = k + 1, w.detach()
                m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
                root = (v / (1 - 0.999**k)).sqrt() + 1e-8
                w = w - spec.training.lr * m / (1 - 0.9**k) / root
    return w


@pytest.mark.parametrize("state", ["persist_private", "persist_all", "fresh"])
def test_it_is_plain_training_on_all_slices_whose_moments_persist(
    make_spec: MakeSpec, state: str
) -> None:
    fed = Federation(make_spec, "pooled", lr=0.02, optimizer_state=state)
    expected, other = (
        train_by_hand(fed.spec, fed.numbers, fresh=fresh)
        for fresh in (state == "fresh", state != "fresh")
    )
    vector, rows, _ = run(fed.spec)
    assert_equal(torch.from_numpy(vector).double(), expected)
    assert distance(expected, other) > 1e-3
    assert rows[3, "c1", "train", "steps"] == 3 * 4  # 10 slices in batches of 3, three times


def test_every_client_and_unseen_protocol_is_evaluated_and_nothing_crosses(
    make_spec: MakeSpec,
) -> None:
    _, rows, results = run(make_spec("pooled", unseen=2))
    for split in ("validation", "test"):
        scored = {r[1] for r in results.rows if r[2:4] == (split, "psnr")}
        assert scored == {"c1", "c2", "c3"}
    assert {r[1:3] for r in results.rows if r[3] == "psnr" and r[2].startswith("unseen/")} == {
        (client, split) for client in ("u0", "u1") for split in ("unseen/input", "unseen/shared")
    }
    for name in ("bytes_up", "bytes_down", "missing"):
        assert {rows[n, "server", "system", name] for n in (1, 2, 3)} == {0}
    assert {r[1] for r in rows if r[2] == "train"} == {"c1"}


def test_participation_speeds_and_asynchrony_do_not_apply(make_spec: MakeSpec) -> None:
    spec = make_spec("pooled")
    expected = run(spec)
    assert expected[1][3, "server", "system", "simulated_steps"] == 3 * 5
    for settings in (
        {"participation": 0.3, "deadline_steps": 1.0},
        {"schedule": "async", "buffer": 2, "participation": 0.5},
    ):
        vector, rows, _ = run(spec, **settings)
        assert np.array_equal(vector, expected[0])
        assert rows == expected[1]


def test_resume_equals_the_undisturbed_run_on_other_hosts(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    expected = run(make_spec("pooled", rounds=5, run_root=tmp_path / "whole"))
    run(make_spec("pooled", rounds=2, run_root=tmp_path / "half"))
    resumed = run(make_spec("pooled", rounds=5, run_root=tmp_path / "half"), hosts=3)
    assert np.array_equal(expected[0], resumed[0])
    assert expected[1] == resumed[1]


def test_a_batch_mixes_clients_and_each_image_has_its_own_g(make_spec: MakeSpec) -> None:
    spec = make_spec("pooled", clients=2, batch_size=7, local_epochs=1)
    data = Host(spec).network.data(*spec.trained_on(0))
    parts = [read_client_data(files.train) for files in spec.files if files.train]
    for name in ("low", "full", "body", "embedding", "embedding_mask", "g", "slice", "scale"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(getattr(data, name), joined)
    assert data.patient == [*parts[0].patient, *parts[1].patient]
    assert len(data.report) == len(data) == 7
    assert concatenate(parts[:1]).patient == parts[0].patient


def test_workers_are_a_number_or_auto() -> None:
    assert PooledSettings().workers == "auto"
    assert PooledSettings(workers=3).workers == 3
    for wrong in (0, True, "many"):
        with pytest.raises(ValueError, match="must be 'auto' or a whole number from 1"):
            PooledSettings(workers=wrong)


def test_the_description_is_of_one_training(tmp_path: Path) -> None:
    experiment = load(tmp_path, "method={name: pooled}", "training.patches_per_slice=3")
    text = described(experiment)
    assert "schedule: one training a round, over the data of all 2 clients in one place" in text
    assert "traffic: none in rounds, but all clients give their images away" in text
    assert "2 rounds, 18 steps of" in text  # 12 slices, 3 patches of each, batches of 2
