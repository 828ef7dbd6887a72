"""What has to hold before a run begins, or goes on, in its directory."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from physfed_ray.data.pseudonyms import pseudonymous, pseudonymous_keys
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, Training
from physfed_ray.experiment.differences import differences
from physfed_ray.rundir.data_record import (
    DataRecord,
    difference,
    difference_over_seeds,
    read_record,
)
from physfed_ray.rundir.lock import alone
from physfed_ray.rundir.run_directory import RunDirectory, require_empty

LEFT_BY_RUNS = ("checkpoints", "checksums.json", "experiment.yaml", "run.log", ".lock", "lock.json")
"""Files and folders by which a run directory is known, also of a run that was killed early."""
ROUNDS = "training.rounds"
"""The key that decides the result and that resume may yet raise."""


def open_run(
    directory: RunDirectory,
    experiment: Experiment,
    resume: bool,
    tell: Callable[[str], None],
    stack: ExitStack,
) -> None:
    """Take a run directory for this process alone, to begin a run there or to go on with it.

    Args:
        directory: The directory; closed with the stack.
        experiment: The experiment, patients by their pseudonyms.
        resume: Whether the run goes on.
        tell: Receives lines of text.
        stack: Gives the directory free.

    Raises:
        PhysFedError: Another process has it, or the run cannot begin or go on there.
    """
    begun = check_place(directory, resume)
    directory.guard = stack.enter_context(alone(directory.root, tell))
    stack.callback(directory.close)
    directory.notice = tell
    if resume and not begun:
        tell(f"{directory.root} holds no run to resume: one begins there")
    if directory.unchecked is not None:
        tell(directory.unchecked)
    check_directory(directory, experiment, resume)


def check_place(directory: RunDirectory, resume: bool) -> bool:
    """Say whether a run was begun in a directory.

    Raises:
        PhysFedError: It is a file, or a run is to be resumed in a folder of other files.
    """
    path = directory.local_path
    if path is not None and path.exists() and not path.is_dir():
        raise PhysFedError(f"{directory.root} is a file, not a run directory: choose another --out")
    names = directory.names()
    if not resume or not names:
        return bool(names)
    if not names & {*LEFT_BY_RUNS}:
        raise PhysFedError(
            f"{directory.root} holds other files ({', '.join(sorted(names)[:3])}), but no run to "
            "resume: give the run's own directory, or leave out --resume"
        )
    return True


def check_data(
    directory: RunDirectory,
    now: DataRecord | None,
    beside: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Refuse data that are not those that a run began with, or that others beside it have.

    Args:
        directory: The run directory.
        now: The data of now.
        beside: Other run directories; those without a record are passed over.
        tell: Receives one line where only the last bits differ.

    Raises:
        PhysFedError: They differ.
    """
    before = read_record(directory)
    if now is None:
        return
    if before is not None and (words := difference(before, now)):
        raise PhysFedError(
            f"the data of {directory.root} have changed since it began ({words}): resume with the "
            "data that it began with, or choose another --out"
        )
    if before is not None and before.scans != now.scans:
        tell("this machine makes other last bits of the scans than the one that began the run")
    for root in beside:
        with closing(RunDirectory(root)) as other:
            theirs = read_record(other)
        if theirs is None:
            continue
        same_seed = theirs.seed == now.seed
        words = (difference if same_seed else difference_over_seeds)(theirs, now)
        if words:
            raise PhysFedError(
                f"the data are not those of {root}, with which this run is to be compared "
                f"({words}): run all of them on the same data, under another --out"
            )


def check_directory(directory: RunDirectory, experiment: Experiment, resume: bool) -> None:
    """Refuse a directory that cannot be written to, or in which another run would be spoilt.

    Raises:
        PhysFedError: It is so.
    """
    directory.check()
    if not resume:
        require_empty(directory)
    elif directory.has("experiment.yaml"):
        check_settings(directory, experiment)


def check_settings(directory: RunDirectory, experiment: Experiment) -> None:
    """Refuse to go on with a run that was made with settings which give another result.

    Args:
        directory: The run directory.
        experiment: The experiment of now.

    Raises:
        PhysFedError: It was; more rounds alone are no other settings under the constant schedule.
    """
    before = pseudonymous_keys(directory.read_yaml("experiment.yaml"))
    if "object_scale" not in before.get("data", {}):
        raise PhysFedError(
            f"{directory.root} was made with the scanner of an earlier version, whose scans this "
            "version cannot make again: finish it with that version, or start a new run with "
            "another --out"
        )
    changed = differences(before, pseudonymous(experiment).model_dump(mode="json"))
    if others := [key for key in changed if key != ROUNDS]:
        salt = "; patients are compared by pseudonym, which PHYSFED_SALT decides"
        raise PhysFedError(
            f"{directory.root} was made with other settings ({', '.join(others)}): resume with "
            "the same experiment, or choose another --out"
            + (salt if any(key.endswith("patients") for key in others) else "")
        )
    if ROUNDS in changed:
        rounds = before.get("training", {}).get("rounds", Training().rounds)
        _check_rounds(directory.root, rounds, experiment.training)


def _check_rounds(root: str, before: int, training: Training) -> None:
    if training.rounds < before or training.schedule == "cosine":
        raise PhysFedError(
            f"{root} was made with {ROUNDS} = {before}, which resume can only "
            f"raise, and only under the constant schedule; now it is {training.rounds}"
        )
