"""Jobs on a Ray cluster, through the job server of its dashboard."""

import asyncio
import json
import logging
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import TYPE_CHECKING

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

from physfed_ray.errors import PhysFedError

if TYPE_CHECKING:  # it imports the methods and so torch, seconds that `physfed jobs` can spare
    from physfed_ray.runtime.submission import Job

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
CONNECT_S = 10.0
END_S = 30.0
"""Ray kills a stopped job after 3 s; the rest is for busy heads."""
POLL_S = 0.2
NOT_FOUND = 127  # the shell's exit status for a command that it does not find
LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


class Jobs:
    """The jobs of one cluster.

    Attributes:
        address: URL of the cluster's dashboard.
    """

    def __init__(self, address: str | None) -> None:
        """Reach the cluster and check that it lets us in.

        Args:
            address: URL of the dashboard; None: Ray's variable ``RAY_API_SERVER_ADDRESS``, or
                port 8265 of this machine, where ``ray dashboard`` opens its tunnel.

        Raises:
            PhysFedError: Nothing answers, what answers has no job server, or the token is missing
                or wrong.
        """
        address = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
        self.address = (address if "://" in address else f"http://{address}").rstrip("/")
        _require_job_server(self.address)
        os.environ[ADDRESS_VARIABLE] = self.address  # Ray prefers variables to its argument
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._plain_errors():
            self._client = JobSubmissionClient(self.address)

    def submit(self, job: "Job") -> None:
        """Upload a job's working directory and start the job.

        Raises:
            PhysFedError: The cluster refuses it.
        """
        with self._plain_errors(), job.working_directory() as folder:
            self._client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=job.id,
                runtime_env={"working_dir": str(folder), "env_vars": job.environment},
                metadata=dict(job.metadata),
            )

    def submitted(self) -> list[JobDetails]:
        """Return the submitted jobs, oldest first."""
        with self._plain_errors():
            jobs = self._client.list_jobs()
        found = [job for job in jobs if job.type == JobType.SUBMISSION]
        return sorted(found, key=lambda job: job.start_time or 0)

    def get(self, job_id: str) -> JobDetails:
        """Return what the cluster knows of a job.

        Raises:
            PhysFedError: There is no such job.
        """
        with self._plain_errors(job_id):
            return self._client.get_job_info(job_id)

    def stop(self, job_id: str) -> tuple[bool, JobDetails]:
        """Stop a job and wait until it has ended.

        Returns:
            Whether it was still going, and the ended job.

        Raises:
            PhysFedError: There is no such job, or it does not end.
        """
        with self._plain_errors(job_id):
            going = self._client.stop_job(job_id)
        return going, self._ended(job_id)

    def follow(self, job_id: str, write: Callable[[str], None]) -> JobDetails:
        """Hand on a job's log until the job ends.

        Args:
            job_id: The job.
            write: Receives the log, piece by piece, from its beginning.

        Returns:
            The ended job.

        Raises:
            PhysFedError: There is no such job, or the connection broke (the job goes on).
        """

        async def tail() -> None:
            async for text in self._client.tail_job_logs(job_id):
                write(text)

        self.get(job_id)
        try:
            asyncio.run(tail())
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            raise PhysFedError(
                f"lost the log of job {job_id} ({error}), which is not stopped by that: go on with "
                f"`physfed jobs follow {job_id} --address {self.address}`"
            ) from error
        return self._ended(job_id)

    def _ended(self, job_id: str) -> JobDetails:
        limit = time.monotonic() + END_S
        while not (job := self.get(job_id)).status.is_terminal():
            if time.monotonic() > limit:
                raise PhysFedError(
                    f"job {job_id} is still {job.status} after {END_S:g} s: look at it with "
                    f"`physfed jobs --address {self.address}`"
                )
            time.sleep(POLL_S)
        return job

    @contextmanager
    def _plain_errors(self, job_id: str = "") -> Iterator[None]:
        """Turn what Ray's client raises into one sentence."""
        try:
            yield
        except AuthenticationError as error:
            raise PhysFedError(self._about_token(str(error))) from error
        except (RuntimeError, ValueError) as error:
            text = str(error).strip() or type(error).__name__
            if job_id and "status code 404" in text:
                raise PhysFedError(
                    f"there is no job {job_id} at {self.address}: `physfed jobs` lists them"
                ) from error
            raise PhysFedError(
                f"the Ray cluster at {self.address} answers with an error "
                f"({text.splitlines()[0]}): see its dashboard, and whether its Ray is as new as "
                "the one here"
            ) from error
        except OSError as error:  # also the base of all that the HTTP client raises
            raise PhysFedError(
                f"the Ray dashboard at {self.address} does not answer any more ({error}): jobs go "
                "on without it; open its tunnel again, and see `physfed jobs`"
            ) from error

    def _about_token(self, text: str) -> str:
        where = "~/.ray/auth_token or the variable RAY_AUTH_TOKEN"
        if "Authentication failed" in text:
            return (
                f"the Ray cluster at {self.address} refuses your token: put the one with which it "
                f"was started into {where}"
            )
        return (
            f"the Ray cluster at {self.address} wants a token: set RAY_AUTH_MODE=token and put "
            f"the token with which it was started into {where}"
        )


def _require_job_server(address: str) -> None:
    """Refuse an address without Ray's job server; Ray's own client would wait without limit.

    Raises:
        PhysFedError: Nothing answers, or something else does.
    """
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=CONNECT_S) as answer:
            json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        found = error.code in (401, 403)  # it wants the token, which Ray's client sends
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise PhysFedError(
            f"no Ray dashboard answers at {address} ({reason}): open its tunnel with "
            "`ray dashboard CLUSTER.yaml`, or correct --address"
        ) from error
    except (ValueError, KeyError, TypeError):
        found = False
    else:
        found = True
    if not found:
        raise PhysFedError(
            f"what answers at {address} is not the job server of a Ray dashboard: correct "
            "--address, or install ray[default] on the cluster's head and start it again"
        )


def outcome(job: JobDetails) -> tuple[int, str]:
    """Return the exit status of an ended job and, unless it is 0, what went wrong."""
    if job.status == JobStatus.SUCCEEDED:
        return 0, ""
    if job.status == JobStatus.STOPPED:
        return 1, f"job {job.submission_id} was stopped"
    code = job.driver_exit_code
    lines = (job.message or "no message").strip().splitlines()
    if code is None:  # Ray could not start the command; its message says why, in many lines
        return 1, f"job {job.submission_id} failed: {' '.join(lines)[:500]}"
    if code == NOT_FOUND:
        lines.append("the head has no `physfed` command: install physfed_ray there, on its PATH")
    if name := _signal(code):
        lines.append(f"{name} ended it; submit it with --resume to go on from its last round")
    return max(code, 1), f"job {job.submission_id} failed with exit status {code}: {lines[-1]}"


def _signal(code: int) -> str:
    """Name the signal behind an exit status, of a process or of its shell; "" for none."""
    with suppress(ValueError):
        return signal.Signals(-code if code < 0 else code - 128).name
    return ""


def jobs_table(jobs: Sequence[JobDetails]) -> str:
    """Return a table of jobs; its columns are as wide as they need, so that ids can be copied."""
    rows = [("id", "status", "experiment", "started", "duration", "run directory")]
    rows += [_row(job) for job in jobs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(job: JobDetails) -> tuple[str, str, str, str, str, str]:
    about = job.metadata or {}
    started = datetime.fromtimestamp((job.start_time or 0) / 1000)
    ended = datetime.fromtimestamp(job.end_time / 1000) if job.end_time else datetime.now()
    return (
        str(job.submission_id),
        str(job.status),
        about.get("experiment", job.entrypoint),
        f"{started:%Y-%m-%d %H:%M:%S}",
        str(timedelta(seconds=round((ended - started).total_seconds()))),
        about.get("run_dir", "-"),
    )
