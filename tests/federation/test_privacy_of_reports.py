"""Reports and embeddings stay with their client: all that leaves it is searched for them."""

import io
import logging
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from torch import Tensor, nn

from physfed_ray.cli import main
from physfed_ray.data.prepare import prepare
from physfed_ray.data.store import read_client_data, write_client_data
from physfed_ray.experiment import Federation, load_experiment
from physfed_ray.federation.orders import Order
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.runtime import Call, Runtime
from physfed_ray.federation.serving import evaluate_all
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.methods.given import RoundInput
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime import files, on_ray
from physfed_ray.runtime.actors import ServerActor
from physfed_ray.runtime.cluster import Slots
from physfed_ray.runtime.inline import InlineRuntime
from physfed_ray.runtime.on_ray import RayRuntime
from physfed_ray.runtime.placement import reserve

MakeSpec = Callable[..., Spec]
SPLITS = ("train", "validation", "test")
SHOWN = 12
"""Characters of a report that are enough to betray it."""


class Secrets:
    """What must not be found: the texts and every embedding of some files.

    Args:
        files: Prepared files of clients.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._needles: dict[bytes, str] = {}
        for path in files:
            data = read_client_data(path)
            for text in data.report:
                self._add_text(text)
            for row in data.embedding.reshape(-1, data.embedding.shape[-1]):
                self._add_row(row)

    def _add_text(self, text: str) -> None:
        for sentence in text.split(". "):
            if len(sentence) >= SHOWN:
                self._needles[sentence.encode()] = f"text {sentence!r}"

    def _add_row(self, row: np.ndarray) -> None:
        """Add a row as arrays of both precisions hold it, and as a list of floats does."""
        for start in (0, len(row) - 4):
            part = row[start : start + 4]
            for kind in ("<f4", "<f8"):
                self._needles[part.astype(kind).tobytes()] = "embedding"
            self._needles[struct.pack(">d", float(part[0]))] = "embedding"

    def __len__(self) -> int:
        return len(self._needles)

    def inside(self, payload: bytes) -> set[str]:
        """Return what a payload betrays."""
        return {what for needle, what in self._needles.items() if needle in payload}

    def carried(self, value: Any) -> set[str]:
        """Return what a value betrays once it is pickled to travel."""
        return self.inside(cloudpickle.dumps(value))


def files_of(spec: Spec) -> list[Path]:
    """Return all prepared files of a federation."""
    own = [getattr(files, split) for files in spec.files for split in SPLITS]
    return [path for path in (*own, *(unseen.test for unseen in spec.unseen)) if path is not None]


def mark(spec: Spec) -> Spec:
    """Give every slice of every file a report of its own."""
    for k, path in enumerate(files_of(spec)):
        data = read_client_data(path)
        texts = [f"Marker-{k}-{i} of the thorax. Second-marker-{k}-{i} below." for i in
                 range(len(data))]  # fmt: skip
        write_client_data(path, replace(data, report=texts))
    return spec


class Leaky(FedAvg):
    """Uploads the embeddings of the last batch: what the watcher must notice."""

    name = "leaky"
    uploads = ("embedding",)

    def begin(self, network: nn.Module, round_input: RoundInput) -> dict[str, Tensor]:
        """Return where the batch is kept."""
        return {}

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Keep the embeddings beside the loss."""
        state["embedding"] = batch.embedding
        return super().loss(network, batch, state)

    def finish(
        self, network: nn.Module, round_input: RoundInput, state: Any, steps: int
    ) -> dict[str, Any]:
        """Return the embeddings."""
        return {"embedding": state["embedding"].float().numpy()}


def fetched(value: Any) -> Any:
    """Return a value with the objects that its handles stand for."""
    if isinstance(value, ray.ObjectRef):
        return fetched(ray.get(value))
    if isinstance(value, Mapping):
        return {key: fetched(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [fetched(entry) for entry in value]
    return value


class Watch(Runtime):
    """Mixed into a runtime: pickles and searches all that goes between hosts, driver and server."""

    secrets: Secrets

    def look(self, where: str, value: Any) -> None:
        """Search what passes here."""
        self.__dict__.setdefault("seen", []).append(where)
        found = self.secrets.carried(fetched(value))
        self.__dict__.setdefault("found", []).extend((where, what) for what in sorted(found))

    def train(
        self, orders: Mapping[int, tuple[Order, Sequence[Any]]], timeout_s: float | None
    ) -> Any:
        """Watch the orders, the results and the pieces."""
        self.look("orders", list(orders.values()))
        outcome = super().train(orders, timeout_s)  # type: ignore[safe-super]
        self.look("pieces", list(outcome.values()))
        return outcome

    def start(self, calls: Sequence[Call]) -> list[Any]:
        """Watch the calls and their values."""
        self.look("calls", [list(call) for call in calls])
        handles = super().start(calls)  # type: ignore[safe-super]
        self.look("values", handles)
        return handles

    def server(self, name: str, *arguments: Any) -> Any:
        """Watch what the server is told and what it answers."""
        self.look(f"server.{name}", list(arguments))
        value = super().server(name, *arguments)  # type: ignore[safe-super]
        self.look(f"answer.{name}", value)
        return value


class WatchedInline(Watch, InlineRuntime):
    """Everything in this process, watched."""


class WatchedRay(Watch, RayRuntime):
    """Everything on Ray, watched from the driver."""


class WatchedServer(ServerActor):
    """The parameter server's process, which searches whatever reaches it."""

    def __init__(self, spec: Spec, run: str, assets: files.Lent = ()) -> None:
        self._secrets = Secrets(files_of(spec))
        self._seen: list[str] = []
        self._found: set[str] = set()
        self._look("spec", spec)
        super().__init__(spec, run, assets)

    def _look(self, name: str, value: Any) -> None:
        self._seen.append(name)
        self._found |= self._secrets.carried(value)

    def call(self, name: str, *arguments: Any) -> Any:
        """Search the arguments, in which Ray has put the values for the handles."""
        if name == "watched":
            return self._seen, self._found
        self._look(name, arguments)
        return super().call(name, *arguments)


@dataclass
class Watched:
    """What was seen, where, and what was found."""

    seen: set[str]
    found: set[tuple[str, str]]
    server_seen: list[str]
    server_found: set[str]


def federate(spec: Spec, runtime: str) -> Watched:
    """Run a federation to its last evaluation under watch."""
    secrets = Secrets(files_of(spec))
    kind: Any = {"inline": WatchedInline, "ray": WatchedRay}[runtime]
    watched = type(kind.__name__, (kind,), {"secrets": secrets})
    place = watched(spec, 2 if runtime == "inline" else reserve(lambda: Slots((2,))))
    directory = None if spec.run_root is None else RunDirectory(spec.run_root)
    server: tuple[list[str], set[str]] = ([], set())
    with closing(place):
        rounds = Rounds(spec, Federation(), place, directory, lambda _: None, lambda _: None)
        rounds.resume()
        rounds.run()
        evaluate_all(rounds)
        if runtime == "ray":
            server = RayRuntime.server(place, "watched")
    return Watched(set(place.seen), set(place.found), *server)


def with_leak(spec: Spec) -> Spec:
    return replace(spec, method=Leaky(spec.method.settings, spec.method.task))


@pytest.fixture
def watched_server(monkeypatch: pytest.MonkeyPatch, ray_session: None) -> None:
    """Let the Ray runtime start a server that searches what it gets."""
    monkeypatch.setattr(on_ray, "ServerActor", WatchedServer)


@pytest.mark.parametrize("method", ["scan_physfed", "fedper", "fedavg"])
def test_nothing_of_a_report_leaves_a_host(make_spec: MakeSpec, method: str) -> None:
    watched = federate(mark(make_spec(method, clients=3, rounds=2)), "inline")
    assert watched.seen >= {"orders", "pieces", "calls", "values", "server.aggregate"}
    assert watched.found == set()


@pytest.mark.cluster
def test_nothing_of_a_report_reaches_the_server_s_process(
    make_spec: MakeSpec, watched_server: None
) -> None:
    spec = mark(make_spec("scan_physfed", clients=3, rounds=2))
    watched = federate(spec, "ray")
    assert {"spec", "aggregate", "route"} <= set(watched.server_seen)
    assert watched.server_found == set()
    assert watched.found == set()


def test_a_method_that_uploads_embeddings_is_noticed_inline(make_spec: MakeSpec) -> None:
    watched = federate(with_leak(mark(make_spec("fedavg", clients=2, rounds=1))), "inline")
    assert {("pieces", "embedding"), ("server.aggregate", "embedding")} <= watched.found


@pytest.mark.cluster
def test_a_method_that_uploads_embeddings_is_noticed_on_ray(
    make_spec: MakeSpec, watched_server: None
) -> None:
    watched = federate(with_leak(mark(make_spec("fedavg", clients=2, rounds=1))), "ray")
    assert watched.server_found == {"embedding"}
    assert ("server.aggregate", "embedding") in watched.found


def test_the_watcher_finds_texts_and_embeddings_however_they_travel(make_spec: MakeSpec) -> None:
    (path, *others) = files_of(mark(make_spec("fedavg", clients=1, unseen=0)))
    secrets, data = Secrets([path]), read_client_data(path)
    text, row = data.report[1], np.array(data.embedding[1, 0])
    for value in (
        text,
        f"c1: {text}",
        {"a": [{"b": text}]},
        text.encode(),
        (1, Path(text)),
        text[:40],
    ):
        assert any("text" in what for what in secrets.carried(value))
    for value in (
        row,
        data.embedding,
        torch.tensor(row),
        {"uploads": {"x": row.astype(np.float64)}},
        row.tolist(),
        Batch(*(torch.tensor(row) for _ in range(6)), image_size=1),
    ):
        assert secrets.carried(value) == {"embedding"}
    foreign = read_client_data(others[0])
    assert secrets.carried((foreign.report, np.array(foreign.embedding))) == set()


EXPERIMENT = """
name: tiny
data:
  source: {phantom: {patients: 4, slices: 2}}
  image_size: 48
  test_patients: 1
  validation_patients: 1
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
unseen: [{id: u1, protocol: unseen-2}]
backbone: {channels: 4}
method: {name: scan_physfed}
training: {rounds: 2, batch_size: 2, patch: 32, evaluate_every: 1}
"""


def content(path: Path) -> bytes:
    """Return what a file holds, unpacked."""
    if path.suffix == ".parquet":
        return repr(pq.read_table(path).to_pylist()).encode()
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes())) as archive:
            return b"".join(name.encode() + archive[name].tobytes() for name in archive.files)
    return path.read_bytes()


def betrayed(folder: Path, secrets: Secrets) -> dict[str, set[str]]:
    """Return the files of a folder in which something was found."""
    found = {p.name: secrets.inside(content(p)) for p in folder.rglob("*") if p.is_file()}
    return {name: what for name, what in found.items() if what}


def test_a_run_directory_and_the_log_hold_no_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "tiny.yaml", tmp_path / "run"
    file.write_text(EXPERIMENT)
    changes = [f"data.cache={tmp_path / 'cache'}"]
    caplog.set_level(logging.DEBUG)
    command = ["run", str(file), "--set", changes[0], "--out", str(out), "--runtime", "inline"]
    assert main(command) == 0
    prepared = prepare(load_experiment(file, changes))
    files = [p for c in (*prepared.clients, *prepared.unseen) for s in SPLITS
             if (p := getattr(c, s)) is not None]  # fmt: skip
    secrets = Secrets(files)
    assert betrayed(prepared.root, secrets).keys() == {p.name for p in files}
    assert {p.name for p in out.rglob("*")} >= {
        "run.log", "metrics.parquet", "slices.parquet", "examples.npz", "codebook.npz",
        "report.html", "summary.json", "server.safetensors", "c1.safetensors", "experiment.yaml",
    }  # fmt: skip
    assert betrayed(out, secrets) == {}
    heard = [r for r in caplog.records if r.levelno > logging.DEBUG]
    said = "\n".join(f"{r.getMessage()} {r.__dict__}" for r in heard) + "".join(capsys.readouterr())
    assert secrets.inside(said.encode()) == set()
    text = read_client_data(files[0]).report[0]
    with (out / "run.log").open("a") as log:
        log.write(text)
    np.savez_compressed(out / "examples.npz", leak=read_client_data(files[0]).embedding)
    assert betrayed(out, secrets).keys() == {"run.log", "examples.npz"}
