"""Assets on disk: named by what is in them, read back bit for bit, refused when damaged."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from physfed_ray.assets.base import Examples, Recipe
from physfed_ray.assets.registry import RECIPES
from physfed_ray.assets.store import About, read_asset, write_asset
from physfed_ray.errors import PhysFedError


class Scale(Recipe):
    """One number, and what only its training needs."""

    name = "scale"
    title = "a scale"
    paper = "nobody's"

    def network(self, constants: Mapping[str, Tensor]) -> nn.Module:
        """Return a linear layer over a table."""
        network = nn.Module()
        network.layer = nn.Linear(3, 2)
        network.register_buffer("table", constants["table"])
        network.training_only = nn.Linear(2, 2)
        return network

    def loss(
        self, network: nn.Module, examples: Examples, step: int, turn: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return nothing to learn."""
        return torch.zeros(()), {}

    def scores(self, network: nn.Module, held_out: Sequence[Examples]) -> dict[str, float]:
        """Return no score."""
        return {}


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(RECIPES._own, "scale", f"{__name__}:Scale")
    RECIPES.__dict__.pop("_entries", None)
    yield
    RECIPES.__dict__.pop("_entries", None)


ABOUT = About(
    "scale", {}, 64, (-1000.0, 2000.0), patients=("p",), scores={"psnr": 30.0}, words={"t": ("a",)}
)


def test_an_asset_is_read_back_without_what_only_training_needs(tmp_path: Path) -> None:
    constants = {"table": torch.arange(3.0)}
    network = Scale(Scale.Settings()).network(constants)
    weight = network.layer.weight.detach().clone()
    written = write_asset(tmp_path, ABOUT, network, constants)
    asset = read_asset(written.name, tmp_path)
    read = asset.network()
    assert asset.about == ABOUT
    assert torch.equal(read.layer.weight, weight)
    assert torch.equal(read.table, constants["table"])
    assert not hasattr(read, "training_only")
    assert not read.training
    assert not any(p.requires_grad for p in read.parameters())


def test_equal_networks_have_one_name_and_others_another(tmp_path: Path) -> None:
    constants = {"table": torch.zeros(3)}
    network = Scale(Scale.Settings()).network(constants)
    first = write_asset(tmp_path, ABOUT, network, constants)
    assert write_asset(tmp_path, ABOUT, network, constants).name == first.name
    network.layer.weight.add_(1)
    assert write_asset(tmp_path, ABOUT, network, constants).name != first.name


def test_a_damaged_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    constants = {"table": torch.zeros(3)}
    written = write_asset(tmp_path, ABOUT, Scale(Scale.Settings()).network(constants), constants)
    content = bytearray(written.path.read_bytes())
    content[-1] ^= 1
    written.path.write_bytes(content)
    with pytest.raises(PhysFedError, match="damaged or renamed"):
        read_asset(written.path)
    with pytest.raises(PhysFedError, match=r"no asset .*physfed pretrain"):
        read_asset("scale-000000000000", tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"no tensors")
    with pytest.raises(PhysFedError, match=r"foreign\.safetensors is no asset"):
        read_asset(foreign)
