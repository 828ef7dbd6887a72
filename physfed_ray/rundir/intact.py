"""The newest round of a run whose files are all as they were written."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.rundir import formats
from physfed_ray.rundir.background import WRITERS
from physfed_ray.rundir.long_table import METRIC_COLUMNS, METRICS_FILE, LongTable
from physfed_ray.rundir.manifest import PART_CURE, Manifest, manifest_name, round_name
from physfed_ray.rundir.run_directory import RunDirectory


@dataclass(frozen=True)
class Intact:
    """Where a run can go on.

    Attributes:
        manifest: Of the newest intact round; None where no round was ever completed.
        metrics: Of all rounds up to it.
        notices: What was passed over, a line each.
        mend: Whether ``metrics.parquet`` is to be written again.
    """

    manifest: Manifest | None
    metrics: LongTable
    notices: tuple[str, ...] = ()
    mend: bool = False


def newest_intact(directory: RunDirectory) -> Intact:
    """Find the newest round whose manifest and parts are all as they were written.

    Every part is read once, several at a time: the rate is that of the disk, or of SHA-256. The
    manifests of damaged rounds are deleted, so that nobody else takes them for completed.

    Raises:
        PhysFedError: Rounds were completed, and none of them is intact.
    """
    notices: list[str] = []
    damaged: list[int] = []
    unfinished = 0
    for number in directory.rounds():
        if not directory.exists(manifest_name(number)):
            unfinished = unfinished or number
            continue
        try:
            manifest = directory.manifest(number)
            check_parts(directory, manifest)
            metrics, mend = _metrics(directory, manifest)
        except DamagedError as error:
            notices.append(error.fault)
            damaged.append(number)
            continue
        if number < unfinished and _has_parts(directory, unfinished):
            notices.append(f"round {unfinished} is not complete (it has no state.json)")
        if notices:
            notices[-1] += f": going on after round {number}, the newest intact one"
        directory.withdraw(damaged)
        return Intact(manifest, metrics, tuple(notices), mend or bool(damaged))
    if damaged or (unfinished and directory.settled(METRICS_FILE)):
        found = "; ".join(notices[:3]) or f"{directory.root}/checkpoints has no state.json"
        raise PhysFedError(
            f"no round of {directory.root} is intact ({found}): restore the run directory from a "
            "copy, or begin anew with another --out"
        )
    return Intact(None, LongTable())


def check_parts(directory: RunDirectory, manifest: Manifest) -> None:
    """Compare all parts of a round with their checksums.

    Raises:
        DamagedError: One is gone, or not as it was written.
    """

    def check(part: tuple[str, str | None]) -> None:
        name, expected = part
        if expected is None:  # of an earlier version: at least it can be read
            directory.read_tensors(name)
        else:
            directory.read_part(name, expected)

    parts = dict.fromkeys(_unsummed(directory, manifest), None) | dict(manifest.parts)
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(check, parts.items()):
            pass


def _unsummed(directory: RunDirectory, manifest: Manifest) -> Iterable[str]:
    """Return the files of a manifest without checksums: of private states all must be there."""
    for name in sorted(manifest.files()):
        if not name.endswith(".safetensors") or f"{round_name(0)}/" in name:
            continue
        if "/clients/" in name or directory.exists(name):
            yield name


def _metrics(directory: RunDirectory, manifest: Manifest) -> tuple[LongTable, bool]:
    """Return a round's metrics, and whether the file for readers is to be mended."""
    own = f"{round_name(manifest.round)}/{METRICS_FILE}"
    if own not in manifest.parts:  # of an earlier version
        table, mend = directory.read_table(METRICS_FILE), False
    else:
        content = directory.read_part(own, manifest.parts[own])
        table = formats.table_of(content, f"{directory.root}/{own}", PART_CURE, METRIC_COLUMNS)
        mend = bool(directory.problems([METRICS_FILE]))
    table.truncate(manifest.round)
    return table, mend


def _has_parts(directory: RunDirectory, number: int) -> bool:
    return any(
        directory.exists(f"{round_name(number)}/{name}")
        for name in ("server.safetensors", METRICS_FILE)
    )
