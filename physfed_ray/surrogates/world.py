"""All that one seed of a surrogate study decides before anything is mixed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from physfed_ray.data.patient import PatientSource
from physfed_ray.data.split import deal
from physfed_ray.seeds import generator
from physfed_ray.surrogates.file import SurrogateFile
from physfed_ray.surrogates.images import Slices, as_images, phantoms, read_slices, source_of


@dataclass(frozen=True)
class World:
    """Patients, hosts, and who has which.

    Attributes:
        seed: Of all of it.
        slices: The patients' slices, N.
        images: As networks see them, (N, 1, n, n) float32 in [0, 1].
        hosts: The collection, (M, 1, n, n) float32 in [0, 1].
        shown: Which host each slice's surrogate shows, (N,) int64.
        clients: Numbers of each client's slices.
        train: Numbers of all clients' slices.
        test: Numbers of the test patients' slices.
        train_hosts: Which hosts surrogates of training slices may show; those of test slices show
            the others.
    """

    seed: int
    slices: Slices
    images: Tensor
    hosts: Tensor
    shown: Tensor
    clients: tuple[tuple[int, ...], ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    train_hosts: tuple[int, ...]


def make_world(file: SurrogateFile, seed: int, painted: Slices) -> World:
    """Read or paint patients, and deal them and the hosts out.

    Args:
        file: The study.
        seed: One of its seeds.
        painted: What ``make_hosts`` returned.

    Raises:
        PhysFedError: There are too few patients, or one cannot be read.
    """
    source = source_of(file.data, seed)
    clients, test = _dealt(file, source, seed)
    ids = [patient for group in (*clients, test) for patient in group]
    slices = read_slices(source, ids, file.data)
    of_patient = {patient: number for number, patient in enumerate(ids)}
    whose = np.array(slices.patients)

    def numbers(group: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(np.flatnonzero(np.isin(whose, [of_patient[p] for p in group])).tolist())

    owned, tested = tuple(map(numbers, clients)), numbers(test)
    train = tuple(k for group in owned for k in group)
    early = tuple(np.flatnonzero(np.array(painted.patients) < file.hosts.patients // 2).tolist())
    return World(
        seed=seed,
        slices=slices,
        images=as_images(slices.hu, file.data.window_hu),
        hosts=as_images(painted.hu, file.data.window_hu),
        shown=_shown(len(slices), len(painted), train, early, seed),
        clients=owned,
        train=train,
        test=tested,
        train_hosts=early,
    )


def _dealt(
    file: SurrogateFile, source: PatientSource, seed: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Return the patients of every client, and those of the test."""
    limit = file.data.slices_per_patient
    counts = {p: min(source.slice_count(p), limit or 10**9) for p in source.ids()}
    wanted = {f"client {number}": None for number in range(1, file.clients + 1)}
    split = deal(counts, wanted, file.data.test_patients, 0, seed)
    return tuple(split.train.values()), split.test


def make_hosts(file: SurrogateFile) -> Slices:
    """Paint the collection of hosts, the same for every seed."""
    hosts = file.hosts
    source = phantoms(hosts.patients, hosts.slices, hosts.seed, file.data.image_size)
    data = file.data.model_copy(update={"slices_per_patient": None})
    return read_slices(source, source.ids(), data)


def _shown(
    slices: int, hosts: int, train: tuple[int, ...], early: tuple[int, ...], seed: int
) -> Tensor:
    """Draw a host for every slice, whatever the slice shows."""
    rng = generator(seed, "shown")
    late = np.setdiff1d(np.arange(hosts), early)
    shown = rng.choice(late, slices)
    shown[list(train)] = rng.choice(np.array(early), len(train))
    return torch.from_numpy(shown.astype(np.int64))
