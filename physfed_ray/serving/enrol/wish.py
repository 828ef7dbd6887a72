"""What is asked for when a client is enrolled, and whether it can be had."""

import re
from dataclasses import dataclass
from typing import Literal

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.settings import LONGEST_NAME, NAME
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.enrol.card import enrolled_names
from physfed_ray.serving.enrol.patients import Dealing
from physfed_ray.serving.trained import TrainedRun


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        protocol: A name or a file, as ``protocol_file.named_or_read`` takes it.
        dealing: Whose patients.
        name: The new client's; None: ``new-1``, or the first such name that is free.
        rounds: Rounds at most; None: as many as the run was to make.
        patience: Rounds without a better validation after which training ends.
        curve: Numbers of training patients to learn from beside all of them; None: 1, 2, 4, ...
        start: Private weights to start from, where the method has such: ``initial``, which nobody
            has to give, or those of the ``nearest`` client, which then leave it.
        device: ``cpu`` or ``cuda``; None: CUDA where it is.
        threads: CPU threads; None: the run's.
        again: Whether a client of that name may be replaced.
        known_patients: Whether patients of the run's own data may come again.
        one_shot: Whether the client only weights the steps of a diffusion network, after one slice.
    """

    protocol: str
    dealing: Dealing
    name: str | None = None
    rounds: int | None = None
    patience: int = 10
    curve: tuple[int, ...] | None = None
    start: Literal["initial", "nearest"] = "initial"
    device: str | None = None
    threads: int | None = None
    again: bool = False
    known_patients: bool = False
    one_shot: bool = False


def free_name(run: TrainedRun, directory: RunDirectory, wish: Wish) -> str:
    """Return the client's name.

    Raises:
        PhysFedError: It is no name, or taken.
    """
    there = enrolled_names(directory)
    if wish.name is None:
        taken = {*there, *run.clients}
        return next(f"new-{n}" for n in range(1, len(taken) + 2) if f"new-{n}" not in taken)
    if not re.fullmatch(NAME, wish.name) or len(wish.name) > LONGEST_NAME:
        raise PhysFedError(
            f"'{wish.name}' is no name for a client: give letters, digits, '.', '_' and '-', at "
            f"most {LONGEST_NAME} of them, a letter or digit first"
        )
    if wish.name in run.clients:
        raise PhysFedError(
            f"'{wish.name}' is a training client of {directory.root}: give another --id"
        )
    if wish.name in there and not wish.again:
        raise PhysFedError(
            f"'{wish.name}' is enrolled in {directory.root} already: give another --id, or --again "
            "to replace it"
        )
    return wish.name


def curve(patients: int, wanted: tuple[int, ...] | None) -> list[int]:
    """Return the numbers of training patients to learn from, ascending; the last is all of them.

    Raises:
        PhysFedError: There are not as many.
    """
    if wanted is None:
        wanted = tuple(2**k for k in range(patients.bit_length()))
    if beyond := [count for count in wanted if not 1 <= count <= patients]:
        raise PhysFedError(
            f"--curve {beyond[0]} is not possible: the client has {patients} training patients"
        )
    return sorted({*wanted, patients})
