"""What clients publish before the first round: once, counted, and remembered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.federation.client.host import Host
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from tests.federation.test_rounds import (
    ASYNC,
    LATE,
    SPEEDS,
    InterruptedRunError,
    Run,
    interrupt,
    of_speeds,
)

MakeSpec = Callable[..., Spec]
WINDOW = 0.1
"""Of 24 pixels: 2 frequencies to each side of zero, 25 amplitudes an image."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the clients that have been asked to publish, in that order."""
    clients: list[int] = []
    publish = Host.publish

    def watched(host: Host, asked: Any) -> Any:
        clients.extend(asked)
        return publish(host, asked)

    monkeypatch.setattr(Host, "publish", watched)
    return clients


def feddg(make_spec: MakeSpec, **more: Any) -> Spec:
    return make_spec("feddg", settings={"window": WINDOW}, unseen=0, **more)


def test_bytes_count_in_the_first_round(make_spec: MakeSpec, asked: list[int]) -> None:
    spec = feddg(make_spec, clients=3, batch_size=2)
    run = Run(spec, hosts=2).go()
    assert sorted(asked) == [0, 1, 2]
    shared = 3 * run.vector.nbytes
    spectra = 3 * 2 * 25 * 4  # clients x images of a batch x amplitudes x bytes
    bank = 3 * (spectra + 3 * 2 * 4)  # each client receives all of them, and whose they are
    assert run.row("bytes_up") == {1: shared + spectra, 2: shared, 3: shared}
    assert run.row("bytes_down") == {1: shared + bank, 2: shared, 3: shared}


def test_the_bank_does_not_depend_on_the_hosts(make_spec: MakeSpec) -> None:
    spec = feddg(make_spec, clients=5)
    banks = []
    for hosts in (1, 3):
        run = Run(spec, hosts).go()
        banks.append(run.runtime.server("broadcast")[1])
    assert banks[0].keys() == {"published.amplitudes", "published.owners"}
    assert all(np.array_equal(banks[0][name], banks[1][name]) for name in banks[0])
    assert banks[0]["published.owners"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for client in range(5):
        (alone,) = Host(spec).publish([client])
        of_client = banks[0]["published.owners"] == client
        assert np.array_equal(banks[0]["published.amplitudes"][of_client], alone["amplitudes"])


@pytest.mark.parametrize(("stopped", "again"), [(2, 10), (3, 5)])
def test_it_happens_once_and_survives_an_interruption(
    make_spec: MakeSpec, tmp_path: Path, asked: list[int], stopped: int, again: int
) -> None:
    """Published twice only where the run ended before its first checkpoint, of round 2."""
    settings: dict[str, Any] = {"checkpoint_every": 2}
    calm = Run(feddg(make_spec, clients=5, rounds=4, run_root=tmp_path / "calm"), **settings).go()
    assert sorted(asked) == [0, 1, 2, 3, 4]
    asked.clear()
    spec = feddg(make_spec, clients=5, rounds=4, run_root=tmp_path / "stopped")
    with pytest.raises(InterruptedRunError):
        Run(spec, at=interrupt(stopped), **settings).go()
    rest = Run(spec, 2, **settings).go()
    assert len(asked) == again
    assert np.array_equal(rest.vector, calm.vector)
    assert rest.rows == calm.rows


@pytest.mark.parametrize("settings", [LATE, ASYNC], ids=["late", "async"])
def test_late_clients_get_the_bank_after_an_interruption(
    make_spec: MakeSpec, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Updates start from earlier vectors, that before the first round among them."""
    runs = []
    for name, stops in (("calm", ()), ("stopped", (2, 4))):
        spec = feddg(make_spec, clients=5, rounds=5, local_epochs=2, run_root=tmp_path / name)
        spec = of_speeds(spec, SPEEDS)
        for stop in stops:
            with pytest.raises(InterruptedRunError):
                Run(spec, at=interrupt(stop), **settings).go()
        runs.append(Run(spec, **settings).go())
    assert np.array_equal(runs[0].vector, runs[1].vector)
    assert runs[0].rows == runs[1].rows


def test_the_server_keeps_it_through_rounds_checkpoints_and_recalls(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = feddg(make_spec, run_root=tmp_path / "run")
    server = ParameterServer(spec)
    published = Host(spec).publish(range(3))
    received = server.collect(published)
    bank = dict(server.broadcast()[1])
    assert received == sum(array.nbytes for array in bank.values())
    start = server.broadcast()[0].copy()
    server.aggregate(1, [0], {}, [1, 2], False, {(0, 0): start + 1})
    server.save(1)
    assert server.sizes() == (start.nbytes, start.nbytes)
    fresh = ParameterServer(spec)
    fresh.restore(1)
    for vector, extras in (server.broadcast(), fresh.broadcast(), fresh.recall(1), fresh.recall(0)):
        assert extras.keys() == bank.keys()
        assert all(np.array_equal(extras[name], bank[name]) for name in bank)
        assert np.array_equal(vector, start) or np.array_equal(vector, start + 1)
    assert np.array_equal(fresh.recall(0)[0], start)
    assert fresh.sizes() == server.sizes()
    fresh.restore(0)
    assert not fresh.broadcast()[1]  # the run begins anew, and so does the publishing


def test_other_methods_ask_nobody(make_spec: MakeSpec, asked: list[int]) -> None:
    run = Run(make_spec("fedavg", unseen=0)).go()
    assert asked == []
    assert set(run.row("bytes_up").values()) == {3.0 * run.vector.nbytes}
