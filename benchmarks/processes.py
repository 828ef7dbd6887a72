"""The memory of processes, sampled from /proc (Linux) while a block runs.

Python's standard library only: Flower's environment imports it as well.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

KB_PER_MIB = 1024


def descendants(root: int) -> dict[int, str]:
    """Return the title of every process below ``root``, by its id."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The second field is the name in brackets, which may hold spaces.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
        except (OSError, UnicodeDecodeError):
            continue
        parents[int(folder.name)] = int(fields[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: titles.get(pid, "") for pid in sorted(found - {root})}


def in_mib(path: Path) -> dict[str, float]:
    """Return the lines of a file such as ``/proc/self/status`` that are in kB, as MiB."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) / KB_PER_MIB
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


class Peaks:
    """Samples this process (``driver``) and its Ray actors, and keeps the largest values.

    Per process, in MiB: ``rss`` is the largest resident memory that the kernel saw in its whole
    life (VmHWM), object store pages that it touched included; ``own`` the largest sample of memory
    that is its own (RssAnon); ``shared`` that of mapped object store pages (RssShmem); ``pss`` that
    of its proportional share, in which a page counts once however many processes map it. The same
    for all of them together at one moment, and in ``tree_pss`` for every process below this one,
    so with Ray's own processes and its whole object store.

    Args:
        kinds: Class name of the actors of each group.
        every_s: Seconds between two samples.
    """

    def __init__(self, kinds: Mapping[str, str], every_s: float = 0.2) -> None:
        self._kinds, self._every_s = kinds, every_s
        self._peaks: dict[str, dict[int, dict[str, float]]] = {"driver": {}}
        self._peaks |= {name: {} for name in kinds}
        self._together: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def report(self) -> dict[str, object]:
        """Return the peaks in MiB: of each process of a group, and of all together."""
        groups = {
            name: [{key: round(v, 1) for key, v in peak.items()} for peak in peaks.values()]
            for name, peaks in self._peaks.items()
        }
        return groups | {"together": {key: round(v, 1) for key, v in self._together.items()}}

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        driver = os.getpid()
        tree = {driver: "driver", **descendants(driver)}
        now = {"own": 0.0, "pss": 0.0, "tree_pss": 0.0}
        for pid, title in tree.items():
            values = memory(pid)
            now["tree_pss"] += values.get("pss", 0.0)
            group = "driver" if pid == driver else self._group(title)
            if group is None or not values:
                continue
            raise_to(self._peaks[group].setdefault(pid, {}), values)
            for key in ("own", "pss"):
                now[key] += values[key]
        raise_to(self._together, now)

    def _group(self, title: str) -> str | None:
        if not title.startswith("ray::"):
            return None
        return next((name for name, kind in self._kinds.items() if kind in title), None)


def raise_to(peaks: dict[str, float], values: Mapping[str, float]) -> None:
    """Raise each peak to its value where that is larger."""
    for key, value in values.items():
        peaks[key] = max(peaks.get(key, 0.0), value)


def memory(pid: int) -> dict[str, float]:
    """Return what a process holds in MiB; nothing once it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        status, rollup = in_mib(folder / "status"), in_mib(folder / "smaps_rollup")
        return {
            "rss": status["VmHWM"],
            "own": status["RssAnon"],
            "shared": status["RssShmem"],
            "pss": rollup["Pss"],
        }
    except (OSError, KeyError):  # it has just ended
        return {}
