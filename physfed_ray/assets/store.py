"""Assets on disk: one safetensors file each, named by what is in it.

``<recipe>-<hash>.safetensors`` holds the frozen network, the constants of its recipe, and in its
header as JSON the settings, the data's hash, hashes of its patients and the scores. The hash in the
name is that of the file's bytes, so that a name stands for one network only.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor, nn

from physfed_ray.assets.base import Recipe, frozen
from physfed_ray.assets.registry import RECIPES
from physfed_ray.atomic import atomic_file
from physfed_ray.cache import cache_folder
from physfed_ray.checksum import checksum
from physfed_ray.errors import PhysFedError

CONSTANT = "constant:"
"""In front of the names of constants in the file."""
DIGITS = 12
ENDING = ".safetensors"
FOLDER_VARIABLE = "PHYSFED_ASSETS"
"""A further folder of assets: where a job of a cluster finds those that came with it."""
_ALSO_IN: dict[Path, None] = {}


@dataclass(frozen=True)
class About:
    """What an asset's file says of it.

    Attributes:
        recipe: Name of its recipe.
        settings: The recipe's, every key.
        image_size: Side of the images that it learned from, in pixels.
        window_hu: HU that were 0 and 1.
        data: Hash of the data, and whose they were, in words.
        patients: Content hashes of the patients that it learned from or was chosen by.
        training: Steps, batch size, learning rate, seed.
        scores: On held-out patients, by name.
        words: What the recipe's ``words`` returned.
        versions: Of the project and torch.
    """

    recipe: str
    settings: dict[str, Any]
    image_size: int
    window_hu: tuple[float, float]
    data: dict[str, Any] = field(default_factory=dict)
    patients: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asset:
    """A frozen network that was trained before.

    Attributes:
        path: Its file.
        about: What the file says of it.
    """

    path: Path
    about: About

    @property
    def name(self) -> str:
        """What experiments call it: its recipe and hash."""
        return self.path.stem

    def recipe(self) -> Recipe:
        """Return its recipe."""
        kind = RECIPES.find(self.about.recipe)
        return kind(kind.Settings.model_validate(self.about.settings))

    def network(self) -> nn.Module:
        """Return the network, frozen, on the CPU."""
        # By way of NumPy: tensors without content, on which operations are counted, need that.
        arrays = safetensors.numpy.load_file(self.path)
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        constants = {
            name.removeprefix(CONSTANT): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(CONSTANT)
        }
        network = frozen(self.recipe().network(constants))
        network.load_state_dict(tensors)
        return network


def write_asset(
    folder: Path, about: About, network: nn.Module, constants: Mapping[str, Tensor]
) -> Asset:
    """Write an asset into a folder under its own name, and return it.

    Args:
        folder: Where; made where it is missing.
        about: What the file says of it.
        network: As trained; what only training needs is taken off it.
        constants: What the recipe's ``constants`` returned.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in frozen(network).state_dict().items()
    } | {f"{CONSTANT}{name}": tensor.detach().cpu().clone() for name, tensor in constants.items()}
    content = safetensors.torch.save(tensors, {"asset": json.dumps(asdict(about), sort_keys=True)})
    path = folder / f"{about.recipe}-{checksum(content)[:DIGITS]}.safetensors"
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return Asset(path, about)


def assets_folder() -> Path:
    """Return the folder of assets that experiments name by their hash."""
    return cache_folder() / "assets"


def look_in(folder: Path) -> None:
    """Let this process find assets in a further folder, such as that of a run.

    A name stands for one content, so it does not matter which folder an asset is found in.
    """
    _ALSO_IN[folder.absolute()] = None


def name_of(reference: str) -> str:
    """Return the name that a reference, a name or a path, stands for."""
    return Path(reference).stem if reference.endswith(ENDING) else reference


def find_asset(reference: str | Path, folder: Path | None = None) -> Path:
    """Return where an asset lies, or would lie if there were one.

    Args:
        reference: As in ``read_asset``; where a path holds no file, its name is looked for.
        folder: As in ``read_asset``.
    """
    own = folder or assets_folder()
    path = Path(reference)
    if path.suffix != ENDING:
        path = own / f"{reference}{ENDING}"
    elif path.is_file():
        return path
    further = os.environ.get(FOLDER_VARIABLE)
    places = [own, *_ALSO_IN, *([Path(further).absolute()] if further else [])]
    return next((p for place in places if (p := place / path.name).is_file()), path)


def read_asset(reference: str | Path, folder: Path | None = None) -> Asset:
    """Return an asset by its name or path.

    Args:
        reference: ``<recipe>-<hash>``, or the path of a file.
        folder: Where assets of a name lie; ``assets_folder()`` by default, then those of
            ``look_in``.

    Raises:
        PhysFedError: There is none, or the file is no asset or damaged.
    """
    path = find_asset(reference, folder)
    try:
        content = path.read_bytes()
        with safetensors.safe_open(path, "numpy") as file:
            said = json.loads((file.metadata() or {})["asset"])
        about = _about(said)
    except FileNotFoundError:
        raise PhysFedError(
            f"there is no asset {path}: train it with `physfed pretrain`, or name another"
        ) from None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise PhysFedError(f"{path} is no asset of `physfed pretrain` ({error})") from None
    if not path.stem.endswith(checksum(content)[:DIGITS]):
        raise PhysFedError(
            f"{path} is damaged or renamed: its bytes do not give the hash in its name; "
            "train it again with `physfed pretrain`, or copy it again"
        )
    return Asset(path, about)


def _about(said: dict[str, Any]) -> About:
    """Return what JSON says of an asset; JSON has no tuples."""
    low, high = said["window_hu"]
    words = {name: tuple(found) for name, found in said["words"].items()}
    again = {"window_hu": (low, high), "patients": tuple(said["patients"]), "words": words}
    return About(**{**said, **again})


def all_assets(folder: Path | None = None) -> list[Asset]:
    """Return the assets of a folder, ``assets_folder()`` by default, by name; no other files."""
    found = []
    for path in sorted((folder or assets_folder()).glob(f"*{ENDING}")):
        with suppress(PhysFedError):
            found.append(read_asset(path))
    return found
