"""Fixtures that several packages' tests share."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import settings
from scipy.ndimage import gaussian_filter

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import expect
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.store import ClientData, write_client_data
from physfed_ray.experiment import Training
from physfed_ray.experiment.generate import scanner
from physfed_ray.federation.spec import ClientFiles, Spec, UnseenInfo
from physfed_ray.methods.given import ClientInfo, Task
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import make_backbone
from physfed_ray.seeds import derive_seed, generator
from physfed_ray.window import denormalise

SPLITS = ("train", "validation", "test")

# Ray starts a process for each core before anybody has asked for one; few tests would use them.
os.environ |= {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
# Ray's workers would wait for the other test process, which keeps its core busy.
os.environ |= {"RAY_worker_niceness": "0"}
os.environ["RAY_DASHBOARD_STARTUP_TIMEOUT_S"] = "240"  # of a busy machine

# The same examples each time: what is found by chance on one machine, no other one could repeat.
settings.register_profile("suite", max_examples=30, deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # these processes share the cores; those that they start ask anew

REAL_CT = Path(__file__).parents[2] / "shared" / "ct"


FIRST = ("ray", "cluster", "faults", "runtime", "sweep", "suites", "end_to_end")
"""Groups of tests that start Ray or kill processes: each runs in one process, one at a time."""
LONG = tuple(
    f"{name}.py"
    for name in (
        "sweep/test_driver",
        "federation/test_recovery",
        "data/test_prepare",
        "end_to_end/test_nouns",
        "end_to_end/test_damage",
        "suites/test_run",
    )
)
"""Files that take longest of the others."""

LATE = "(?i)waited in vain|timed? ?out"
"""What a test says that was not wrong but too late, on a busy machine."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of tests on a GPU known."""
    config.addinivalue_line("markers", "cuda: needs a GPU, and is skipped where there is none")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist is to see the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests to two processes: first those on Ray, then file by file, the longest first.

    Clusters may miss a time limit, Ray's own of 30 s for a node among them: a test of theirs that
    was too late has a second try, which pytest reports. One with a wrong result has none.
    """
    order = (*FIRST, *LONG)
    ranks: dict[pytest.Item, int] = {}
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        group = path.as_posix()
        if "ray_session" in item.fixturenames:
            group = "ray"
        elif item.get_closest_marker("cluster"):
            group = path.parts[0]
        item.add_marker(pytest.mark.xdist_group(group))
        ranks[item] = order.index(group) if group in order else len(order)
        if group in FIRST:
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=LATE))
    items.sort(key=ranks.__getitem__)


@pytest.fixture(scope="session")
def real_ct() -> Path:
    """Return the folder of real clinical DICOM, or skip where it is absent."""
    if not REAL_CT.is_dir():
        pytest.skip(f"the real CT folder {REAL_CT.name} is not beside the project")
    return REAL_CT


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray on this machine for all tests that need it."""
    import ray  # a machine that has a GPU to test on may have no Ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        object_store_memory=300 * 2**20,
    )
    yield
    ray.shutdown()


def without_server(method: str) -> dict[str, bool]:
    """Return the settings with which a method asks for no images of the server."""
    kind = get_method(method)
    key = kind.server_key(kind.Settings())
    return {} if key is None else {key: False}


def random_client_data(seed: int, slices: int, size: int = 24, dim: int = 8) -> ClientData:
    """Return smooth random images with noise on top; enough for a network to learn from."""
    rng = np.random.default_rng(seed)
    full = gaussian_filter(rng.uniform(0, 1, (slices, size, size)), (0, 3, 3)).astype(np.float32)
    low = np.clip(full + rng.normal(0, 0.05, full.shape), 0, 1).astype(np.float32)
    return ClientData(
        low=low,
        full=np.clip(full, 0, 1),
        body=np.ones(full.shape, np.uint8),
        embedding=rng.normal(size=(slices, 1, dim)).astype(np.float32),
        embedding_mask=np.ones((slices, 1), np.uint8),
        g=np.tile(rng.uniform(0, 1, 7).astype(np.float32), (slices, 1)),
        patient=[f"p{seed}"] * slices,
        slice=np.arange(slices, dtype=np.int32),
        scale=np.ones(slices, np.float32),
        report=["A report."] * slices,
    )


WINDOW_HU = (-1000.0, 2000.0)


def quick(protocol: Protocol, views: int, bins: int = 48) -> Protocol:
    """Return the protocol with few views, and few wide bins that cover the same fan."""
    return replace(protocol, views=views, bins=bins, bin_mm=protocol.bin_mm * protocol.bins / bins)


def with_expected(data: ClientData, protocol: Protocol) -> ClientData:
    """Return the slices with what a detector without noise would measure of them."""
    objects = denormalise(data.full, WINDOW_HU)
    return replace(data, extra={"expected": expect(objects, protocol, Simulation(data.image_size))})


WRITTEN: dict[tuple[int, str, Protocol | None], bytes] = {}
"""Files of clients that this process has made: hundreds of tests ask for the same few."""


def put_client_data(path: Path, client: int, split: str, protocol: Protocol, fresh: bool) -> None:
    """Put a client's file in its place; with what its detector reads if its noise is fresh."""
    key = client, split, protocol if fresh else None
    path.parent.mkdir(parents=True, exist_ok=True)
    if key not in WRITTEN:
        data = random_client_data(derive_seed(client, split) % 1000, 3 + client % 2)
        write_client_data(path, with_expected(data, protocol) if fresh else data)
        WRITTEN[key] = path.read_bytes()
    fd, temporary = tempfile.mkstemp(dir=path.parent)
    with open(fd, "wb") as file:
        file.write(WRITTEN[key])
    os.replace(temporary, path)  # who has mapped an older file of this name keeps it


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., Spec]:
    """Return a factory of small federations on random images: ``make_spec(method, clients=3)``."""
    return spec_maker(tmp_path)


def spec_maker(tmp_path: Path) -> Callable[..., Spec]:
    """Return the factory, whose data lie in a folder."""
    folder = tmp_path / "data"

    def make(
        method: str,
        clients: int = 3,
        unseen: int = 1,
        run_root: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        noise: Literal["fixed", "fresh"] = "fixed",
        **training: Any,
    ) -> Spec:
        infos, files = [], []
        for i in range(clients + unseen):
            protocol = scanner(generator(i, "g").uniform(0, 1, 7))
            if noise == "fresh":
                protocol = quick(protocol, views=24 + 2 * i)  # sinograms of another shape each
            for split in SPLITS:
                fresh = noise == "fresh" and split == "train"
                put_client_data(folder / f"{split}-{i}.arrow", i, split, protocol, fresh)
            infos.append(ClientInfo(i, f"c{i + 1}", protocol, 3 + i % 2))
            files.append(ClientFiles(*(folder / f"{s}-{i}.arrow" for s in SPLITS)))
        kind = get_method(method)
        options: dict[str, Any] = {"rounds": 3, "batch_size": 2, "evaluate_every": 1, "lr": 1e-3}
        options |= training
        chosen = Training(**options)
        task = Task(
            image_size=24,
            clients=clients,
            input_mean=0.5,
            input_std=0.2,
            tokens=1,
            dim=8,
            embedding_mean=(0.0,) * 8,
            embedding_std=(1.0,) * 8,
            backbone=make_backbone(channels=2),
            rounds=chosen.rounds,
            objective=chosen.objective.make(),
        )
        return Spec(
            seed=1,
            method=kind(kind.Settings(**(settings or {})), task),
            training=chosen,
            precision="fp32",
            clients=tuple(infos[:clients]),
            files=tuple(files[:clients]),
            unseen=tuple(
                UnseenInfo(
                    f"u{i}",
                    infos[clients + i].protocol,
                    files[clients + i].test,
                    3 + (clients + i) % 2,
                )
                for i in range(unseen)
            ),
            window_hu=WINDOW_HU,
            clinical_windows={"soft": (-160, 240)},
            run_root=None if run_root is None else str(run_root),
            simulation=Simulation(task.image_size),
            noise=noise,
        )

    return make
