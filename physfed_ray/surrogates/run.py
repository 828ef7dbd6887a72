"""The study: for every seed and beta the surrogates, who learns from them, and who breaks them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physfed_ray.atomic import atomic_file
from physfed_ray.device import torch_threads
from physfed_ray.events import Event
from physfed_ray.seeds import derive_seed
from physfed_ray.surrogates.attacks import amplitude_features, chance, re_identified
from physfed_ray.surrogates.diagnosis import Examples, balanced_accuracy, train_federated
from physfed_ray.surrogates.file import SurrogateFile
from physfed_ray.surrogates.images import as_images
from physfed_ray.surrogates.inversion import (
    alikeness,
    correlations,
    inverted,
    regressed,
    train_inverter,
)
from physfed_ray.surrogates.mixing import low_frequencies, mix, most_alike, unmixed
from physfed_ray.surrogates.networks import UNet
from physfed_ray.surrogates.quality import enhance, train_quality
from physfed_ray.surrogates.rows import ATTACK, Cell, Rows, settle
from physfed_ray.surrogates.tasks import NO_LABEL, plant_lesions, region_labels
from physfed_ray.surrogates.world import World, make_hosts, make_world

HOSTS_ALONE = 0.0
EXAMPLES = "examples"
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Maker:
    """Makes the surrogates of one seed and beta.

    Attributes:
        file: The study.
        world: The seed's.
        beta: Share of the patients' amplitudes; 0 shows the hosts as they are.
    """

    file: SurrogateFile
    world: World
    beta: float

    def surrogates(self, images: Tensor) -> Tensor:
        """Return the surrogates of all slices, (N, 1, n, n), in place of whose images these are."""
        mixed = mix(self.world.hosts[self.world.shown], images, self.file.alpha, self.beta)
        if self.generator is None:
            return mixed
        return enhance(self.generator, mixed, images, self.file.alpha, self.beta)

    @cached_property
    def generator(self) -> UNet | None:
        """The quality network, trained on the training slices' surrogates; None without one."""
        if self.file.quality is None or self.beta == HOSTS_ALONE:
            return None
        world, train = self.world, list(self.world.train)
        mixed = mix(
            world.hosts[world.shown[train]], world.images[train], self.file.alpha, self.beta
        )
        seed = derive_seed(world.seed, f"{self.beta:g}")
        return train_quality(mixed, world.hosts[list(world.train_hosts)], self.file.quality, seed)


def cells(file: SurrogateFile) -> Iterator[Cell]:
    """Yield what a study measures, in the order in which it does."""
    for seed in file.seeds:
        yield from (Cell(seed, task, None) for task in file.tasks)
        for beta in (HOSTS_ALONE, *sorted(file.betas)):
            yield Cell(seed, ATTACK, beta)
            yield from (Cell(seed, task, beta) for task in file.tasks)


def run_study(file: SurrogateFile, out: Path, on_event: OnEvent | None = None) -> Rows:
    """Measure what a folder lacks.

    Args:
        file: The study.
        out: Its folder; what it has measured already is not measured again.
        on_event: Receives ``{"event": "cell", "cell": Cell, "done": int, "total": int}`` after
            every cell, also once at the start with the cell None.

    Raises:
        PhysFedError: The folder belongs to other settings, or the data do not suffice.
    """
    settle(out, file)
    rows, wanted = Rows.read(out), list(cells(file))
    todo = [cell for cell in wanted if cell not in rows.values]
    done = len(wanted) - len(todo)
    _tell(on_event, None, done, len(wanted))
    if not todo:
        return rows
    with torch_threads(file.threads):
        hosts = make_hosts(file)
        for seed in dict.fromkeys(cell.seed for cell in todo):
            world = make_world(file, seed, hosts)
            maker: Maker | None = None
            for cell in (cell for cell in todo if cell.seed == seed):
                if cell.beta is not None and (maker is None or maker.beta != cell.beta):
                    maker = Maker(file, world, cell.beta)
                rows.add(cell, _measured(cell, file, world, maker, out))
                done += 1
                _tell(on_event, cell, done, len(wanted))
    return rows


def _tell(on_event: OnEvent | None, cell: Cell | None, done: int, total: int) -> None:
    if on_event is not None:
        on_event({"event": "cell", "cell": cell, "done": done, "total": total})


def _measured(
    cell: Cell, file: SurrogateFile, world: World, maker: Maker | None, out: Path
) -> dict[str, float]:
    if cell.task != ATTACK:
        return diagnosed(cell.task, file, world, maker if cell.beta is not None else None)
    assert maker is not None  # attacks are on surrogates
    return attacked(maker, out if cell.seed == file.seeds[0] else None)


def diagnosed(
    task: str, file: SurrogateFile, world: World, maker: Maker | None
) -> dict[str, float]:
    """Return how well a task is learned.

    Args:
        task: Its name.
        file: The study.
        world: Of the seed.
        maker: Of the surrogates to learn from; None: learn from the patients' own images.
    """
    if task == "region":
        labels, names = region_labels(world.slices, world.train, world.test)
        images, classes = world.images, len(names)
    else:
        hu, labels = plant_lesions(world.slices, file.lesion, world.seed)
        images, classes = as_images(hu, file.data.window_hu), 2
    seen = images if maker is None else maker.surrogates(images)
    train = list(world.train)
    seen = (seen - seen[train].mean()) / seen[train].std()
    number = torch.from_numpy(labels)

    def examples(slices: tuple[int, ...]) -> Examples:
        kept = [k for k in slices if labels[k] != NO_LABEL]
        return seen[kept], number[kept]

    network = train_federated(
        [examples(client) for client in world.clients],
        classes,
        file.training,
        derive_seed(world.seed, task),
    )
    return {
        "accuracy": balanced_accuracy(network, examples(world.test)),
        "chance": 1 / classes,
        "test_slices": float(len(examples(world.test)[1])),
    }


def attacked(maker: Maker, out: Path | None) -> dict[str, float]:
    """Return what attackers find in surrogates.

    Args:
        maker: Of the surrogates.
        out: Folder for the images of one slice; None: write none.
    """
    world, file = maker.world, maker.file
    surrogates = maker.surrogates(world.images)
    features = amplitude_features(low_frequencies(surrogates, file.alpha))
    train, test = list(world.train), list(world.test)
    truth = world.images[test]
    seed = derive_seed(world.seed, f"{maker.beta:g}")
    network = train_inverter(surrogates[train], world.images[train], file.attack, seed)
    shown = most_alike(surrogates, world.hosts)
    bare = unmixed(surrogates, world.hosts[shown], file.alpha, maker.beta)
    bare_features = amplitude_features(bare)
    found = {
        "unet": inverted(network, surrogates[test]),
        "ridge": regressed(features[train], world.images[train], features[test]),
        "ridge_hosts": regressed(bare_features[train], world.images[train], bare_features[test]),
        "mean": world.images[train].mean(dim=0).expand_as(truth),
        "region_mean": _region_means(world),
        "host": world.hosts[world.shown[test]],
        "surrogate": surrogates[test],
    }
    if out is not None:
        _keep_example(out, maker, surrogates, {name: found[name] for name in ("unet", "ridge")})
    likeness = {
        f"{name}_{measure}": value
        for name, images in found.items()
        for measure, value in alikeness(images, truth).items()
    }
    kept = alikeness(surrogates[test], world.hosts[world.shown[test]])
    gallery = amplitude_features(low_frequencies(world.images, file.alpha))
    whose = world.slices.patients
    return likeness | {
        "reid": re_identified(features, gallery, whose),
        "reid_known_hosts": re_identified(bare_features, gallery, whose),
        "reid_chance": chance(whose),
        "hosts_found": float((shown == world.shown).double().mean()),
        "host_kept_ssim": kept["ssim"],
    }


def _region_means(world: World) -> Tensor:
    """Return for every test slice the mean training image of its region, of all without one."""
    regions = np.array(world.slices.regions)
    train = np.array(world.train)
    means = []
    for k in world.test:
        alike = train[regions[train] == regions[k]] if regions[k] else train
        means.append(world.images[alike if len(alike) else train].mean(dim=0))
    return torch.stack(means)


def _keep_example(out: Path, maker: Maker, surrogates: Tensor, found: dict[str, Tensor]) -> None:
    """Write the images of the test slice that looks least like its host."""
    world = maker.world
    test = list(world.test)
    place = int(correlations(world.hosts[world.shown[test]], world.images[test]).argmin())
    k = test[place]
    images = {
        "patient": world.images[k],
        "host": world.hosts[world.shown[k]],
        "surrogate": surrogates[k],
        **{name: image[place] for name, image in found.items()},
    }
    with (
        atomic_file(out / EXAMPLES / f"beta-{maker.beta:g}.npz") as path,
        path.open("wb") as stream,
    ):
        arrays: dict[str, Any] = {name: x[0].numpy() for name, x in images.items()}
        np.savez_compressed(stream, **arrays)
