"""Hosts for tests: network namespaces joined by a bridge, Ray's tokens on, with one disk or each with its own."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ADDRESS = {"head": "10.77.0.1", "worker": "10.77.0.2", "client": "10.77.0.3"}
# What a client asks over HTTP, cheaper than Ray's command line: prints the status and the answer.
ASK = """
import sys, urllib.error, urllib.request
try:
    asked = urllib.request.Request(sys.argv[1], headers={"Authorization": sys.argv[2]})
    answer = urllib.request.urlopen(asked, timeout=5)
    print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
"""
_MEMORY = 'mount -t tmpfs -o size=512m shm /dev/shm; exec "$@"'
# $0 is the hosts' folder: a host has a copy of what its folder `work` holds, and can write nowhere else.
_DISK = """
set -e
mount -t tmpfs -o size=512m shm /dev/shm
cp -r "$0/work" /dev/shm/work
mount -t tmpfs disk /tmp
mkdir -p "$0"
mv /dev/shm/work "$0/work"
mount -o remount,bind,ro /
cd "$0/work"
exec "$@"
"""


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Hosts:
    """Three hosts at a switch, itself a namespace: this machine's own network is left as it is.

    A host has its network, processes and shared memory for itself. The disk is one, as a shared folder would be, but
    for what is started with `alone`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix = folder, f"gf{secrets.token_hex(3)}"
        self.token = secrets.token_hex(32)

    def name(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def connect(self, stack: ExitStack) -> None:
        """Make the hosts, to be taken away when `stack` ends.

        Raises:
            OSError: Where that is not permitted.
        """
        switch = self.name("switch")
        for name in (switch, *map(self.name, ADDRESS)):
            ip("netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host, address in ADDRESS.items():
            name = self.name(host)
            ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", switch, "link", "set", host, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", name, "link", "set", link, "up")

    def plug(self, host: str, state: str) -> None:
        """Cut (`down`) or restore (`up`) the cable of a host."""
        ip("-n", self.name("switch"), "link", "set", host, state)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        return {
            **kept,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_worker_register_timeout_seconds": "300",
            # A lost node is noticed in seconds, not in the half minute of Ray's defaults.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "5000",
            "RAY_health_check_failure_threshold": "3",
            **more,
        }

    def start(
        self, stack: ExitStack, host: str, log: str, *words: str, alone: bool = False, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start what goes on until `stack` ends, with all that it started; `alone`, with a disk of its own."""
        # Whatever becomes of this process, what it started ends with it.
        own = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inner = ["sh", "-c", _DISK, str(self.folder)] if alone else ["sh", "-c", _MEMORY, "sh"]
        outer = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name(host)]
        return self._open(stack, log, [*outer, *own, *inner, *words], more)

    def inside(
        self, stack: ExitStack, node: subprocess.Popen[bytes], log: str, *words: str, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start something on the host and the disk of what was started alone; it ends with the process returned."""
        first = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()[0]
        enter = ["nsenter", "--target", first, "--mount", "--net", "--pid", "setpriv", "--pdeathsig", "KILL"]
        return self._open(stack, log, [*enter, "env", "-C", f"{self.folder}/work", *words], more)

    def _open(self, stack: ExitStack, log: str, command: list[str], more: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as out:
            process = subprocess.Popen(
                command, env=self.environment(**more), cwd=self.folder, stdout=out, stderr=subprocess.STDOUT
            )
        stack.callback(process.wait, 30)
        stack.callback(process.kill)
        return process

    def ray(
        self, stack: ExitStack, host: str, *words: str, alone: bool = False, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a Ray node of one CPU."""
        at = [f"--node-ip-address={ADDRESS[host]}", f"--temp-dir={self.folder}/{host}", "--num-cpus=1"]
        start = ("ray", "start", "--block", "--object-store-memory=100000000", *at, *words)
        return self.start(stack, host, f"ray-{host}.log", *start, alone=alone, **more)

    def client(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the client, to its end."""
        env = self.environment(RAY_ADDRESS=f"http://{ADDRESS['head']}:8265", **more)
        command = ["ip", "netns", "exec", self.name("client"), *words]
        return subprocess.run(command, env=env, cwd=self.folder / "work", capture_output=True, text=True, check=False)

    def asks(self, url: str, token: str) -> str:
        """Return what the client is answered at `url`: the status, then the text; 0 where nobody answers."""
        return self.client("python", "-I", "-S", "-c", ASK, url, f"Bearer {token}").stdout

    def trials(self, host: str) -> int:
        """Return how many trials run on a host now."""
        pids = subprocess.run(["ip", "netns", "pids", self.name(host)], capture_output=True, text=True, check=False)
        titles = [Path(f"/proc/{pid}/cmdline") for pid in pids.stdout.split()]
        return sum(title.exists() and title.read_bytes().startswith(b"ray::ImplicitFunc") for title in titles)

    def logs(self) -> str:
        logs = (*self.folder.glob("*.log"), *self.folder.glob("head/session_2*/logs/job-driver-job.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
        """Wait until something is so, else fail with `what` and all logs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.logs()}"
            time.sleep(0.5)


@contextmanager
def made_hosts() -> Iterator[Hosts]:
    """Make hosts with a folder for their files; skip the test where that is not permitted."""
    for program in ("ip", "unshare", "nsenter", "setpriv"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (make system-packages)")
    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))  # socket paths are short
    try:
        with ExitStack() as stack:
            made = Hosts(folder)
            try:
                made.connect(stack)
            except OSError as error:
                pytest.skip(f"network namespaces are not permitted here: {error}")
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
