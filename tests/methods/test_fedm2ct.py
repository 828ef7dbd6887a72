"""FedM2CT: two rounds by hand in float64, its ablations, and what never leaves whom."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from physfed_ray.data.dataset import training_batches
from physfed_ray.data.store import read_client_data, write_client_data
from physfed_ray.federation.flat import FlatState
from physfed_ray.federation.serving import evaluate_all
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch
from physfed_ray.front_ends.base import FRONT_END, FrontEnd, FrontEndSettings, Scanners
from physfed_ray.methods.fedm2ct import FedM2CT
from physfed_ray.models.base import NetworkSettings
from physfed_ray.rundir.run_directory import RunDirectory, client_file
from physfed_ray.seeds import generator
from tests.data.test_prepare import make_experiment
from tests.federation.test_members import with_server
from tests.federation.test_rounds import Run
from tests.front_ends.test_iradonmap import with_sinograms
from tests.methods.by_hand import SevenNumbers, assert_equal

MakeSpec = Callable[..., Spec]
LR, SCALE, A, B, ETA = 0.05, 0.1, 0.5, 0.25, 0.4
SETTINGS = {
    "condition_dim": 3,
    "condition_lr_scale": SCALE,
    "mutual_private": A,
    "mutual_shared": B,
    "meta_weight": ETA,
}
Numbers = dict[str, Tensor]


class Brighter(nn.Module):
    """(1 + w) times the scanner's image."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> Tensor:
        """Make the image."""
        return batch.low * (1 + self.w)


class OneNumber(FrontEnd):
    """A front end that learns one number."""

    name, title, paper = "one_number", "one number", "none"

    def module(self, scanners: Scanners) -> nn.Module:
        """See ``FrontEnd``."""
        return Brighter()


def federation(make_spec: MakeSpec, *, bare: bool = False, **more: Any) -> Spec:
    """Return three clients and a server, of few numbers; ``bare``: the last has no full dose."""
    training = {"rounds": 2, "batch_size": 3, "local_epochs": 2, "optimizer": "sgd", "lr": LR}
    settings = SETTINGS | more.pop("settings", {})
    plain = make_spec("fedm2ct", unseen=0, settings=settings, **training | more)
    spec = with_server(plain, FedM2CT) if plain.method.trains_on_server else plain
    protocols = tuple(client.protocol for client in spec.clients)
    task = replace(
        spec.method.task,
        backbone=SevenNumbers(NetworkSettings()),
        front_end=OneNumber(FrontEndSettings()),
        scanners=Scanners(protocols, spec.simulation, spec.window_hu),
    )
    spec = replace(spec, method=FedM2CT(spec.method.settings, task))
    return without_full_dose(spec, 2) if bare else spec


def without_full_dose(spec: Spec, client: int) -> Spec:
    """Take the full dose from a client."""
    path = spec.files[client].train
    assert path is not None
    data = read_client_data(path)
    write_client_data(path, replace(data, full=np.full_like(data.full, np.nan)))
    clients = list(spec.clients)
    clients[client] = replace(clients[client], labels=False)
    return replace(spec, clients=tuple(clients))


# The same by hand: neither the method nor any module is used.


def image(p: Numbers, part: str, x: Tensor, alpha: Tensor | None = None, beta: Any = 0) -> Tensor:
    """D . (u x + b) + e of one network, modulated behind both convolutions."""
    alpha = torch.ones(len(x), 3).double() if alpha is None else alpha
    beta = torch.zeros(len(x), 3).double() if alpha is None or isinstance(beta, int) else beta
    u, b = p[f"{part}encoder.layer.weight"].view(2), p[f"{part}encoder.layer.bias"]
    d, e = p[f"{part}decoder.layer.weight"].view(2), p[f"{part}decoder.layer.bias"]
    f = x * u[:, None, None] + b[:, None, None]
    f = alpha[:, :2, None, None] * f + beta[:, :2, None, None]
    y = (d[:, None, None] * f).sum(1, keepdim=True) + e
    return alpha[:, 2:, None, None] * y + beta[:, 2:, None, None]


def phi(p: Numbers, x: Tensor, g: Tensor) -> Tensor:
    """The shared network, told g."""
    layers = ("hidden", "to_code", "to_modulation")
    c = (g - 0.5) / 0.25
    for k, layer in enumerate(layers):
        w, b = p[f"condition.{layer}.weight"], p[f"condition.{layer}.bias"]
        c = (c if k == 0 else c.relu()) @ w.T + b
    return image(p, "", x, *c.chunk(2, -1))


def of_client(p: Numbers, x: Tensor, y: Tensor, g: Tensor) -> Tensor:
    """Both losses of a client with full dose, each in the other's gradient a constant."""
    u = (1 + p["front_end.w"]) * x
    private, shared = image(p, "private_", u), phi(p, u.detach(), g)
    return (
        ((private - y) ** 2).mean()
        + A * ((private - shared.detach()) ** 2).mean()
        + ((shared - y) ** 2).mean()
        + B * ((shared - private.detach()) ** 2).mean()
    )


def of_bare_client(p: Numbers, x: Tensor, y: Tensor, g: Tensor) -> Tensor:
    """The private network towards what the shared one makes of the scanner's own image."""
    private = image(p, "private_", (1 + p["front_end.w"]) * x)
    return ((private - phi(p, x, g).detach()) ** 2).mean()


def of_server(p: Numbers, x: Tensor, y: Tensor, g: Tensor) -> Tensor:
    """The shared network's error on the server's images."""
    return ((phi(p, x, g) - y) ** 2).mean()


def batches(spec: Spec, member: int, number: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    (path,) = spec.trained_on(member)
    for batch in training_batches(
        read_client_data(path),
        batch_size=spec.training.batch_size,
        patch=None,
        patches_per_slice=1,
        epochs=spec.training.local_epochs,
        rng=generator(spec.seed, number, spec.members[member].id, "batches"),
    ):
        yield batch.low.double(), batch.full.double(), batch.g.double()


def trained(spec: Spec, member: int, number: int, start: Numbers, loss: Callable) -> Numbers:
    """Return all numbers of a member after its steps of gradient descent."""
    p = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    for x, y, g in batches(spec, member, number):
        gradients = torch.autograd.grad(loss(p, x, y, g), list(p.values()), allow_unused=True)
        for (name, tensor), gradient in zip(p.items(), gradients, strict=True):
            if gradient is not None:
                tensor.data -= LR * (SCALE if name.startswith("condition.") else 1) * gradient
    return {name: tensor.detach() for name, tensor in p.items()}


def is_shared(name: str) -> bool:
    return name.split(".")[0] in ("encoder", "decoder", "condition")


@pytest.mark.parametrize("meta_from", ["broadcast", "own"])
def test_two_rounds_by_hand(make_spec: MakeSpec, tmp_path: Path, meta_from: str) -> None:
    root = tmp_path / "run"
    spec = federation(make_spec, bare=True, settings={"meta_from": meta_from}, run_root=root)
    run = Run(spec).go()
    network = spec.method.build(spec.seed)
    start = {
        name: tensor.detach().double()
        for name, tensor in network.named_parameters()
        if not name.startswith("meta.")
    }
    shared = {name: tensor for name, tensor in start.items() if is_shared(name)}
    private = [{n: t for n, t in start.items() if not is_shared(n)} for _ in range(3)]
    psi = shared
    for number in (1, 2):
        after = [
            trained(spec, k, number, shared | private[k], of_bare_client if k == 2 else of_client)
            for k in range(3)
        ]
        own = psi if meta_from == "own" else shared
        psi = {n: t for n, t in trained(spec, 3, number, own, of_server).items() if is_shared(n)}
        mean = {name: (after[0][name] + after[1][name]) / 2 for name in shared}
        shared = {name: (1 - ETA) * mean[name] + ETA * psi[name] for name in shared}
        private = [{n: t for n, t in numbers.items() if not is_shared(n)} for numbers in after]
    named = FlatState(network, spec.method.shared).named(torch.from_numpy(run.vector.copy()))
    assert named.keys() == shared.keys()
    for name, tensor in shared.items():
        assert_equal(named[name].double(), tensor)
    for k, numbers in enumerate(private):
        kept = RunDirectory(root).read_tensors(client_file(2, f"c{k + 1}"))
        assert float(numbers["front_end.w"]) != 0
        for name, tensor in numbers.items():
            assert_equal(kept[name].double(), tensor)


def test_the_shared_network_leaves_the_reconstruction_alone(make_spec: MakeSpec) -> None:
    """With a = 0 and a private network that is right already, nothing pulls at the front end."""
    spec = federation(make_spec, settings={"mutual_private": 0.0, "mutual_shared": 0.0})
    network = spec.method.build(1)
    data = read_client_data(*spec.trained_on(0))
    batch = next(training_batches(data, batch_size=3, patch=None, patches_per_slice=1, epochs=1,
                                  rng=np.random.default_rng(0)))  # fmt: skip
    seen = spec.method.read(network, replace(batch, protocol=spec.clients[0].protocol))
    right = replace(seen, full=spec.method._private(network, seen).detach())
    loss, parts = spec.method.loss(network, right, spec.clients[0])
    loss.backward()
    assert float(parts["mse"]) == 0
    assert float(parts["shared_mse"]) > 0
    front_end = network.get_submodule(FRONT_END)
    assert isinstance(front_end, Brighter)
    assert front_end.w.grad == 0


def test_without_its_three_parts_it_is_fedavg(make_spec: MakeSpec) -> None:
    off = {"mutual": False, "meta": False, "condition": False}
    ours = federation(make_spec, settings=off)
    plain = make_spec("fedavg", unseen=0)
    fedavg = type(plain.method)(plain.method.settings, ours.method.task)
    theirs = replace(ours, method=fedavg)
    assert Run(ours).go().vector.tobytes() == Run(theirs).go().vector.tobytes()


def test_at_the_full_weight_the_server_s_model_is_what_is_broadcast(make_spec: MakeSpec) -> None:
    """And at none, it is the clients' mean, as if the server had no images."""
    whole, none, without = (
        Run(federation(make_spec, rounds=1, settings=settings)).go().vector
        for settings in ({"meta_weight": 1.0}, {"meta_weight": 0.0}, {"meta": False})
    )
    spec = federation(make_spec, rounds=1)
    network = spec.method.build(spec.seed)
    shared = {n: t.detach().double() for n, t in network.named_parameters() if is_shared(n)}
    psi = trained(spec, 3, 1, shared, of_server)
    named = FlatState(network, spec.method.shared).named(torch.from_numpy(whole.copy()))
    for name, tensor in named.items():
        assert_equal(tensor.double(), psi[name])
    np.testing.assert_array_equal(none, without)


def test_a_round_of_bare_clients_alone_leaves_the_mean_as_it_is(make_spec: MakeSpec) -> None:
    spec = federation(make_spec, bare=True, rounds=1, settings={"meta": False})
    for client in (0, 1):
        spec = without_full_dose(spec, client)
    start = FlatState(spec.method.build(spec.seed), spec.method.shared).vector
    np.testing.assert_array_equal(Run(spec).go().vector, start.numpy())


def test_only_image_networks_and_condition_are_shared(make_spec: MakeSpec) -> None:
    spec = federation(make_spec)
    entries = FlatState(spec.method.build(1), spec.method.shared).entries
    assert {entry.name.split(".")[0] for entry in entries} == {"encoder", "decoder", "condition"}


def test_another_scanner_is_served_by_the_shared_network_told_its_g(make_spec: MakeSpec) -> None:
    spec = federation(make_spec)
    network = spec.method.build(3)
    with torch.no_grad():
        for parameter in network.get_submodule("condition").parameters():
            parameter.add_(0.1)
    data = read_client_data(*spec.trained_on(0))
    batch = next(training_batches(data, batch_size=2, patch=None, patches_per_slice=1, epochs=1,
                                  rng=np.random.default_rng(0)))  # fmt: skip
    with torch.no_grad():
        visited = spec.method.denoise(network, batch)
        own = spec.method.denoise(network, replace(batch, protocol=spec.clients[0].protocol))
    p = {name: tensor.detach().double() for name, tensor in network.named_parameters()}
    x, g = batch.low.double(), batch.g.double()
    assert_equal(visited.double(), phi(p, x, g))
    assert_equal(own.double(), image(p, "private_", x))
    assert not torch.allclose(phi(p, x, g), phi(p, x, g + 0.3))


def test_a_server_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"method\.meta: fedm2ct trains .*data\.server_patients"):
        make_experiment(tmp_path, method={"name": "fedm2ct"})
    make_experiment(tmp_path, method={"name": "fedm2ct", "meta": False})


@pytest.mark.parametrize("hosts", [2, 4])
def test_bits_do_not_depend_on_who_hosts_whom(
    make_spec: MakeSpec, tmp_path: Path, hosts: int
) -> None:
    """With sinograms of different shapes, behind the real iRadonMAP, and the server a member."""
    settings = {"meta_from": "own"}
    plain = make_spec("fedm2ct", unseen=1, settings=settings, rounds=2)
    spec = with_server(with_sinograms(plain, tmp_path / "sinograms"), FedM2CT)
    spec = replace(spec, method=FedM2CT(spec.method.settings, spec.method.task))
    one, several = (Run(replace(spec, run_root=None), count).go() for count in (1, hosts))
    assert one.vector.tobytes() == several.vector.tobytes()
    assert evaluate_all(one.rounds).rows == evaluate_all(several.rounds).rows
