"""Where a sweep lies: a folder that all machines see, or a bucket and a working folder here."""

from hashlib import blake2b

from physfed_ray.cache import cache_folder
from physfed_ray.rundir.local_files import local_path
from physfed_ray.rundir.run_directory import RunDirectory

STUDY = "study.db"


class Folder:
    """The folder of a sweep.

    Args:
        out: A local path or an fsspec URL.

    Attributes:
        out: Root of the run directories.
        local: Where this machine keeps the study, the page and the logs: the folder itself, or a
            working folder whose files are copied to the bucket.
    """

    def __init__(self, out: str) -> None:
        self.out = out.rstrip("/")
        found = local_path(self.out)
        name = blake2b(self.out.encode(), digest_size=8).hexdigest()
        self.local = cache_folder(None) / "sweeps" / name if found is None else found.absolute()
        self._bucket = RunDirectory(self.out) if found is None else None

    def bring_study(self) -> bool:
        """Bring the study of a bucket here; return whether there is one."""
        study = self.local / STUDY
        if self._bucket is not None:
            study.unlink(missing_ok=True)
            if self._bucket.exists(STUDY):
                study.parent.mkdir(parents=True, exist_ok=True)
                study.write_bytes(self._bucket.read(STUDY))
        return study.exists()

    def save(self, *names: str) -> None:
        """Copy files and folders to the bucket, if the sweep lies in one."""
        if self._bucket is not None:
            self._bucket.upload(self.local, [n for n in names if (self.local / n).exists()])

    def run(self, path: str) -> str:
        """Return the run directory at a path below the folder."""
        return f"{self.out}/{path}"
