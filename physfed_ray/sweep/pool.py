"""The runs of a sweep at work: each a process, never more than fit, their data prepared once."""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Literal

from physfed_ray.data.pseudonyms import pseudonymous
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment
from physfed_ray.runtime.run import ClusterShare
from physfed_ray.suites.child import Child, Work
from physfed_ray.suites.suite import SuiteRun
from physfed_ray.suites.tasks import data_key
from physfed_ray.sweep.folder import Folder

Place = Literal["ray", "inline"]
TICK_S = 1.0
DATA = "data"
"""Name of a preparation."""


@dataclass(frozen=True)
class Setup:
    """Where a sweep runs.

    Attributes:
        folder: Where it lies.
        runtime: "ray" or "inline", for every run.
        address: Ray cluster to join; None starts one for the whole sweep.
        jobs: Trials side by side; None: what the sweep file says.
        time_budget_s: No trial begins, or goes on, after so many seconds.
        resume: Go on with the study that is in the folder.
        command: The command line, for the record.
    """

    folder: Folder
    resume: bool = False
    runtime: Place = "ray"
    address: str | None = None
    jobs: int | None = None
    time_budget_s: float | None = None
    command: str = ""


@dataclass
class Wanted:
    """A run that is to be done, and who hears of it."""

    name: str
    run: SuiteRun
    tested: bool
    hear: Callable[[Event], None]


class TrialPool:
    """Runs at work, each in a process, never more than ``jobs``; data are prepared once.

    Args:
        setup: Where they run.
        address: Ray cluster that they join.
        jobs: Processes side by side.
        on_event: Receives ``progress`` events.
    """

    def __init__(
        self, setup: Setup, address: str | None, jobs: int, on_event: Callable[[Event], None]
    ) -> None:
        self._setup, self._address, self.jobs, self._on_event = setup, address, jobs, on_event
        self._prepared: set[str] = set()
        self._waiting: list[Wanted] = []
        self._active: dict[Connection, tuple[Child, Wanted | None, str]] = {}

    @property
    def free(self) -> int:
        """How many more runs there is room for."""
        return (
            self.jobs - len(self._waiting) - sum(w is not None for _, w, _ in self._active.values())
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is at work or waits."""
        return not (self._waiting or self._active)

    def add(self, wanted: Wanted) -> None:
        """Begin a run as soon as its data are there."""
        self._waiting.append(wanted)
        self._begin()

    def hear(self) -> None:
        """Wait a moment for events, and hand them on."""
        for connection in wait(list(self._active), TICK_S):
            assert isinstance(connection, Connection)
            if connection not in self._active:  # what came before has stopped it
                continue
            child, wanted, key = self._active[connection]
            event = child.receive()
            if event["event"] == "end":
                del self._active[connection]
                if wanted is None:
                    self._end_preparation(key, event)
            if wanted is not None:
                wanted.hear(event)
            self._on_event({"event": "progress", "name": wanted.name if wanted else DATA,
                            "inner": event})  # fmt: skip
        self._begin()

    def drop(self, name: str) -> None:
        """Stop a run."""
        self._waiting = [wanted for wanted in self._waiting if wanted.name != name]
        for connection, (child, wanted, _) in list(self._active.items()):
            if wanted is not None and wanted.name == name:
                del self._active[connection]
                child.stop()

    def stop(self) -> None:
        """Stop everything; what was done stays."""
        self._waiting.clear()
        for child, _, _ in self._active.values():
            child.stop()
        self._active.clear()

    def _begin(self) -> None:
        preparing = any(wanted is None for _, wanted, _ in self._active.values())
        for wanted in list(self._waiting):
            key = data_key(wanted.run.experiment)
            if key in self._prepared:
                self._waiting.remove(wanted)
                self._start(wanted, key)
            elif not preparing:  # one at a time: it takes the whole machine by itself
                preparing = True
                self._start(None, key, wanted.run.experiment)

    def _start(self, wanted: Wanted | None, key: str, experiment: Experiment | None = None) -> None:
        setup = self._setup
        run = wanted.run if wanted else None
        experiment = experiment or run.experiment  # type: ignore[union-attr]
        if self._prepared:  # the study keeps why a trial failed: that must name no patient
            experiment = pseudonymous(experiment)
        log = setup.folder.local / "logs" / f"{wanted.name if wanted else DATA}.log"
        child = Child(
            Work(
                experiment,
                None if run is None else setup.folder.run(run.path),
                setup.runtime,
                self._address,
                setup.command,
                log,
                tested=wanted is not None and wanted.tested,
                share=ClusterShare(self.jobs, setup.folder.local / ".placing"),
            )
        )
        self._active[child.events] = child, wanted, key

    def _end_preparation(self, key: str, event: Event) -> None:
        if event["outcome"] == "done":
            self._prepared.add(key)
            return
        if not self._prepared:  # it would go no better with the next trial
            raise PhysFedError(event["text"])
        for wanted in [w for w in self._waiting if data_key(w.run.experiment) == key]:
            self._waiting.remove(wanted)
            wanted.hear(event)
