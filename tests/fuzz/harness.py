"""Damaged inputs, one for each seed, in child processes that may hang, die or want too much memory.

A kind of input (DICOM, YAML, run directories, ...) says how to damage something and which door of
the product then looks at it. What may come out: the same result as from the undamaged input, a
``PhysFedError``, or another result and a word about it. All else is a finding.
"""

import contextlib
import faulthandler
import io
import logging
import multiprocessing
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from physfed_ray.errors import PhysFedError

LIMIT_S = 10.0
"""Seconds that one attempt may take."""
GRACE_S = 2.0
"""Seconds in which a process that took too long says where it is."""
PATIENCE = 6
"""How many times as long the second try may take."""
LIMIT_BYTES = 4 * 2**30
"""Memory of its own that a process may take: code and mapped files do not count."""

SAME, REFUSED, TOLD = "same", "refused", "told"
WRONG, TRACEBACK, HANG, MEMORY, DIED, MESSAGE = (
    "wrong value", "traceback", "hang", "memory", "process died", "unreadable message",
)  # fmt: skip
FINDINGS = (WRONG, TRACEBACK, HANG, MEMORY, DIED, MESSAGE)

PACKAGE = "physfed_ray/"
_UNREADABLE = re.compile(r"Traceback|object at 0x|\bNoneType\b|pydantic|validation error")


class WrongError(Exception):
    """The result is another one, and nothing said so."""


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt.

    Attributes:
        seed: Of the attempt: it and the kind's name make the same damage again.
        result: ``same``, ``refused``, ``told`` or one of ``FINDINGS``.
        damage: What was done to the input.
        text: The error's message, or what is wrong.
        where: Module and function of the product in which it arose, empty where it did not.
        seconds: Wall time.
        kib: Largest resident memory of its process until then, in KiB.
    """

    seed: int
    result: str
    damage: str = ""
    text: str = ""
    where: str = ""
    seconds: float = 0.0
    kib: int = 0


@dataclass
class Attempt:
    """What a kind gets for one attempt.

    Attributes:
        rng: The only source of chance.
        folder: An empty folder, deleted afterwards.
        damage: To be filled with what is done to the input.
        told: Warnings, log records and progress messages that the product gave meanwhile.
    """

    rng: random.Random
    folder: Path
    damage: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def changed(self, what: str) -> str:
        """Return the outcome for a result that is not that of the undamaged input.

        Raises:
            WrongError: Nothing was told.
        """
        if not self.told:
            raise WrongError(what)
        return TOLD


class Kind:
    """One kind of input."""

    name = ""

    def prepare(self, folder: Path) -> None:
        """Make what all attempts start from, once, before any process is forked."""

    def attempt(self, attempt: Attempt) -> str:
        """Damage something, let the product look at it, and return ``same`` or ``told``.

        Raises:
            PhysFedError: The product refused; the message is looked at.
            WrongError: It gave another result without a word.
        """
        raise NotImplementedError


def call(*command: str) -> tuple[int, str]:
    """Run a command in this process; return its exit status and all that it printed."""
    from physfed_ray.cli import main

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        status = main(list(command))
    return status, text.getvalue()


def refused(status: int, text: str) -> None:
    """Judge how a command ended.

    Raises:
        PhysFedError: It refused, in one line.
        WrongError: It failed in another way.
    """
    errors = [line for line in text.splitlines() if "physfed: error:" in line]
    if status == 2 and len(errors) == 1:
        raise PhysFedError(errors[0])
    if status != 0 or errors or "Traceback" in text:
        raise WrongError(f"exit status {status}: {text[-300:]}")


class _Listener(logging.Handler):
    def __init__(self, told: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.append(record.getMessage())


@contextlib.contextmanager
def _listening(told: list[str]) -> Iterator[None]:
    logger, handler = logging.getLogger("physfed_ray"), _Listener(told)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            yield
    finally:
        logger.removeHandler(handler)


def try_seed(kind: Kind, seed: int, scratch: Path) -> Outcome:
    """Make one attempt in this process."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    attempt = Attempt(random.Random(f"{kind.name} {seed}"), folder)
    began = time.monotonic()
    text = where = ""
    try:
        with _listening(attempt.told):
            result = kind.attempt(attempt)
    except PhysFedError as error:
        text = " ".join(str(error).split())
        unreadable = _UNREADABLE.search(text) or len(text) > 3000 or len(text) < 15
        result = MESSAGE if unreadable else REFUSED
        where = _where(error)
    except WrongError as error:
        result, text = WRONG, str(error)
    except MemoryError as error:
        result, text, where = MEMORY, repr(error), _where(error)
    except RecursionError as error:
        result, text, where = TRACEBACK, "RecursionError", _where(error)
    except Exception as error:
        result, text, where = TRACEBACK, f"{type(error).__name__}: {error}", _where(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Outcome(seed, result, "; ".join(attempt.damage), text[:600], where, seconds, kib)


def _where(error: BaseException) -> str:
    """Return the innermost module and function of the product in a traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if PACKAGE in f.filename]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename.rsplit(PACKAGE, 1)[1]}:{last.name}"


def sweep(
    kind: Kind,
    seeds: Sequence[int],
    scratch: Path,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Make an attempt for each seed in a child process, which is replaced when it ends or hangs.

    A busy machine makes anything slow, so a seed that took too long or killed its process is tried
    again, alone; whether it hangs is then judged by the processor's time.

    Args:
        kind: Prepared; the children are forks of this process.
        seeds: In the order in which they are tried.
        scratch: A folder for what the attempts write.
        on_outcome: Receives each outcome as it comes.
    """
    outcomes: list[Outcome] = []
    left = list(seeds)
    while left:
        for outcome, _ in _Child(kind, left, scratch, LIMIT_S).outcomes():
            if outcome.result in (HANG, DIED):
                outcome = _again(kind, outcome.seed, scratch)
            outcomes.append(outcome)
            on_outcome(outcome)
        left = list(seeds)[len(outcomes) :]
    return outcomes


def _again(kind: Kind, seed: int, scratch: Path) -> Outcome:
    outcome, cpu_s = next(_Child(kind, [seed], scratch, PATIENCE * LIMIT_S).outcomes())
    if cpu_s > LIMIT_S:
        return Outcome(seed, HANG, outcome.damage, f"{cpu_s:.0f} s of the processor")
    return outcome


class _Child:
    """A fork of this process that tries seeds, one after the other, until one stops it.

    Args:
        kind: Prepared.
        seeds: To be tried.
        scratch: For what the attempts write.
        limit_s: Seconds for each.
    """

    def __init__(self, kind: Kind, seeds: Sequence[int], scratch: Path, limit_s: float) -> None:
        self._seeds, self._limit_s = seeds, limit_s
        self._notes = scratch / f"notes-{kind.name}.txt"
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_child, args=(kind, seeds, scratch, sender, self._notes, limit_s)
        )
        self._process.start()
        sender.close()

    def outcomes(self) -> Iterator[tuple[Outcome, float]]:
        """Yield outcomes and the processor's seconds; the last may be a hang or a death."""
        try:
            for seed in self._seeds:
                if not self._receiver.poll(self._limit_s + GRACE_S):
                    yield self._stopped(seed, HANG, f"over {self._limit_s:.0f} s"), 0.0
                    return
                try:
                    found = self._receiver.recv()
                except EOFError:
                    self._process.join()
                    yield self._stopped(seed, DIED, f"exit {self._process.exitcode}"), 0.0
                    return
                yield found
        finally:
            self._receiver.close()
            self._process.kill()
            self._process.join()

    def _stopped(self, seed: int, result: str, text: str) -> Outcome:
        """Return the outcome with the innermost function of the product on any thread's stack."""
        notes = self._notes.read_text(errors="replace")
        found = re.findall(rf'File "[^"]*{PACKAGE}([^"]+)", line \d+ in (\w+)', notes)
        return Outcome(seed, result, "", text, ":".join(found[0]) if found else "")


def _child(
    kind: Kind, seeds: Sequence[int], scratch: Path, sender: Any, notes: Path, limit_s: float
) -> None:
    """Try seeds and send what comes of them; ``notes`` says what was done if nothing is sent."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES + _data_bytes(), -1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with notes.open("w") as file:
        faulthandler.enable(file)
        for seed in seeds:
            file.seek(0)
            file.truncate()
            faulthandler.dump_traceback_later(limit_s, file=file)
            began = time.process_time()
            silent = io.StringIO()
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                outcome = try_seed(kind, seed, scratch)
            faulthandler.cancel_dump_traceback_later()
            sender.send((outcome, time.process_time() - began))
        faulthandler.disable()
    sender.close()


def _data_bytes() -> int:
    """Return what counts for RLIMIT_DATA already, as the fork inherits it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (data,) = (line.split()[1] for line in lines if line.startswith("VmData:"))
    return int(data) * 1024


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return counts by result, and findings by what they have in common, with their seeds."""
    counts = Counter(outcome.result for outcome in outcomes)
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.result in FINDINGS:
            start = re.sub(r"[0-9a-f]{8,}|\d+", "N", outcome.text.split(":")[0])[:60]
            groups.setdefault((outcome.result, outcome.where, start), []).append(outcome)
    return {
        "attempts": len(outcomes),
        "results": dict(sorted(counts.items())),
        "slowest_s": round(max((outcome.seconds for outcome in outcomes), default=0.0), 2),
        "most_mib": max((outcome.kib for outcome in outcomes), default=0) // 1024,
        "findings": [
            {"count": len(same), "seeds": [o.seed for o in same[:5]], **asdict(same[0])}
            for same in sorted(groups.values(), key=len, reverse=True)
        ],
    }


def progress(kind: Kind, total: int) -> Callable[[Outcome], None]:
    """Return what prints a line to the error output for each finding and each tenth of the way."""
    done = findings = 0

    def show(outcome: Outcome) -> None:
        nonlocal done, findings
        done += 1
        if outcome.result in FINDINGS:
            findings += 1
            where = f" in {outcome.where}" if outcome.where else ""
            print(
                f"{kind.name} {outcome.seed}: {outcome.result}{where}: {outcome.text[:200]} "
                f"[{outcome.damage[:200]}]",
                file=sys.stderr,
            )
        if done % max(1, total // 10) == 0:
            print(f"{kind.name}: {done} of {total}, {findings} findings", file=sys.stderr)

    return show
