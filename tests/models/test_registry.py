"""What must hold for every registered backbone, and one from another package."""

import inspect
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.fields import Batch
from physfed_ray.methods.given import Task
from physfed_ray.methods.registry import METHODS
from physfed_ray.models.base import Backbone
from physfed_ray.models.frequency import add_guide
from physfed_ray.models.registry import BACKBONES, make_backbone, parameter_counts
from physfed_ray.runtime.run import run_experiment
from tests.outside import install

every_backbone = pytest.mark.parametrize("name", BACKBONES)


def small(name: str) -> Backbone:
    """Return a narrow backbone."""
    return make_backbone(name, channels=4)


def halves(backbone: Backbone) -> tuple[nn.Module, nn.Module]:
    """Return a new encoder and decoder."""
    return backbone.encoder(0.3, 0.2), backbone.decoder()


def some(backbone: Backbone, x: Tensor) -> Batch:
    """Return a batch of images (B, 1, h, w) with random fields, 0.5 to 1."""
    extra = {name: 0.5 + torch.rand_like(x) / 2 for name in backbone.fields}
    tokens, origin = torch.ones(len(x), 1, 4), torch.zeros(len(x), 2, dtype=torch.int64)
    mask = torch.ones(len(x), 1, dtype=torch.bool)
    return Batch(x, x, torch.rand(len(x), 7), tokens, mask, origin, x.shape[-1], extra)


@every_backbone
def test_says_what_it_is(name: str) -> None:
    backbone = BACKBONES[name]
    assert backbone.name == name
    assert backbone.title
    assert backbone.paper
    assert inspect.getmodule(backbone).__doc__
    assert all(field.description for field in backbone.Settings.model_fields.values())
    with pytest.raises(ValueError, match="no_such_key"):
        backbone.Settings(no_such_key=1)


@every_backbone
@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
def test_encodes_as_it_declares_and_starts_as_the_image_that_it_names(
    name: str, size: tuple[int, int]
) -> None:
    backbone = small(name)
    encoder, decoder = halves(backbone)
    x = torch.rand(2, 1, *size)
    batch = some(backbone, x)
    f, skips = encoder(*backbone.inputs(batch))
    assert f.shape[:2] == (2, backbone.feature_channels)
    assert [skip.shape[1] for skip in skips] == [count or 1 for count in backbone.skips]
    images = [s for s, count in zip(skips, backbone.skips, strict=True) if count == 0]
    assert all(torch.equal(image, batch[backbone.start]) for image in images[:1])
    assert torch.equal(decoder(f, skips), batch[backbone.start])


@every_backbone
def test_stride_is_the_distance_of_features(name: str) -> None:
    backbone = small(name)
    encoder = backbone.encoder(0.0, 1.0)
    side = [
        encoder(*backbone.inputs(some(backbone, torch.rand(1, 1, n, n))))[0].shape[-1]
        for n in (64, 128)
    ]
    assert (128 - 64) / (side[1] - side[0]) == backbone.stride


@every_backbone
def test_has_places_for_normalisations_where_it_says_so(name: str) -> None:
    backbone = small(name)
    for make in (lambda: backbone.encoder(0.3, 0.2), backbone.decoder):
        torch.manual_seed(1)
        plain = make()
        torch.manual_seed(1)
        normed = backbone.add_norms(make())
        added = [path for path, module in normed.named_modules()
                 if isinstance(module, nn.BatchNorm2d)]  # fmt: skip
        assert {path.split(".")[0] for path in added} == set(backbone.norms)
        before, after = plain.state_dict(), normed.state_dict()
        assert all(torch.equal(after[key], before[key]) for key in before.keys() & after.keys())
        own = [k for k in after if k.split(".")[0] in backbone.norms]
        assert not set(own) & before.keys()


@every_backbone
def test_reads_a_guide_where_it_says_so(name: str) -> None:
    backbone = small(name)
    if backbone.guide is None:
        pytest.skip("has no layer that could read a guide")
    torch.manual_seed(1)
    plain = backbone.encoder(0.3, 0.2)
    torch.manual_seed(1)
    guided = add_guide(backbone.encoder(0.3, 0.2), backbone.guide)
    both = torch.rand(1, 2, 40, 40)
    with torch.no_grad():
        first = guided(both)[0]
        other = guided(torch.cat((both[:, :1], 1 - both[:, 1:]), 1))[0]
    assert first.shape == plain(both[:, :1])[0].shape
    assert not torch.allclose(first, other)


def test_red_cnn_has_the_papers_size() -> None:
    encoder, decoder = halves(make_backbone())
    counts = parameter_counts(torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder}))
    assert counts == {
        "encoder": 96 * 26 + 4 * 96 * (96 * 25 + 1),
        "decoder": 4 * 96 * (96 * 25 + 1) + 96 * 25 + 1,
    }


@pytest.mark.parametrize(
    ("name", "keys", "expected", "label"),
    [
        ("red_cnn", {}, {"channels": 96}, "red_cnn with 96 channels"),
        ("red_cnn", {"channels": 32}, {"channels": 32}, "red_cnn with 32 channels"),
        ("red_cnn", {"size": None}, {"channels": 96}, "red_cnn with 96 channels"),
        ("uformer", {}, {"size": "T", "channels": 16}, "uformer T with 16 channels"),
        ("uformer", {"size": "S"}, {"size": "S", "channels": 32}, "uformer S with 32 channels"),
        ("uformer", {"size": "B", "channels": 8}, {"size": "B", "channels": 8},
         "uformer B with 8 channels"),
    ],
)  # fmt: skip
def test_a_network_brings_its_own_defaults(
    name: str, keys: dict[str, object], expected: dict[str, object], label: str
) -> None:
    backbone = make_backbone(name, **keys)
    assert backbone.settings.model_dump() == expected
    assert make_backbone(name, **expected).settings == backbone.settings
    assert backbone.label == label


def test_sizes_differ_in_their_depths() -> None:
    counts = []
    for size in ("S", "B"):
        both = torch.nn.ModuleList(halves(make_backbone("uformer", size=size, channels=2)))
        counts.append(sum(parameter.numel() for parameter in both.parameters()))
    assert counts[0] < counts[1]


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("uformer", {"size": "L"}, "uformer has the sizes T, S, B: set 'size'"),
        ("uformer", {"size": None}, "uformer has the sizes T, S, B: set 'size'"),
        ("uformer", {"size": ["T"]}, "uformer has the sizes T, S, B: set 'size'"),
        ("uformer", {"channels": 0}, "greater than or equal to 1"),
        ("red_cnn", {"size": "T"}, "size"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(
    name: str, keys: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words) as refused:
        make_backbone(name, **keys)
    assert refused.value.error_count() == 1


def test_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PhysFedError, match=r"unknown backbone 'red_cn' \(did you mean 'red_cnn'"):
        make_backbone("red_cn")


THEIRS = """
from pydantic import Field
from torch import nn
from torch.nn import functional
from physfed_ray.models.base import Backbone, NetworkSettings


class Settings(NetworkSettings):
    width: int = Field(3, ge=1, description="feature channels")


class Encoder(nn.Module):
    def __init__(self, width, mean, std):
        super().__init__()
        self.mean, self.std = mean, std
        self.read = nn.Conv2d(1, width, 4, stride=4)

    def forward(self, x):
        return self.read((x - self.mean) / self.std), (x,)


class Decoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.write = nn.ConvTranspose2d(width, 1, 4, stride=4)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, f, skips):
        return self.write(functional.relu(f)) + skips[0]


class Ours(Backbone):
    name = "patches"
    title = "Patches"
    paper = "theirs"
    Settings = Settings
    stride = 4

    @property
    def feature_channels(self):
        return self.settings.width

    @property
    def skips(self):
        return (0,)

    def encoder(self, mean, std):
        return Encoder(self.settings.width, mean, std)

    def decoder(self):
        return Decoder(self.settings.width)
"""

EXPERIMENT = """
name: theirs
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 4, slices: 1}}
  image_size: 32
  test_patients: 1
  validation_patients: 1
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
backbone: {name: patches, width: 5}
method: {name: scan_physfed}
training: {rounds: 1, batch_size: 2}
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a backbone without norms, guide or channels; return an experiment with it."""
    install(tmp_path / "site", monkeypatch, THEIRS, (BACKBONES, {"patches": "Ours"}))
    path = tmp_path / "theirs.yaml"
    path.write_text(EXPERIMENT)
    return path


def test_another_packages_backbone_trains_a_round(theirs: Path, tmp_path: Path) -> None:
    experiment = load_experiment(theirs, [f"data.cache={tmp_path / 'cache'}"])
    assert experiment.backbone.model_dump() == {"name": "patches", "width": 5}
    out = tmp_path / "out"
    run_experiment(experiment, out, runtime="inline", tested=False)
    rows = pq.read_table(out / "metrics.parquet").to_pylist()
    trained = {row["client"] for row in rows if (row["split"], row["metric"]) == ("train", "mse")}
    assert {"c1", "c2"} <= trained


def task(backbone: Backbone) -> Task:
    """Return a small task."""
    return Task(32, 2, 0.0, 1.0, 1, 4, (0.0,) * 4, (1.0,) * 4, backbone)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_it_or_says_in_a_sentence_why_not(theirs: Path, name: str) -> None:
    backbone, kind = make_backbone("patches"), METHODS[name]
    if kind.refuses(backbone) is not None:
        assert name in ("fedbn", "fedfdd")
        with pytest.raises(PhysFedError, match="'patches'"):
            load_experiment(theirs, [f"method={name}"])
        return
    method = kind(kind.Settings(), task(backbone))
    network, x = method.build(1), torch.rand(2, 1, 32, 32)
    assert torch.equal(method.denoise(network, some(backbone, x)), x)


@pytest.mark.usefixtures("theirs")
def test_a_wider_teacher_needs_a_network_that_has_a_width() -> None:
    fedkd = METHODS["fedkd"]
    with pytest.raises(PhysFedError, match="'patches' has no key 'channels'"):
        fedkd(fedkd.Settings(teacher_channels=8), task(make_backbone("patches")))
