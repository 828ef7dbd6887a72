"""`cluster/onprem.yaml` is brought up on four machines of the test's own, used, and taken down.

The tests build on each other's cluster in the order of the file; the last one takes it down.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.machines import ROOT, Machine, make_key, why_impossible

IMPOSSIBLE = why_impossible()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE)),
    pytest.mark.timeout(900),
]

JOBS = "http://127.0.0.1:8265"
WITH_TOKEN = {"RAY_AUTH_MODE": "token"}
WRONG_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}
WAIT_S = 300.0

JOIN_AS_DRIVER = "import ray; ray.init(address='auto')"
SCRIPT = """
import socket, sys, time
import ray

@ray.remote(num_cpus=0)
def where():
    return socket.gethostname()

ray.init()
limit = time.monotonic() + float(sys.argv[1])
while len(ray.nodes()) < 3 and time.monotonic() < limit:
    time.sleep(1)
labels = [{"ray.io/node-id": node["NodeID"]} for node in ray.nodes()]
print("seen:", *sorted(ray.get([where.options(label_selector=l).remote() for l in labels])))
"""
SMALL = (
    "data.source.phantom={patients: 4, slices: 2}",
    "data.image_size=48",
    "data.test_patients=1",
    "clients=[{id: a, protocol: paper-1}, {id: b, protocol: paper-2}]",
    "unseen=[]",
    "backbone.channels=2",
    "training.rounds=2",
    "training.patch=32",
    "training.warmup_rounds=0",
    "training.evaluate_every=1",
)


class Site:
    """The user's own machine (launcher), a head and two workers.

    Attributes:
        config: The on-prem file, filled in.
        shared: Folder that all machines see.
    """

    def __init__(self, folder: Path) -> None:
        self.config = str(folder / "onprem.yaml")
        self.shared = folder / "shared"
        self.machines: list[Machine] = []
        make_key(folder / "key")
        for number, name in enumerate(("launcher", "head", "worker-1", "worker-2"), 1):
            self.machines.append(Machine(folder / name, number))
        self.launcher, self.head, *self.workers = self.machines
        Path(self.config).write_text(self._filled_in(folder / "key"))

    def _filled_in(self, key: Path) -> str:
        """Return the on-prem file with its REPLACE lines filled in.

        The commands that install with pip are left out: the machines have no way out, and what
        would be installed is there already, `~/physfed_env` being the environment of this test.
        """
        config = yaml.safe_load((ROOT / "cluster" / "onprem.yaml").read_text())
        config["provider"]["head_ip"] = self.head.address
        config["provider"]["worker_ips"] = [worker.address for worker in self.workers]
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
        config["setup_commands"] = [
            command.replace("/srv/physfed", str(self.shared))
            for command in config["setup_commands"]
            if "pip install" not in command
        ]
        return yaml.safe_dump(config)

    def bring_up(self) -> None:
        """Wait for the machines, and start Ray on them as a user would."""
        for machine in self.machines:
            machine.wait()
        self.launcher.connect(self.machines[1:])
        for machine in self.machines[1:]:
            (machine.home / "physfed_env").symlink_to(sys.prefix)
        self.launcher.check("ray", "get-auth-token", "--generate")
        self.launcher.check("ray", "up", "--yes", self.config)

    def status(self) -> str:
        """Return what `ray status` prints on the head."""
        return self.launcher.check("ray", "exec", self.config, "ray status")

    def log_of_autoscaler(self) -> str:
        """Return the end of what the autoscaler wrote, which says why a machine is missing."""
        logs = "/tmp/ray/session_latest/logs"
        return self.head.check("bash", "-c", f"tail -n 50 {logs}/monitor.{{log,out,err}}")

    def close(self) -> None:
        """End every machine with all that runs on it."""
        for machine in self.machines:
            machine.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Four machines with Ray brought up on three."""
    site = Site(tmp_path_factory.mktemp("onprem"))
    try:
        site.bring_up()
        yield site
    finally:
        site.close()


@pytest.fixture(scope="module")
def tunnel(site: Site) -> Iterator[None]:
    """The dashboard of the head at the launcher's port 8265."""
    process = site.launcher.start("ray", "dashboard", site.config)
    probe = "until (echo > /dev/tcp/127.0.0.1/8265) 2> /dev/null; do sleep 0.2; done"
    site.launcher.check("timeout", str(WAIT_S), "bash", "-c", probe)
    yield
    process.kill()


def test_the_machines_see_no_other_ray_and_no_way_out(site: Site) -> None:
    assert site.launcher.ray_processes() == []
    assert site.head.ray_processes() != []
    assert site.launcher.address in site.head.check("ip", "route", "get", "192.0.2.1")
    assert "default" not in site.launcher.check("ip", "route")


def test_the_token_is_brought_and_readable_by_its_owner_alone(site: Site) -> None:
    token = site.launcher.home / ".ray" / "auth_token"
    brought = site.head.home / ".ray" / "auth_token"
    assert brought.read_bytes() == token.read_bytes() != b""
    assert brought.stat().st_mode & 0o077 == 0
    assert token.read_text() not in Path(site.config).read_text()


def test_a_submitted_script_runs_on_every_machine(site: Site) -> None:
    script = site.launcher.home / "where.py"
    script.write_text(SCRIPT)
    printed = site.launcher.check("ray", "submit", site.config, str(script), "--", str(WAIT_S))
    assert "seen: head worker-1 worker-2" in printed, site.log_of_autoscaler()
    limit = time.monotonic() + WAIT_S
    while "3 local.cluster.node" not in (status := site.status()):
        assert time.monotonic() < limit, status + site.log_of_autoscaler()
        time.sleep(1)


@pytest.mark.usefixtures("tunnel")
def test_a_job_runs_the_quickstart(site: Site) -> None:
    arguments = [part for value in SMALL for part in ("--set", value)]
    printed = site.launcher.check(
        *("physfed", "submit", "experiments/quickstart.yaml"),
        *("--address", JOBS, "--follow", *arguments),
        **WITH_TOKEN,
    )
    (report,) = site.shared.glob("runs/*/report.html")
    assert report.stat().st_size > 0, printed


@pytest.mark.usefixtures("tunnel")
def test_who_has_no_token_or_a_wrong_one_is_refused(site: Site) -> None:
    submit = ("physfed", "submit", "experiments/quickstart.yaml", "--address", JOBS)
    driver = ("python", "-c", JOIN_AS_DRIVER)
    node = ("ray", "start", f"--address={site.head.address}:6379")
    tries = [
        (site.launcher.start(*submit, **NO_TOKEN), "wants a token"),
        (site.launcher.start(*submit, **WRONG_TOKEN), "refuses your token"),
        (site.head.start(*driver, **NO_TOKEN), "InvalidAuthToken"),
        (site.head.start(*driver, **WRONG_TOKEN), "InvalidAuthToken"),
        (site.launcher.start(*node, **WRONG_TOKEN), "InvalidAuthToken"),
    ]
    for process, message in tries:
        printed, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode != 0
        assert message in printed


def test_down_ends_every_process(site: Site) -> None:
    assert all(machine.ray_processes() for machine in site.machines[1:])
    site.launcher.check("ray", "down", "--yes", site.config)
    assert site.head.ray_processes() == []
    limit = time.monotonic() + WAIT_S
    while any(worker.ray_processes() for worker in site.workers) and time.monotonic() < limit:
        time.sleep(1)
    assert [worker.ray_processes() for worker in site.workers] == [[], []]
