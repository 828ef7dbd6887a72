"""Files right below the root of a run directory, whose checksums stand in a file beside them.

A file and its checksum are two files, and a writer may die between them. So a new checksum is
written first, beside that of the file which it will replace, and either is right until the next
write. Only one process at a time writes a run directory; several may read it meanwhile.
"""

from collections.abc import Callable

from physfed_ray.checksum import checksum, seal, unseal
from physfed_ray.errors import DamagedError
from physfed_ray.rundir.bucket_files import BucketFiles
from physfed_ray.rundir.local_files import LocalFiles

CHECKSUMS_FILE = "checksums.json"
READ_BACK = (".json", ".npz", ".parquet", ".yaml")
"""Endings of the files that are read again; the others (pages, pictures, logs) are for people."""
KEPT_TWICE = ("data.json", "experiment.yaml", "model.json")
"""What a run cannot go on without and nothing can make again: a copy lies with the checkpoints."""
RESUME = "copy the run directory again, or run again with --resume, which writes it anew"
CURES = {
    "classical.parquet": "delete it, and compare with --classical again",
    "learning_rates.json": "delete it, and run the suite again",
    **dict.fromkeys(KEPT_TWICE, "copy the run directory again, or begin anew with another --out"),
}
SPARE = ("classical.parquet", "learning_rates.json")
"""What a user may delete: it is then made again."""
Entry = tuple[str | None, ...]
"""Checksums, one of which the file has; None: it need not be there."""


class RecordedFiles:
    """Writes and reads files with their checksums.

    Args:
        files: Where they lie.
        root: Of the run directory, for messages.
        notice: Receives one line when a copy stands in for a file.
    """

    def __init__(
        self, files: LocalFiles | BucketFiles, root: str, notice: Callable[[str], None]
    ) -> None:
        self._files, self._root, self._notice = files, root, notice
        self._known: dict[str, Entry] | None = None
        self._unsettled = False

    def covers(self, name: str) -> bool:
        """Say whether a name is that of a file which is kept with a checksum."""
        hidden = "/" in name or name.startswith(".") or name == CHECKSUMS_FILE
        return not hidden and name.endswith(READ_BACK)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, and record its checksum."""
        entries = self._entries(again=True)
        before = entries[name][0] if name in entries else self._sum_of(name)
        settled = {other: entry[:1] for other, entry in entries.items()}
        self._save(settled | {name: (checksum(content), before)})
        self._unsettled = True
        for place in _places(name):
            self._files.write(place, content)
        self._files.sync_folders(_places(name))

    def settle(self) -> None:
        """Record that what was written is there, so that it is missed when it is gone."""
        if self._unsettled:
            entries = self._entries(again=True)
            self._save({name: entry[:1] for name, entry in entries.items()})
            self._unsettled = False

    def has(self, name: str) -> bool:
        """Say whether a file was ever written.

        Raises:
            DamagedError: It was, and is gone.
        """
        if self._files.exists(name):
            return True
        for again in (False, True):
            if name in SPARE or None in self._entries(again=again).get(name, (None,)):
                return False
        if any(self._files.exists(copy) for copy in _places(name)):
            return True
        raise DamagedError(f"{self._root}/{name}", cure_of(name), "is gone")

    def read(self, name: str) -> bytes:
        """Return a file's bytes, or those of its copy, whichever are as they were written.

        Raises:
            DamagedError: Neither is.
            FileNotFoundError: The file is not there, and nothing says that it ever was.
        """
        found = {place: self._read(place) for place in _places(name)}
        for again in (False, True):  # another process may have written it since
            entry = self._entries(again=again).get(name)
            for place, content in found.items():
                if content is not None and (entry is None or checksum(content) in entry):
                    if place != name:
                        self._notice(self._stands_in(name, place, gone=found[name] is None))
                    return content
            found = {place: self._read(place) for place in _places(name)}
        gone = found[name] is None and not self._files.exists(name)
        if gone and (name in SPARE or entry is None or None in entry):
            raise FileNotFoundError(f"{self._root}/{name}")
        what = {"what": "is gone"} if gone else {}
        raise DamagedError(f"{self._root}/{name}", cure_of(name), **what)

    def settled(self, name: str) -> bool:
        """Say whether a file was written, and something after it."""
        return None not in self._entries(again=True).get(name, (None,))

    def problem(self) -> str | None:
        """Return what is wrong with the checksums themselves, or None."""
        try:
            self._load()
        except DamagedError as error:
            return f"{error.fault}: damage of the other files may go unnoticed"
        return None

    def recorded(self) -> bool:
        """Say whether there are checksums; an earlier version wrote none."""
        return self._files.exists(CHECKSUMS_FILE)

    def _stands_in(self, name: str, place: str, *, gone: bool) -> str:
        what = "is gone" if gone else "is damaged (it is not as it was written)"
        return f"{self._root}/{name} {what}: its copy {place} is taken instead"

    def _sum_of(self, name: str) -> str | None:
        """Return the checksum of a file that an earlier version wrote."""
        there = self._read(name)
        return None if there is None else checksum(there)

    def _read(self, place: str) -> bytes | None:
        try:
            return self._files.read(place)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def _entries(self, *, again: bool = False) -> dict[str, Entry]:
        if self._known is None or again:
            try:
                self._known = self._load()
            except DamagedError:  # ``problem`` says so
                self._known = {}
        return self._known

    def _load(self) -> dict[str, Entry]:
        content = self._read(CHECKSUMS_FILE)
        if content is None:
            return {}
        where = f"{self._root}/{CHECKSUMS_FILE}"
        files = unseal(content, where, RESUME).get("files")
        if not isinstance(files, dict):
            raise DamagedError(where, RESUME)
        return {name: tuple(entry) for name, entry in files.items()}

    def _save(self, entries: dict[str, Entry]) -> None:
        self._files.write(CHECKSUMS_FILE, seal({"files": dict(sorted(entries.items()))}))
        self._files.sync_folders([CHECKSUMS_FILE])
        self._known = entries


def cure_of(name: str) -> str:
    """Return what to do about a damaged file."""
    return CURES.get(name, RESUME)


def _places(name: str) -> list[str]:
    return [name, f"checkpoints/{name}"] if name in KEPT_TWICE else [name]
