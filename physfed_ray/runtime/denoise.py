"""Series denoised on a Ray cluster: batches stream through a pool of actors with slices of GPUs.

Every batch is cut as in one process and computed with as many threads, so that the files have the
same bytes. Actors read and write by themselves, on the machines that see the folders.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_put,
)

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.local_files import local_path
from physfed_ray.runtime.cluster import alive_nodes, connect
from physfed_ray.runtime.prepare import nodes_with
from physfed_ray.runtime.reports import quiet
from physfed_ray.serving.parts import Outcome, Part, PartMaker, part_maker
from physfed_ray.serving.wanted import Wanted

RETRIES = 2
"""How often a part is begun again whose actor died; Ray by itself would repeat it without end."""
_numbers = count(1)
"""Of the actors that this process has named."""


@dataclass(frozen=True)
class DenoisePool:
    """Actors on a cluster; called as ``serving.parts.here`` is.

    Attributes:
        actors: How many, None for all that fit.
        gpus: GPUs of each, may be a fraction.
    """

    actors: int | None
    gpus: float

    @classmethod
    def on(cls, address: str, actors: int | None, gpus: float | None) -> "DenoisePool":
        """Join a cluster and settle what was left open.

        Args:
            address: Of the cluster; ``local`` starts Ray on this machine.
            actors: How many, None for all that fit.
            gpus: GPUs of each, None for 1 where there are any.

        Raises:
            PhysFedError: There is no cluster, or it has no such machines.
        """
        connect(None if address == "local" else address)
        most = max((node.get("GPU", 0.0) for node in alive_nodes()), default=0.0)
        each = gpus if gpus is not None else float(most > 0)
        if each > most:
            raise PhysFedError(
                f"--gpus-per-actor {each:g}, but no machine of the Ray cluster has more than "
                f"{most:g} GPUs: lower it, or leave it out"
            )
        return cls(actors, each)

    @property
    def device(self) -> str:
        """What actors compute on."""
        return "cuda" if self.gpus else "cpu"

    def __call__(
        self, wanted: Wanted, expected: str, out: Path, parts: Sequence[Part]
    ) -> Iterator[Outcome]:
        """Make parts in any order.

        Raises:
            PhysFedError: No machine sees the folders or has room, a part fails, or its actors die.
        """
        paths = {header.path for part in parts for header in part.slices}
        nodes = _nodes_that_see(wanted, out, paths)
        size = min(len(parts), self.actors or self._room(nodes, wanted.threads))
        names: list[str] = []
        try:
            rows = _pipeline(self, wanted, expected, out, parts, nodes, size, names)
            for row in rows.iter_rows():
                left_out, notes = (_counted(row[name]) for name in ("left_out", "notes"))
                yield Outcome(row["slices"], row["made"], row["there"], left_out, notes)
        except ray.exceptions.RayTaskError as error:
            raise _sentence(error) from error
        except ray.exceptions.RayError as error:
            raise PhysFedError(
                f"an actor that denoised died again and again ({type(error).__name__}): give "
                "fewer --actors or a smaller --batch, and the same command again, which goes on"
            ) from error
        finally:
            for name in names:  # after an error Ray Data may leave some
                with suppress(ValueError):
                    ray.kill(ray.get_actor(name))

    def _room(self, nodes: Sequence[str], threads: int) -> int:
        """Return how many actors the machines carry."""
        there = [n["Resources"] for n in ray.nodes() if n["Alive"] and n["NodeID"] in nodes]  # type: ignore[no-untyped-call]
        rooms = []
        for node in there:
            room = int(node.get("CPU", 0.0) // threads)
            if self.gpus:
                gpus = int(node.get("GPU", 0.0))
                carried = gpus * int(1 / self.gpus + 1e-9) if self.gpus <= 1 else gpus // self.gpus
                room = min(room, int(carried))
            rooms.append(room)
        if sum(rooms) < 1:
            raise PhysFedError(
                f"no machine of the Ray cluster that sees the images has room for an actor with "
                f"{threads} CPU(s) and {self.gpus:g} GPU(s): lower --threads or --gpus-per-actor"
            )
        return sum(rooms)


def _nodes_that_see(wanted: Wanted, out: Path, paths: set[Path]) -> list[str]:
    """Return the machines where the images, the run and the output are, at the same places.

    Raises:
        PhysFedError: None is.
    """
    run = local_path(wanted.run)
    read = Path(os.path.commonpath([path.parent for path in paths]))
    places = [out, read] if run is None else [out, read, run]
    found = set.intersection(*(set(nodes_with(folder)) for folder in places))
    if not found:
        raise PhysFedError(
            "no machine of the Ray cluster sees IN, OUT and the run directory at the same paths "
            "as this one: put them on a shared disk, or leave --address out"
        )
    return sorted(found)


def _pipeline(
    pool: DenoisePool,
    wanted: Wanted,
    expected: str,
    out: Path,
    parts: Sequence[Part],
    nodes: Sequence[str],
    size: int,
    names: list[str],
) -> Any:
    """Return the Ray Data pipeline: one row a part.

    Args:
        pool: What each actor takes.
        wanted: The model.
        expected: Its hash.
        out: The folder.
        parts: What to make.
        nodes: Ids of the machines that may.
        size: How many actors.
        names: Gets the name of every actor that is started.
    """
    import ray.data as data

    run = uuid4().hex[:8]

    def of_actor() -> dict[str, Any]:
        names.append(f"denoiser-{run}-{next(_numbers)}")
        return {"name": names[-1]}

    everything = ray.put(list(parts))
    rows = data.from_items([{"part": index} for index in range(len(parts))])
    made = rows.repartition(len(parts)).map_batches(
        DenoiseActor,
        fn_constructor_args=(wanted, expected, out, [everything], pool.gpus, run),
        batch_size=1,
        batch_format="pandas",
        compute=data.ActorPoolStrategy(size=size),
        num_cpus=wanted.threads,
        num_gpus=pool.gpus,
        label_selector={"ray.io/node-id": f"in({','.join(nodes)})"},
        max_restarts=-1,
        ray_remote_args_fn=of_actor,
    )
    return quiet(made)


class DenoiseActor:
    """Makes parts in an actor, on its slice of a GPU.

    Args:
        wanted: The model.
        expected: Its hash.
        out: The folder.
        parts: A list of one reference to all parts, which every machine holds once.
        gpus: GPUs of the actor; below 1 it may not use more of the GPU's memory than that share.
        call: What no other call's parts are counted under.
    """

    def __init__(
        self, wanted: Wanted, expected: str, out: Path, parts: list[Any], gpus: float, call: str
    ) -> None:
        self._wanted, self._expected, self._out, self._gpus = wanted, expected, out, gpus
        self._call = call
        self._parts: Sequence[Part] = ray.get(parts[0])
        self._maker: PartMaker | None = None

    def __call__(self, batch: Any) -> dict[str, Any]:
        """Make the parts of a batch."""
        if self._maker is None:  # with the first batch, whose failure reaches the caller
            if 0 < self._gpus < 1:
                import torch

                torch.cuda.set_per_process_memory_fraction(self._gpus)
            self._maker = part_maker(self._wanted, self._expected, self._out)
        made = [self._make(int(index)) for index in batch["part"]]
        return {
            "slices": [outcome.slices for outcome in made],
            "made": [outcome.made for outcome in made],
            "there": [outcome.there for outcome in made],
            "left_out": [_written(outcome.left_out) for outcome in made],
            "notes": [_written(outcome.notes) for outcome in made],
        }

    def _make(self, index: int) -> Outcome:
        """Make a part, unless it has killed its actors before."""
        assert self._maker is not None
        key = f"{self._call}/{index}"
        begun = int(_internal_kv_get(key) or 0)
        if begun > RETRIES:
            raise PhysFedError(
                f"{self._parts[index].series} ended its actor {begun} times, perhaps for want of "
                "memory: give fewer --actors or a smaller --batch in a new folder"
            )
        _internal_kv_put(key, str(begun + 1))
        outcome = self._maker(self._parts[index])
        _internal_kv_del(key)
        return outcome


def _written(counts: Counter[str]) -> str:
    return "\n".join(f"{number} {what}" for what, number in counts.items())


def _counted(text: str) -> Counter[str]:
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return Counter({what: int(number) for number, what in pairs})


def _sentence(error: ray.exceptions.RayTaskError) -> PhysFedError:
    cause = error.cause
    if isinstance(cause, PhysFedError):
        return PhysFedError(str(cause).splitlines()[0])
    return PhysFedError(
        f"denoising on Ray failed ({type(cause).__name__}): repeat it without --address to see "
        "the whole error"
    )
