"""What must hold for every registered method with every backbone."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.flat import private_parts
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import Aggregation, ClientInfo
from physfed_ray.methods.registry import METHODS
from physfed_ray.models.base import DiffusionBackbone, NetworkSettings
from physfed_ray.models.registry import BACKBONES, make_backbone
from physfed_ray.objectives.registry import make_objective
from tests.assets.leda.tiny import tiny_asset

every_method = pytest.mark.parametrize("name", METHODS)
NETWORKS = [
    (name, backbone)
    for name, method in METHODS.items()
    for backbone in BACKBONES
    if method.refuses(make_backbone(backbone)) is None
]
every_network = pytest.mark.parametrize(("name", "backbone"), NETWORKS)
WITH_CODEBOOK = {name for name, kind in METHODS.items() if kind.codes is not Method.codes}
"""Features travel, to the client with the nearest code."""
OWN_AGGREGATION = {n for n, kind in METHODS.items() if kind.aggregate is not Method.aggregate}
""".. with tests of their own."""


def assert_equal_but_for_rounding(actual, expected):
    """Compare on the scale of the largest value: a sum in another order rounds elsewhere."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual / scale, expected / scale)


@every_method
def test_says_what_it_is(name):
    method = METHODS[name]
    assert method.name == name
    assert method.title
    assert method.paper
    assert method.group in ("generic", "personalised", "bound")
    assert inspect.getmodule(method).__doc__


@every_method
def test_settings_are_documented_and_closed(name):
    schema = METHODS[name].Settings
    assert all(field.description for field in schema.model_fields.values())
    with pytest.raises(ValueError, match="no_such_key"):
        schema(no_such_key=1)


@every_network
def test_shared_children_exist(name, backbone, make_method):
    method = make_method(name, backbone=backbone)
    network = method.build(1)
    children = dict(network.named_children())
    without = {"encoder"} if isinstance(method.task.backbone, DiffusionBackbone) else set()
    assert {
        part for part in method.shared if not list(network.get_submodule(part).parameters())
    } <= without
    assert set(method.training_only) <= children.keys() - set(method.shared)
    assert set(method.learning_rate_scale) <= children.keys()


@every_network
@pytest.mark.parametrize("tokens", [1, 8])
def test_gradients_reach_every_parameter(
    name, backbone, tokens, make_method, make_batch, begin, shake
):
    method = make_method(name, tokens, backbone)
    network = shake(method.build(1))
    torch.manual_seed(5)  # a diffusion network draws a step, not its first here
    loss, _ = method.loss(network, make_batch(tokens), begin(method, network))
    loss.backward()
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    dead = [n for n, p in trained if p.grad is None or not p.grad.any()]
    assert dead == []


@every_network
def test_starts_as_the_identity(name, backbone, make_method, make_batch):
    method, batch = make_method(name, backbone=backbone), make_batch()
    assert torch.equal(method.denoise(method.build(1), batch), batch.low)


@every_network
def test_loss_falls(name, backbone, make_method, make_batch, begin):
    method, batch = make_method(name, backbone=backbone), make_batch()
    batch = replace(batch, full=batch.low.roll(1, -1))
    network = method.build(1)
    state = begin(method, network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(5)  # a diffusion network draws a step
        loss, parts = method.loss(network, batch, state)
        assert not any(part.requires_grad for part in parts.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(parts["mse"]))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("objective", ["ssim_mixed", "leda"])
@every_method
def test_the_objective_is_a_part_of_every_loss(
    name, objective, make_task, make_batch, begin, tmp_path
):
    kind, batch = METHODS[name], make_batch(side=28)
    settings = (
        {"asset": str(tiny_asset(tmp_path).path), "base": "l1"} if objective == "leda" else {}
    )
    task = replace(make_task(), objective=make_objective(objective, **settings))
    task.objective.prepare("cpu")
    method = kind(kind.Settings(), task)
    network = method.build(1)  # the identity: what is denoised is the low dose
    loss, parts = method.loss(network, batch, begin(method, network))
    expected, own = task.objective(batch.low, batch)
    assert {part: parts[part] for part in own} == own
    assert "mse" not in parts
    assert not any(part.requires_grad for part in parts.values())
    assert float(loss.detach()) >= float(expected)


@every_network
def test_seed_decides_the_weights(name, backbone, make_method):
    method = make_method(name, backbone=backbone)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (method.build(seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_equal_children_start_equal_in_all_methods(make_method):
    networks = [make_method(name).build(4) for name in METHODS]
    for child in ("encoder", "decoder"):
        states = [n.get_submodule(child).state_dict() for n in networks]
        for state in states[1:]:
            both = state.keys() & states[0].keys()
            assert both
            assert all(torch.equal(state[key], states[0][key]) for key in both)


@every_network
def test_weights_may_be_views_of_a_flat_vector(name, backbone, make_method, make_batch, shake):
    method, batch = make_method(name, backbone=backbone), make_batch()
    network = shake(method.build(1)).eval()
    expected = method.denoise(network, batch)
    flat = torch.cat([p.detach().flatten() for p in network.parameters()])
    place = 0
    for parameter in network.parameters():
        parameter.data = flat[place : place + parameter.numel()].view(parameter.shape)
        place += parameter.numel()
    assert_equal_but_for_rounding(method.denoise(network, batch), expected)
    flat.zero_()
    assert torch.equal(method.denoise(network, batch), batch.low)


@every_network
def test_channels_last_input_changes_nothing(name, backbone, make_method, make_batch, shake):
    method, batch = make_method(name, backbone=backbone), make_batch()
    network = shake(method.build(1)).eval()
    last = replace(batch, low=batch.low.to(memory_format=torch.channels_last))
    assert_equal_but_for_rounding(method.denoise(network, last), method.denoise(network, batch))


@every_network
def test_autocast_stays_close(name, backbone, make_method, make_batch, shake):
    method, batch = make_method(name, backbone=backbone), make_batch()
    network = shake(method.build(1)).eval()
    expected = method.denoise(network, batch)
    with torch.autocast("cpu", torch.bfloat16):
        denoised = method.denoise(network, batch)
    assert denoised.dtype == torch.float32
    change = (expected - batch.low).abs().mean()
    assert bool((denoised - expected).abs().mean() < 0.03 * change)


@pytest.mark.parametrize(("name", "backbone"), [p for p in NETWORKS if p[0] in WITH_CODEBOOK])
def test_features_need_shared_children_alone(name, backbone, make_method, make_batch):
    method = make_method(name, backbone=backbone)
    network = method.build(1)
    for path in private_parts(network, method.shared):
        for parameter in network.get_submodule(path).parameters():
            parameter.data.fill_(torch.nan)
    assert all(bool(f.isfinite().all()) for f in method.features(network, make_batch()))


@every_network
def test_says_whether_it_reads_reports(name, backbone, make_method, make_batch, shake):
    method, batch = make_method(name, backbone=backbone), make_batch()
    network = shake(method.build(1)).eval()
    unknown = replace(batch, embedding=torch.full_like(batch.embedding, torch.nan))
    read = not bool(method.denoise(network, unknown).isfinite().all())
    assert read == ("embedding" in method.reads())
    assert set(method.reads()) <= set(method.fields)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "fedfdd"])
def test_patch_is_denoised_as_in_its_image(name, make_method, make_batch, shake):
    """Without padding, which changes features near a patch's edge; FedFDD's bands are global."""
    method = make_method(name, backbone="red_cnn")
    network = shake(method.build(1)).eval()
    whole = make_batch(side=36)
    part = replace(whole, low=whole.low[:, :, 3:33, 2:34], origin=torch.tensor([[3, 2], [3, 2]]))
    inside, crop = method.features(network, part)[0], method.features(network, whole)[0]
    torch.testing.assert_close(inside, crop[:, :, 3 : 3 + 10, 2 : 2 + 12], atol=1e-5, rtol=1e-4)


@every_method
def test_weight_of_a_client(name, make_method):
    method = make_method(name)
    client = ClientInfo(0, "c1", PRESETS["paper-1"], 12)
    assert method.weight(client) == 1.0
    if isinstance(method.settings, MethodSettings):
        assert make_method(name, weights="samples").weight(client) == 12.0


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OWN_AGGREGATION])
def test_aggregation_defaults_to_the_mean(name, make_method):
    method, mean = make_method(name), np.array([1.5, -2.0], np.float32)
    client = ClientInfo(0, "c1", PRESETS["paper-1"], 12)
    new, extras = method.aggregate(
        Aggregation(1, np.zeros(2, np.float32), mean, (client,), {"c1": 1.0}, {}, dict)
    )
    assert np.array_equal(new, mean)
    assert not extras


@every_network
def test_inspection_is_numbers(name, backbone, make_method, make_batch):
    method = make_method(name, backbone=backbone)
    network = method.build(1)
    codes = method.codes(network, torch.rand(3, 7))
    state = method.inspect(network, make_batch())
    state |= method.inspect_codes(network, codes if codes is not None else torch.zeros(3, 1))
    assert all(isinstance(value, float) for value in state.values())


class Gain(nn.Module):
    """A decoder of one parameter, with which it multiplies the image in two steps."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, f, skips):
        """Sample."""
        return f * self.gain * self.gain


class TwoSteps(DiffusionBackbone):
    """Trains one of its two steps, so that its loss is not that of what it samples."""

    name = "two_steps"
    title = "two steps"
    paper = "none"
    norms = ("norms",)
    guide = "layer"
    skips = (0,)
    steps = 2

    def decoder(self):
        """See ``Backbone``."""
        return Gain()

    def fit(self, decoder, batch, judge):
        """See ``DiffusionBackbone``."""
        return judge(batch.low * decoder.gain, batch)

    def images(self, decoder, low):
        """See ``DiffusionBackbone``."""
        return [low * decoder.gain, decoder(low, ())]


@every_method
def test_shares_a_diffusion_network_or_refuses_it(name, make_task, make_batch, begin):
    kind, batch = METHODS[name], make_batch()
    task = replace(make_task(), backbone=TwoSteps(NetworkSettings()))
    if not kind.diffusion:
        with pytest.raises(PhysFedError, match="diffusion network 'two_steps' has none"):
            kind(kind.Settings(), task)
        return
    method = kind(kind.Settings(), task)
    network = method.build(1)
    loss, parts = method.loss(network, batch, begin(method, network))
    own = (batch.low * 0.5 - batch.full).square().mean()
    torch.testing.assert_close(parts["mse"], own)
    torch.testing.assert_close(loss.detach(), own)  # FedProx has not moved yet
    torch.testing.assert_close(method.denoise(network, batch), batch.low / 4)


def test_averaging_whole_networks_is_what_shares_a_diffusion_network():
    sharing = {name for name, kind in METHODS.items() if kind.diffusion}
    assert sharing == {"fedavg", "fedprox", "fednova", "local", "pooled"}
