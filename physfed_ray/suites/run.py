"""Run a suite: what is missing of it, several runs at a time, resumable at any point.

Every run is a process of its own, so that one that fails or is killed takes no other with it.
Nothing is kept that a restart would need: what is done is read from the run directories.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import mean

from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.rundir.local_files import local_path
from physfed_ray.suites.child import Child, Work
from physfed_ray.suites.resources import Place, alone, side_by_side
from physfed_ray.suites.state import Chosen, Standing, choose, record, standing, state_of
from physfed_ray.suites.suite import Suite, SuiteRun, Variant
from physfed_ray.suites.tasks import SuiteTask, tasks


@dataclass(frozen=True)
class SuiteResult:
    """What became of a suite.

    Attributes:
        chosen: What the trials said, by the name of the variant.
        failed: Why something is not done, by name.
        logs: Folder of what the runs have printed, None where the suite lies on a bucket.
    """

    chosen: Mapping[str, Chosen]
    failed: Mapping[str, str]
    logs: Path | None


@dataclass
class _Active:
    """A task at work, and how far it is."""

    task: SuiteTask
    child: Child
    began: float
    first: int
    rounds: int


@dataclass
class _Count:
    """How many runs and trials there are, and how many ended how."""

    total: int
    done: int
    failed: int = 0
    paces: dict[str, list[float]] = field(default_factory=dict)

    def learn(self, variant: Variant, seconds: float, rounds: int) -> None:
        """Remember how long a round of a method took."""
        if rounds > 0:
            self.paces.setdefault(variant.name, []).append(seconds / rounds)

    def seconds(self, variant: Variant, rounds: int) -> float | None:
        """Return how long rounds of a method may take; None before anything is known."""
        known = self.paces.get(variant.name) or [p for all_ in self.paces.values() for p in all_]
        return rounds * mean(known) if known else None


def run_suite(
    suite: Suite,
    out: str,
    *,
    jobs: int | None = None,
    runtime: Place = "ray",
    address: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    command: str = "",
) -> SuiteResult:
    """Run what is missing of a suite; a failed run does not stop the others.

    Args:
        suite: The suite.
        out: Its folder, a local path or an fsspec URL.
        jobs: Runs side by side; None: what this machine carries, and one on Ray.
        runtime: "ray" or "inline", for every run.
        address: Ray cluster to join; None starts one for each run.
        on_event: Receives ``begin``, ``progress``, ``end`` and ``chosen`` events.
        command: The command line, for the record.

    Raises:
        PhysFedError: A folder holds a run with other settings, another process is at work on this
            suite, or runs cannot share the machine as asked.
    """
    local = local_path(out)
    logs = None if local is None else local.absolute() / "logs"

    def work(task: SuiteTask) -> Work:
        log = None if logs is None else logs / f"{task.name.replace(' ', '_')}.log"
        root = None if task.run is None else f"{out}/{task.run.path}"
        trial = task.variant is not None and task.run in task.variant.trials
        return Work(
            task.experiment,
            root,
            runtime,
            address,
            command,
            log,
            tested=not trial,
            beside=_beside(suite, out, task),
        )

    # Idle OpenMP threads that spin would steal the cores from the other runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with alone(out):
        now = standing(suite, out)
        unfinished = [v for v in suite.variants if not all(now.states[r.path].done for r in v.runs)]
        number = side_by_side(unfinished, jobs, runtime, address)
        runner = _Runner(suite, out, now, work, number, on_event)
        runner.run()
    return SuiteResult(runner.chosen, runner.failed, logs)


def _beside(suite: Suite, out: str, task: SuiteTask) -> tuple[str, ...]:
    """Return the runs whose data must be those of a task: all that have its keys about data."""
    if task.run is None:
        return ()

    def data(run: SuiteRun) -> object:
        return run.experiment.model_dump(include={"data", "clients", "unseen"})

    own = data(task.run)
    return tuple(
        f"{out}/{run.path}" for run in suite.runs if run.path != task.run.path and data(run) == own
    )


def write_page(suite: Suite, out: str, result: SuiteResult) -> Path | None:
    """Compare the runs of a finished suite on one page in its folder, and return the page.

    Returns:
        None where a run failed, or where the folder is on a bucket.
    """
    folder = local_path(out)
    if result.failed or folder is None:
        return None
    from physfed_ray.pages.compare import compare

    return compare([folder / run.path for run in suite.runs], folder / f"{suite.name}.md")


class _Runner:
    """Works through the tasks of a suite.

    Args:
        suite: The suite.
        out: Its folder.
        now: Where it stands.
        work: Returns what a task's process does.
        jobs: Processes side by side.
        on_event: Receives progress events.
    """

    def __init__(
        self,
        suite: Suite,
        out: str,
        now: Standing,
        work: Callable[[SuiteTask], Work],
        jobs: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self._out, self._work, self._jobs, self._on_event = out, work, jobs, on_event
        self._states = dict(now.states)
        self.chosen: dict[str, Chosen] = dict(now.chosen)
        self.failed: dict[str, str] = {}
        self._todo = {task.name: task for task in tasks(suite, now)}
        self._active: dict[Connection, _Active] = {}
        left = {task.run.path for task in self._todo.values() if task.run is not None}
        settled = {path for path, state in now.states.items() if state.settled} - left
        self._count = _Count(total=len(left) + len(settled), done=len(settled))
        for variant in suite.variants:
            for run in (*variant.runs, *variant.trials):
                state = now.states[run.path]
                self._count.learn(variant, state.seconds, state.rounds if state.done else 0)
        for variant in suite.variants:
            if variant.name in self.chosen:
                self._record(variant)

    def run(self) -> None:
        """Do all that can be done."""
        try:
            while self._todo or self._active:
                self._start_ready()
                for connection in wait(list(self._active)) if self._active else ():
                    assert isinstance(connection, Connection)
                    self._hear(self._active[connection])
        finally:
            for active in self._active.values():
                active.child.stop()

    def _start_ready(self) -> None:
        for task in list(self._todo.values()):
            if len(self._active) >= self._jobs:
                return
            busy = {*self._todo, *(active.task.name for active in self._active.values())}
            lost = [name for name in task.needs if name in self.failed]
            if lost:
                del self._todo[task.name]
                self._fail(task, f"not begun, because of {lost[0]}")
            elif not any(name in busy for name in task.needs):
                del self._todo[task.name]
                self._start(task)

    def _start(self, task: SuiteTask) -> None:
        try:
            task, rounds = self._at_its_rate(task)
        except PhysFedError as error:
            self._fail(task, str(error))
            return
        if task.run is not None and rounds is None:  # complete, as the choice has confirmed
            self._count.done += 1
            return
        child = Child(self._work(task))
        now = time.monotonic()
        self._active[child.events] = active = _Active(task, child, now, rounds or 0, rounds or 0)
        self._tell("begin", active)

    def _at_its_rate(self, task: SuiteTask) -> tuple[SuiteTask, int | None]:
        """Return a task with the learning rate that was chosen for it, and its completed rounds.

        The rounds are None where nothing is left to be done.
        """
        run, variant = task.run, task.variant
        if run is None or variant is None:
            return task, 0
        if run in variant.runs and variant.trials:
            rate = self._choose(variant).lr
            if rate is None:
                raise PhysFedError("training diverged at every learning rate of the grid; put "
                                   "lower ones into learning_rates.grid")  # fmt: skip
            run = run.at(rate)
        state = state_of(self._out, run)
        chosen = SuiteTask(task.name, run.experiment, variant, run, task.needs)
        return chosen, None if state.done else state.rounds

    def _choose(self, variant: Variant) -> Chosen:
        if variant.name not in self.chosen:
            found = choose(self._out, variant, self._states)
            assert found is not None, "its trials have ended"
            self.chosen[variant.name] = found
            self._record(variant)
        return self.chosen[variant.name]

    def _record(self, variant: Variant) -> None:
        chosen = self.chosen[variant.name]
        record(self._out, variant, chosen)
        self._on_event({"event": "chosen", "variant": variant, "chosen": chosen})

    def _hear(self, active: _Active) -> None:
        event = active.child.receive()
        if event["event"] == "end":
            del self._active[active.child.events]
            self._end(active, event)
            return
        if event["event"] == "start":
            active.first = active.rounds = event["from_round"]
        elif event["event"] == "round":
            active.rounds = event["round"]
        self._tell("progress", active, event)

    def _end(self, active: _Active, event: Event) -> None:
        task, seconds = active.task, time.monotonic() - active.began
        outcome, run, variant = event["outcome"], task.run, task.variant
        trial = variant is not None and run in variant.trials
        if outcome != "done" and not (trial and outcome == "diverged"):
            self._fail(task, event["text"])
            return
        if run is not None and variant is not None:
            self._count.learn(variant, seconds, active.rounds - active.first)
            self._states[run.path] = state_of(self._out, run)
            self._count.done += 1
        self._tell("end", active, event, words=outcome, seconds=seconds)

    def _fail(self, task: SuiteTask, why: str) -> None:
        self.failed[task.name] = why
        self._count.failed += task.run is not None
        self._on_event({"event": "failed", "name": task.name, "text": why} | self._counts())

    def _tell(self, kind: str, active: _Active, event: Event | None = None, **more: object) -> None:
        total = active.task.experiment.training.rounds if active.task.run else 0
        self._on_event(
            {
                "event": kind,
                "name": active.task.name,
                "lr": active.task.experiment.training.lr if active.task.run else None,
                "rounds": active.rounds,
                "total": total,
                "inner": event,
            }
            | self._counts()
            | more
        )

    def _counts(self) -> Event:
        count = self._count
        running = sum(active.task.run is not None for active in self._active.values())
        return {
            "done": count.done,
            "failed": count.failed,
            "running": running,
            "left": count.total - count.done - count.failed - running,
            "of": count.total,
            "eta_s": self._eta(),
        }

    def _eta(self) -> float | None:
        """Return the seconds that are left, from the time of a round so far; None: not known."""
        waiting = [(t, t.experiment.training.rounds) for t in self._todo.values()]
        active = [
            (a.task, a.task.experiment.training.rounds - a.rounds) for a in self._active.values()
        ]
        left = [
            self._count.seconds(task.variant, rounds)
            for task, rounds in (*waiting, *active)
            if task.variant is not None
        ]
        if any(seconds is None for seconds in left):
            return None
        return sum(seconds for seconds in left if seconds is not None) / self._jobs
