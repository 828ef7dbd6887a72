"""Machines of a test's own: Linux namespaces with an SSH server each, joined by a private network.

A machine has its own processes, network, host name, /tmp, /run, /dev/shm and home folder, so that
`ray stop` in it sees no other Ray. Its network has no way out. Nothing is left when it is closed.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOOLS = ("ssh", "ssh-keygen", "rsync", "ip", "mount", "nsenter", "setpriv", "unshare")
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
NAMESPACES = ("--mount", "--net", "--uts", "--ipc")
# Ends with this process, and everything in it ends with it.
UNSHARE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", *NAMESPACES, "--pid", "--fork", "--kill-child", "--mount-proc"),
)
ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0"
BOOT_S = 60.0
RAY_PROCESS = re.compile(r"^ray::|^ray-dashboard|/ray/|\bray (start|stop)\b|ray\.util\.client")

# The arguments are folders that the machine sees as they are outside.
BOOT = """
set -e
held=()
for path in "$@"; do exec {fd}<"$path"; held+=("$fd"); done
for place in /tmp /run /dev/shm; do mount -t tmpfs tmpfs "$place"; done
for path in "$@"; do
  mkdir -p "$path"
  mount --no-canonicalize --bind "/proc/self/fd/${held[0]}" "$path"
  exec {held[0]}<&-
  held=("${held[@]:1}")
done
chmod 1777 /tmp
mkdir /run/sshd
for file in passwd shadow hosts nsswitch.conf; do mount --bind "$file" "/etc/$file"; done
ip link set lo up
hostname "${PWD##*/}"
exec "$SSHD" -D -e -f "$PWD/sshd_config"
"""

SSHD_CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/../key.pub
PidFile {folder}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
"""


def why_impossible() -> str | None:
    """Return what keeps machines from being made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if SSHD is None:
        missing.append("sshd")
    if missing:
        return f"{', '.join(missing)} not installed (Debian: openssh-server, rsync, iproute2)"
    probe = subprocess.run(
        [*UNSHARE, "ip", "link", "add", "name", "a0", "type", "veth", "peer", "name", "a1"],
        capture_output=True,
        text=True,
    )
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode else None


class Machine:
    """One machine, and commands run on it.

    Attributes:
        name: Its host name.
        address: Its IPv4 address in the private network.
        home: Home folder of its root user, visible from outside too.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.name = folder.name
        self.address = f"{NETWORK}.{number}"
        self.home = folder / "home"
        self._folder = folder
        self.home.mkdir(parents=True)
        self._write_files()
        held = [folder.parent, ROOT, Path(sys.prefix)]
        with open(folder / "boot.log", "w") as log:
            self._init = subprocess.Popen(
                [*UNSHARE, "bash", "-c", BOOT, "boot", *map(str, held)],
                env={"PATH": os.environ["PATH"], "SSHD": str(SSHD)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _write_files(self) -> None:
        files = {
            "sshd_config": SSHD_CONFIG.format(folder=self._folder),
            "passwd": f"root:x:0:0:root:{self.home}:/bin/bash\n"
            "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n",
            "shadow": "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n",
            "nsswitch.conf": "passwd: files\nshadow: files\ngroup: files\nhosts: files\n",
            "hosts": f"127.0.0.1 localhost\n{self.address} {self.name}\n",
        }
        for name, text in files.items():
            (self._folder / name).write_text(text)
        make_key(self._folder / "host_key")

    def wait(self) -> None:
        """Wait until the SSH server listens."""
        deadline = time.monotonic() + BOOT_S
        while not (self._folder / "sshd.pid").exists():
            if self._init.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "boot.log").read_text())
            time.sleep(0.05)

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """Start a command on the machine, in the project's folder.

        Args:
            command: The command and its arguments.
            env: Variables beside PATH and HOME; nothing else comes from this process.
        """
        variables = {
            "HOME": str(self.home),
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "OMP_NUM_THREADS": "1",
            **env,
        }
        nsenter = ("nsenter", "--target", str(self._init.pid), *NAMESPACES)
        processes = f"--pid=/proc/{self._init.pid}/ns/pid_for_children"
        return subprocess.Popen(
            [*nsenter, processes, f"--wd={ROOT}", *command],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check(self, *command: str, timeout: float = 400.0, **env: str) -> str:
        """Run a command that must succeed, and return its output."""
        process = self.start(*command, **env)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{' '.join(command)} did not end: {error.output}") from None
        assert process.returncode == 0, f"{self.name}: {' '.join(command)}\n{output}"
        return output

    def connect(self, others: "list[Machine]") -> None:
        """Join this machine and the others by a switch that stands on this one."""
        self.check("ip", "link", "add", "name", "lan", "type", "bridge")
        self.check("ip", "addr", "add", f"{self.address}/24", "dev", "lan")
        self.check("ip", "link", "set", "lan", "up")
        for number, other in enumerate(others):
            other.plug(self, f"port{number}")

    def plug(self, switch: "Machine", port: str) -> None:
        """Lay a cable from this machine to a port of the switch, which is also its way out."""
        pair = f"ip link add name {port} type veth peer name eth0 netns {self._init.pid}"
        # Seen from outside, where the process number above has its meaning.
        net = f"--net=/proc/{switch._init.pid}/ns/net"
        subprocess.run(["nsenter", net, *pair.split()], check=True)
        switch.check("ip", "link", "set", port, "master", "lan", "up")
        self.check("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.check("ip", "link", "set", "eth0", "up")
        self.check("ip", "route", "add", "default", "via", switch.address)

    def ray_processes(self) -> list[str]:
        """Return the command lines of Ray's processes on the machine."""
        lines = self.check("ps", "-eo", "args=").splitlines()
        return [line for line in lines if RAY_PROCESS.search(line)]

    def close(self) -> None:
        """End every process on the machine; its network goes with them."""
        self._init.kill()
        self._init.wait()


def make_key(path: Path) -> None:
    """Write an SSH key pair without a passphrase."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
