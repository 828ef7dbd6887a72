"""What a process loads before it is of use: every host, and every short command, pays for it."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from physfed_ray.federation.spec import Spec

MakeSpec = Callable[..., Spec]
ROOT = Path(__file__).parents[1]
HEAVY = {
    "astra", "gdcm", "jinja2", "matplotlib", "mlflow", "openjpeg", "optuna", "pandas", "pydicom",
    "ray.air", "ray.dashboard", "ray.data", "ray.serve", "ray.train", "ray.tune", "scipy",
    "skimage", "sklearn", "sympy", "tensorboard", "torch._dynamo", "torch._inductor",
    "transformers", "wandb",
}  # fmt: skip
"""Modules that take from 50 ms to seconds each."""
HOST = """
import pickle, sys
from pathlib import Path
import physfed_ray.runtime.actors
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
spec = pickle.loads(Path(sys.argv[1]).read_bytes())
vector, extras = ParameterServer(spec).broadcast()
host = Host(spec)
turn = ClientTurn(0, 0)
(result,), _ = host.train(Order(1, 1e-3, (0,), (turn,), (0,)), vector, extras)
assert not result.missing
scores = host.seen.evaluate(vector, ClientTurn(0, 1), "test", None, True, True).scores
assert scores["psnr"].size
print(*sorted(sys.modules))
"""
COMMAND = "import sys; from physfed_ray.cli import main; main(sys.argv[1:]); print(*sys.modules)"
SMALL = """
name: small
data: {source: {phantom: {patients: 4, slices: 2}}, image_size: 64, test_patients: 1}
clients: [{id: a, protocol: paper-1}, {id: b, protocol: paper-2}]
backbone: {channels: 4}
method: {name: scan_physfed}
"""


def modules_of(script: str, *arguments: str | Path) -> set[str]:
    """Run a script in a fresh process, and return what it has loaded in the end."""
    ended = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines()[-1].split())


def test_a_host_loads_nothing_that_it_does_not_use(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "spec").write_bytes(pickle.dumps(make_spec("scan_physfed", clients=2)))
    found = modules_of(HOST, tmp_path / "spec")
    assert {"torch", "ray", "pyarrow"} <= found
    assert sorted(found & HEAVY) == []


def test_describing_a_small_experiment_loads_little_more_than_torch(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    found = modules_of(COMMAND, "describe", tmp_path / "small.yaml")
    assert "torch" in found
    asked = {"astra", "scipy"}  # whether ASTRA has a GPU decides what scans are in the cache
    more = {"ray", "PIL", "requests", "fsspec", "scipy.fft", "scipy.ndimage", "scipy.spatial"}
    assert sorted(found & (HEAVY - asked | more)) == []


@pytest.mark.parametrize(("command", "more"), [("protocols", {"torch"}), ("methods", set())])
def test_a_list_needs_no_network_library(command: str, more: set[str]) -> None:
    found = modules_of(COMMAND, command)
    assert sorted(found & (HEAVY | {"ray"} | more)) == []


TORCH_FREE = {"astra", "matplotlib", "pandas", "pyarrow", "ray", "scipy", "sklearn", "torch",
              "transformers"}  # fmt: skip
"""What an answer to a mistake does not wait for: torch and Ray alone take over a second."""
FAILING = """
import contextlib, io, json, os, sys
import physfed_ray.experiment
from physfed_ray.cli import main
for arguments in json.loads(sys.argv[1]):
    if os.fork() == 0:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = end.code
        print(json.dumps([status, said.getvalue(), sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""
"""Forks off a process that has what all of them load, and so makes each mistake in its own."""
MISTAKES = [
    ["nosuch"],
    ["run"],
    ["run", "small.yaml", "--nosuch"],
    ["run", "nosuch.yaml"],
    ["run", "small.yaml", "--set", "training.roundss=3"],
    ["run", "small.yaml", "--set", "method.name=nosuch"],
    ["run", "small.yaml", "--set", "training=["],
    ["run", "small.yaml", "--set", "clients.0.protocol=nosuch"],
    ["run", "small.yaml", "--set", "reports.encoder=nosuch"],
    ["describe", "small.yaml", "--set", "training.lr=.nan"],
    ["describe", "nosuch.yaml"],
    ["prepare", "small.yaml", "--set", "data.image_size=3"],
    ["submit", "small.yaml", "--set", "name=a b"],
    ["sweep", "nosuch.yaml"],
    ["reports", "nosuch.yaml"],
    ["report", "nosuch"],
    ["compare", "nosuch"],
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, set[str]]]:
    """Return of each mistake its status, what was said, and what was loaded."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "small.yaml").write_text(SMALL)
    given = [[str(folder / a) if a.endswith(".yaml") else a for a in words] for words in MISTAKES]
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, json.dumps(given)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    return {
        " ".join(words): (status, said, set(modules))
        for words, (status, said, modules) in zip(MISTAKES, found, strict=True)
    }


@pytest.mark.parametrize("mistake", [" ".join(words) for words in MISTAKES])
def test_a_mistake_is_told_without_torch(
    told: dict[str, tuple[int, str, set[str]]], mistake: str
) -> None:
    status, said, modules = told[mistake]
    assert (status, "physfed" in said) == (2, True), said
    assert sorted(modules & TORCH_FREE) == []


def test_help_needs_the_standard_library_alone() -> None:
    script = "import sys\ntry:\n from physfed_ray.cli import main; main(['--help'])\n" + (
        "except SystemExit:\n print(*sys.modules)"
    )
    assert not modules_of(script) & {"numpy", "pydantic", "rich", "torch", "yaml", "ray"}
