"""One run of a suite or sweep in a process of its own, which dies with the one that started it."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from physfed_ray.errors import DivergedError, NoRoomError, PhysFedError, sentence
from physfed_ray.events import PREPARING, Event
from physfed_ray.experiment import Experiment

if TYPE_CHECKING:
    from physfed_ray.runtime.run import ClusterShare

Outcome = Literal["done", "diverged", "no room", "failed"]
SHOWN = (*PREPARING, "start", "round", "evaluation")
"""Events that the parent uses; the run's own log has all of them."""
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Work:
    """What a child does.

    Attributes:
        experiment: What it runs, or whose data it prepares.
        out: The run directory; None: only prepare the data.
        runtime: "ray" or "inline".
        address: Ray cluster to join; None starts one.
        command: The command line, for the record.
        log: File that takes what the run prints; None: it goes where the suite's output goes.
        tested: Whether the run ends with the test and its page.
        share: What the run may take of the Ray cluster.
        beside: Run directories that the run will be compared with.
    """

    experiment: Experiment
    out: str | None
    runtime: Literal["ray", "inline"]
    address: str | None
    command: str
    log: Path | None
    tested: bool = True
    share: "ClusterShare | None" = None
    beside: tuple[str, ...] = ()


class Child:
    """A running child.

    Args:
        work: What it does.
    """

    def __init__(self, work: Work) -> None:
        # Forked off a process that has imported all and begun nothing: no half-copied threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["physfed_ray.runtime.run", "torch.utils.tensorboard"])
        self.events, send = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(target=_main, args=(work, send))
        self._process.start()
        send.close()  # the child's copy is the only one, so that its death ends the stream

    def receive(self) -> Event:
        """Return the next event; the last is ``end`` with an ``outcome`` and its ``text``."""
        try:
            event: Event = self.events.recv()
        except (EOFError, OSError):
            self._process.join()
            self.events.close()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            hint = "; out of memory?" if code == -signal.SIGKILL else ""
            return _end("failed", f"its process ended with {how}{hint}")
        if event["event"] == "end":
            self._process.join(PATIENCE_S)
            self.stop()
        return event

    def stop(self) -> None:
        """End the process, if it has not ended."""
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.events.close()


def _end(outcome: Outcome, text: str = "") -> Event:
    return {"event": "end", "outcome": outcome, "text": text}


def _main(work: Work, events: Connection) -> None:
    """Do the work; the entry of the child's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if work.log is not None:
        _print_into(work.log)

    def on_event(event: Event) -> None:
        if event["event"] in SHOWN:
            means = _means(event.get("scores", {}))
            slim = {key: value for key, value in event.items() if not isinstance(value, dict)}
            events.send(slim | means)

    events.send(_outcome(work, on_event))


def _means(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over the clients of each score of an evaluation."""
    names = next(iter(scores.values()), {})
    return {name: mean(of_client[name] for of_client in scores.values()) for name in names}


def _outcome(work: Work, on_event: Callable[[Event], None]) -> Event:
    try:
        _do(work, on_event)
    except DivergedError as error:
        if work.out is not None:
            from physfed_ray.suites.state import mark_diverged

            mark_diverged(work.out, str(error))
        return _end("diverged", sentence(error))
    except NoRoomError as error:
        return _end("no room", str(error))
    except PhysFedError as error:
        return _end("failed", sentence(error))
    except Exception as error:
        traceback.print_exc()
        return _end("failed", sentence(error))
    return _end("done")


def _do(work: Work, on_event: Callable[[Event], None]) -> None:
    if work.out is not None:
        from physfed_ray.runtime.run import run_experiment

        settings: dict[str, Any] = {"runtime": work.runtime, "address": work.address}
        run_experiment(
            work.experiment,
            work.out,
            resume=True,
            on_event=on_event,
            command=work.command,
            tested=work.tested,
            share=work.share,
            beside=work.beside,
            **settings,
        )
    elif work.runtime == "inline":
        from physfed_ray.data.prepare import prepare

        prepare(work.experiment, progress=on_event)
    else:
        from physfed_ray.runtime.cluster import connect
        from physfed_ray.runtime.prepare import prepare_on_ray

        connect(work.address)
        prepare_on_ray(work.experiment, on_event)


def _die_with_parent() -> None:
    """End this process at once when its parent is gone, so that no run has two processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _print_into(log: Path) -> None:
    """Send all that this process prints, its libraries' C code included, into a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    os.close(handle)
