"""Which job servers are refused, and how a job's end is put into words.

`tests/cluster/test_jobs.py` has a real one.
"""

import http.server
import socket
import threading
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from physfed_ray.errors import PhysFedError
from physfed_ray.runtime import jobs
from physfed_ray.runtime.jobs import Jobs, outcome
from tests.faults.nodes import free_ports


def test_an_address_where_nothing_answers() -> None:
    with pytest.raises(PhysFedError, match=r"no Ray dashboard answers at http://127\.0\.0\.1:"):
        Jobs(f"127.0.0.1:{free_ports(1)[0]}")


def test_an_address_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CONNECT_S", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(PhysFedError, match="no Ray dashboard answers"),
    ):
        Jobs(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_an_address_where_something_else_answers(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "version").write_text("<html>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path in ("", "/nowhere"):  # a page that is not JSON, and 404
            with pytest.raises(PhysFedError, match="is not the job server of a Ray dashboard"):
                Jobs(f"http://127.0.0.1:{server.server_port}{path}")
        server.shutdown()


@pytest.mark.parametrize(
    ("exit_code", "status", "words"),
    [
        (127, 127, "install physfed_ray there, on its PATH"),
        (-9, 1, "SIGKILL ended it; submit it with --resume to go on from its last round"),
        (137, 137, "SIGKILL ended it; submit it with --resume to go on from its last round"),
        (2, 2, "physfed: error: the last line"),
    ],
)
def test_an_exit_status_is_put_into_words(exit_code: int, status: int, words: str) -> None:
    job = JobDetails(
        type=JobType.SUBMISSION,
        submission_id="physfed-x-1",
        entrypoint="physfed run x.yaml",
        status=JobStatus.FAILED,
        message="Job entrypoint command failed, last logs:\nphysfed: error: the last line\n",
        driver_exit_code=exit_code,
    )
    code, problem = outcome(job)
    assert code == status
    assert problem.endswith(words)
