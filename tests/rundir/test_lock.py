"""Two processes on one folder: the second is refused; one that was killed holds nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir import lock
from physfed_ray.rundir.bucket_files import BucketFiles
from physfed_ray.rundir.lock import LEASE_FILE, alone
from tests.s3_bucket import s3_bucket

ROOT = Path(__file__).parents[2]


@contextmanager
def holder(root: str) -> Iterator[subprocess.Popen[str]]:
    """Start another process that holds a folder's lock."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.rundir.holder", root],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("locks"):
        yield "s3://locks"


@pytest.fixture(params=["local", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, seconds in (("RENEW_S", 0.3), ("SILENCE_S", 2.0), ("LOOK_S", 0.1), ("SETTLE_S", 0.2)):
        monkeypatch.setattr(lock, name, seconds)
    if request.param == "local":
        return str(tmp_path / "run")
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(root: str) -> None:
    with holder(root) as process:
        told = rf"another `physfed` is at work in .* \(process {process.pid} on .* since 20"
        with pytest.raises(PhysFedError, match=told), alone(root):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with alone(root):
            pass
    with alone(root):
        pass


@pytest.mark.parametrize("root", ["bucket"], indirect=True)  # a disk's lock is not leased
def test_a_lease_of_another_machine_is_taken_over_when_it_is_silent(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its process lives cannot be asked there; its silence is what says so."""
    notices: list[str] = []
    with holder(root) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    monkeypatch.setattr(lock, "_machine", lambda: "another")
    with alone(root, notices.append):
        pass
    (notice,) = notices
    assert f"is held by process {process.pid}" in notice


@pytest.mark.parametrize("root", ["bucket"], indirect=True)  # a disk's lock is not leased
def test_who_lost_a_lease_commits_nothing_more(root: str) -> None:
    with alone(root) as check:
        check()
        BucketFiles(root).write(LEASE_FILE, b'{"token": "theirs", "pid": 1, "host": "far"}')
        with pytest.raises(PhysFedError, match=r"at work .*process 1 on far"):
            check()
    assert BucketFiles(root).read(LEASE_FILE).startswith(b'{"token": "theirs"')


def test_of_several_at_once_one_is_let_in(root: str) -> None:
    inside, leave = [], threading.Event()

    def enter(name: int) -> None:
        with contextlib.suppress(PhysFedError), alone(root):
            inside.append(name)
            leave.wait(20)

    threads = [threading.Thread(target=enter, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4)
    assert len(inside) == 1
    leave.set()
    for thread in threads:
        thread.join()


def test_a_file_in_the_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PhysFedError, match="is a file"), alone(tmp_path / "file"):
        pass
