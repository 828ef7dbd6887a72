"""iRadonMAP: it starts as the FBP of every scanner, learns, and stays with its client."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.store import read_client_data, write_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.training import build_network
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.federation.serving import evaluate_all
from physfed_ray.federation.spec import ClientFiles, Spec
from physfed_ray.fields import Batch
from physfed_ray.front_ends.base import FRONT_END, Scanners
from physfed_ray.front_ends.iradonmap import MOST_WEIGHTS, RadonInversion
from physfed_ray.front_ends.registry import make_front_end
from physfed_ray.methods.registry import METHODS
from physfed_ray.rundir.run_directory import RunDirectory, client_file
from physfed_ray.window import normalise
from tests.conftest import WINDOW_HU, quick
from tests.federation.test_rounds import Run

SIZE = 32
PAPER_1, PAPER_2 = (quick(PRESETS[name], views=24 + 8 * i) for i, name in
                    enumerate(("paper-1", "paper-2")))  # fmt: skip
OTHERS = {
    "curved": replace(PRESETS["paper-1"], detector="arc"),
    "short scan": replace(PRESETS["paper-3"], arc_deg=220.0),
    "limited angle, curved": replace(PRESETS["paper-7"], detector="arc", arc_deg=120.0),
}
KINDS: list[dict[str, str]] = [
    {"filter": filtering, "back_projection": how}
    for filtering in ("learned", "fixed")
    for how in ("fixed", "view", "pixel")
    if (filtering, how) != ("fixed", "fixed")
]


def built(
    *protocols: Protocol, simulation: Simulation | None = None, **settings: object
) -> RadonInversion:
    module = make_front_end("iradonmap", **settings).module(
        Scanners(protocols, simulation or Simulation(SIZE), WINDOW_HU)
    )
    assert isinstance(module, RadonInversion)
    return module


def objects(count: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Return bodies of water with some disks in them, (count, size, size) float32, HU."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    hu = np.full((count, size, size), -1000, np.float32)
    hu[:, (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1] = 0
    for image in hu:
        for _ in range(6):
            (cx, cy), radius = rng.uniform(-0.4, 0.4, 2), rng.uniform(0.05, 0.2)
            image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.choice([-700, -100, 60, 400])
    return hu


def measured(protocol: Protocol, count: int = 2, seed: int = 0) -> Batch:
    """Return slices of a scanner; their low dose is its FBP."""
    simulation, full = Simulation(SIZE), objects(count, seed)
    rngs = [np.random.default_rng(1000 * seed + i) for i in range(count)]
    sinogram = measure(expect(full, protocol, simulation), protocol, rngs, simulation)
    low, labels = (
        torch.from_numpy(normalise(hu, WINDOW_HU))[:, None]
        for hu in (reconstruct(sinogram, protocol, simulation), full)
    )
    return Batch(
        low=low,
        full=labels,
        g=torch.from_numpy(protocol.normalised(protocol.further)),
        embedding=torch.zeros(count, 1, 8),
        embedding_mask=torch.ones(count, 1, dtype=torch.bool),
        origin=torch.zeros(count, 2, dtype=torch.int64),
        image_size=SIZE,
        extra={"sinogram": torch.from_numpy(sinogram)},
        protocol=protocol,
    )


def apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def error(module: nn.Module, batch: Batch) -> Tensor:
    mean: Tensor = (module(batch) - batch.full).square().mean()
    return mean


@pytest.mark.parametrize("name", [*PRESETS, *OTHERS])
def test_untrained_it_is_the_fbp_of_every_scanner(name: str) -> None:
    """Of noise, which holds all frequencies."""
    _compare_with_fbp({**PRESETS, **OTHERS}[name], Simulation(SIZE))


@pytest.mark.parametrize("kernel", [0.0, 1.7])
def test_untrained_it_has_the_kernel_of_the_scans(kernel: float) -> None:
    _compare_with_fbp(PRESETS["paper-2"], Simulation(SIZE, kernel_pixels=kernel))


def _compare_with_fbp(protocol: Protocol, simulation: Simulation) -> None:
    noise = np.random.default_rng(0).normal(2, 1, (1, protocol.views, protocol.bins))
    module = built(protocol, PRESETS["paper-6"], simulation=simulation)
    mu = module.attenuation(torch.from_numpy(noise).float(), protocol).detach()
    expected = fbp(torch.from_numpy(noise), protocol, SIZE, simulation.kernel_mm(protocol))
    assert apart(mu.double(), expected) < 1e-4


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
@pytest.mark.parametrize("name", ["paper-2", "limited angle, curved"])
def test_untrained_its_images_are_the_low_dose_of_the_client(kind: dict, name: str) -> None:
    protocol = quick({**PRESETS, **OTHERS}[name], views=20)
    batch = measured(protocol)
    images = built(PAPER_1, protocol, **kind)(batch)
    assert images.shape == batch.low.shape
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, batch.low, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
def test_gradients_are_those_of_what_it_computes(kind: dict) -> None:
    protocol = Protocol(6, 10, 0.5, 34.0, 200.0, 150.0, 1e5)
    module = built(protocol, simulation=Simulation(4), **kind).double()
    names, starts = zip(*module.named_parameters(), strict=True)
    noise = torch.Generator().manual_seed(0)
    moved = [
        (0.1 * torch.randn(start.shape, generator=noise).double()).requires_grad_()
        for start in starts
    ]
    sinogram = torch.rand(2, 6, 10, generator=noise).double()

    class Attenuation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self) -> Tensor:
            return self.inner.attenuation(sinogram, protocol)

    def attenuation(*parameters: Tensor) -> Tensor:
        given = {f"inner.{name}": value for name, value in zip(names, parameters, strict=True)}
        image: Tensor = torch.func.functional_call(Attenuation(), given, ())
        return image

    assert gradcheck(attenuation, tuple(moved), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
def test_training_lowers_the_error_on_other_slices(kind: dict) -> None:
    protocol = quick(PRESETS["paper-2"], views=24)
    module, batch, others = built(protocol, **kind), measured(protocol, 4), measured(protocol, 4, 1)
    before = error(module, others).item()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(12):
        optimizer.zero_grad()
        error(module, batch).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
        optimizer.step()
    assert error(module, others).item() < 0.995 * before


def test_the_first_steps_of_adam_do_not_spoil_the_image() -> None:
    """As a change of the ramp's own entries they would leave nothing of it."""
    protocol = quick(PRESETS["paper-1"], views=64, bins=256)
    module, batch = built(protocol, back_projection="fixed"), measured(protocol)
    before = error(module, batch).item()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        error(module, batch).backward()
        optimizer.step()
        assert error(module, batch).item() < 2 * before


@pytest.mark.parametrize("how", ["view", "pixel"])
def test_what_a_scanner_has_no_place_for_stays_zero_and_another_takes_its_turn(how: str) -> None:
    wide = quick(PAPER_2, views=40, bins=60)
    module = built(PAPER_1, wide, back_projection=how)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    error(module, measured(PAPER_1)).backward()
    optimizer.step()
    learned = {name: value.detach().clone() for name, value in module.named_parameters()}
    gain = learned["gain" if how == "view" else "weight"]
    assert learned["filter"].shape == (60, 60)
    assert gain.shape[0] == 40
    assert learned["filter"][:48, :48].abs().min() > 0
    assert learned["filter"][48:].abs().max() == learned["filter"][:, 48:].abs().max() == 0
    assert gain[: PAPER_1.views].abs().max() > 0
    assert gain[PAPER_1.views :].abs().max() == 0
    other = measured(wide)  # reads rows that nobody has trained
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    torch.testing.assert_close(module(other), other.low, rtol=0, atol=2e-5)


def test_autocast_changes_nothing() -> None:
    module, batch = built(PAPER_1), measured(PAPER_1)
    with torch.autocast("cpu", torch.bfloat16):
        images = module(batch)
    assert torch.equal(images, module(batch))


def test_it_trains_after_it_has_denoised() -> None:
    """What inference makes and a process keeps is no good for training."""
    protocol = replace(PAPER_1, photons=1.7e5)  # which no other test has asked for
    module, batch = built(protocol), measured(protocol)
    with torch.inference_mode():
        module(batch)
    error(module, batch).backward()


def test_a_weight_for_each_pixel_of_many_is_refused_in_one_sentence() -> None:
    most = int((MOST_WEIGHTS / 1024) ** 0.5)
    front_end = make_front_end("iradonmap", back_projection="pixel")
    few, many = (
        Scanners((PRESETS["paper-1"], PRESETS["paper-2"]), Simulation(size), WINDOW_HU)
        for size in (most, most + 1)
    )
    assert front_end.refuses(few) is None
    with pytest.raises(PhysFedError, match=r"1024 views and 140 x 140 pixels .* choose 'view', or"):
        front_end.module(many)


def test_without_a_scanner_it_says_so() -> None:
    with pytest.raises(ValueError, match="needs the protocol"):
        built(PAPER_1)(replace(measured(PAPER_1), protocol=None))


# In a federation.


def with_sinograms(spec: Spec, folder: Path) -> Spec:
    """Return the federation with the front end, under scanners whose sinograms clients hold."""
    protocols = (PAPER_1, PAPER_2, quick(PRESETS["paper-7"], views=20, bins=40))
    clients = tuple(
        replace(client, protocol=protocol)
        for client, protocol in zip(spec.clients, protocols, strict=False)
    )
    simulation = Simulation(spec.method.task.image_size)
    task = replace(
        spec.method.task,
        front_end=make_front_end("iradonmap"),
        scanners=Scanners(tuple(c.protocol for c in clients), simulation, spec.window_hu),
    )
    folder.mkdir()

    def rewritten(path: Path | None, protocol: Protocol) -> Path:
        assert path is not None
        data = read_client_data(path)
        objects_hu = data.full * (WINDOW_HU[1] - WINDOW_HU[0]) + WINDOW_HU[0]
        sinogram = expect(objects_hu, protocol, simulation).astype(np.float16)
        write_client_data(folder / path.name, replace(data, extra={"sinogram": sinogram}))
        return folder / path.name

    files = tuple(
        ClientFiles(*(rewritten(p, client.protocol) for p in (f.train, f.validation, f.test)))
        for client, f in zip(clients, spec.files, strict=True)
    )
    unseen = tuple(replace(u, test=rewritten(u.test, u.protocol)) for u in spec.unseen)
    method = type(spec.method)(spec.method.settings, task)
    return replace(spec, clients=clients, files=files, unseen=unseen, method=method)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.pooled])
def test_it_is_private_under_every_method(name: str, make_spec: Callable, tmp_path: Path) -> None:
    method = with_sinograms(make_spec(name, unseen=0), tmp_path / "sinograms").method
    network = method.build(1)
    assert FRONT_END not in method.shared
    assert FRONT_END in private_parts(network, method.shared)
    shared = FlatState(network, method.shared)
    assert not any(entry.name.startswith(f"{FRONT_END}.") for entry in shared.entries)


@pytest.mark.parametrize("name", ["fedavg", "fedper"])
def test_clients_of_different_scanners_train_their_own_in_turn(
    name: str, make_spec: Callable, tmp_path: Path
) -> None:
    spec = make_spec(name, clients=2, rounds=1, run_root=tmp_path / "run")
    spec = with_sinograms(spec, tmp_path / "sinograms")
    run = Run(spec).go()
    assert run.done == [1]
    scores = [value for key, value in run.rows.items() if key[3].startswith("psnr")]
    assert scores
    assert np.isfinite(scores).all()
    directory = RunDirectory(tmp_path / "run")
    own = [directory.read_tensors(client_file(1, client.id)) for client in spec.clients]
    filters = [{**tensors}[f"{FRONT_END}.filter"] for tensors in own]
    for learned, client in zip(filters, spec.clients, strict=True):
        bins = client.protocol.bins
        assert learned[:bins, :bins].abs().max() > 0
        assert learned.shape == (48, 48)
    assert not torch.equal(*filters)
    network, (shared, _), _ = build_network(spec)
    assert len(run.vector) == shared.vector.numel() < sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "policy"), [("scan_physfed", "pvqs"), ("fedavg", "shared")])
def test_an_unseen_scanner_and_edges_are_served(
    name: str, policy: str, make_spec: Callable, tmp_path: Path
) -> None:
    """The unseen scanner by its FBP, with which the shared part goes; edges by the client's own."""
    spec = with_sinograms(make_spec(name, unseen=1, rounds=1), tmp_path / "sinograms")
    results = evaluate_all(Run(replace(spec, metrics=("mtf",))).go().rounds)
    means = {(row[2], row[3]): row[4] for row in results.rows}
    assert np.isfinite(means[f"unseen/{policy}", "psnr"])
    assert ("edge/input", "mtf50_900hu_per_mm") in means
