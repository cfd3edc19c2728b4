"""Head, worker and client as hosts of their own: network namespaces joined by a bridge, Ray's tokens on."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from bundles import TINY
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.tracking import Tracking

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ADDRESS = {"head": "10.77.0.1", "worker": "10.77.0.2", "client": "10.77.0.3"}
EPOCHS, TRIALS = 40, 4
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
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXPERIMENT = {
    **TINY,
    "model": {"architecture": "buda-unet", "options": {"features": [4, 8, 8, 8, 8]}},
    "training": {**TINY["training"], "epochs": EPOCHS},
    "search": {
        "name": "s",
        "sampler": "random",
        "scheduler": "none",
        "trials": TRIALS,
        "space": {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    },
}


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Hosts:
    """Three hosts at a switch, itself a namespace: this machine's own network is left as it is.

    A host has its network, processes and shared memory for itself; the disk is one, as a shared folder would be.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.prefix = place, f"gf{secrets.token_hex(3)}"
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

    def start(self, stack: ExitStack, host: str, log: str, *words: str, **more: str) -> subprocess.Popen[bytes]:
        """Start what goes on until `stack` ends, with all that it started."""
        # Whatever becomes of this process, what it started ends with it.
        own = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        memory = 'mount -t tmpfs -o size=512m shm /dev/shm; exec "$@"'
        with (self.place / log).open("wb") as out:
            process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "ip",
                    "netns",
                    "exec",
                    self.name(host),
                    *own,
                    "sh",
                    "-c",
                    memory,
                    "sh",
                    *words,
                ],
                env=self.environment(**more),
                cwd=self.place,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        stack.callback(process.wait, 30)
        stack.callback(process.kill)
        return process

    def ray(self, stack: ExitStack, host: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a Ray node of one CPU."""
        at = [f"--node-ip-address={ADDRESS[host]}", f"--temp-dir={self.place}/{host}", "--num-cpus=1"]
        return self.start(
            stack, host, f"ray-{host}.log", "ray", "start", "--block", "--object-store-memory=100000000", *at, *words
        )

    def client(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the client, to its end."""
        env = self.environment(RAY_ADDRESS=f"http://{ADDRESS['head']}:8265", **more)
        command = ["ip", "netns", "exec", self.name("client"), *words]
        return subprocess.run(command, env=env, cwd=self.place / "work", capture_output=True, text=True, check=False)

    def asks(self, url: str, token: str) -> str:
        """Return what the client is answered at `url`: the status, then the text; 0 where nobody answers."""
        return self.client("python", "-I", "-S", "-c", ASK, url, f"Bearer {token}").stdout

    def trials(self, host: str) -> int:
        """Return how many trials run on a host now."""
        pids = subprocess.run(["ip", "netns", "pids", self.name(host)], capture_output=True, text=True, check=False)
        titles = [Path(f"/proc/{pid}/cmdline") for pid in pids.stdout.split()]
        return sum(title.exists() and title.read_bytes().startswith(b"ray::ImplicitFunc") for title in titles)

    def logs(self) -> str:
        logs = (*self.place.glob("*.log"), *self.place.glob("head/session_2*/logs/job-driver-job.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))  # socket paths are short
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hosts(place: Path) -> Iterator[Hosts]:
    if not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("iproute2 is not installed (make system-packages)")
    with ExitStack() as stack:
        made = Hosts(place)
        try:
            made.connect(stack)
        except OSError as error:
            pytest.skip(f"network namespaces are not permitted here: {error}")
        yield made


def until(condition: Callable[[], bool], what: str, hosts: Hosts, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {hosts.logs()}"
        time.sleep(0.5)


def study_of(home: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{home / 'searches' / 's' / 'optuna.db'}"
    return list(optuna.load_study(study_name="s", storage=storage).trials)


def write_files(place: Path) -> None:
    (place / "work").mkdir()
    (place / "work" / "search.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    synthesize_lgg(place / "data", patients=8, seed=0, size=48, slices=(5, 7))


def submit_search(hosts: Hosts) -> None:
    place, head = hosts.place, ADDRESS["head"]
    variables = {"GLIOFLOW_HOME": str(place / "home"), "MLFLOW_TRACKING_URI": f"http://{head}:5000"}
    runtime = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT / "platform"), **variables}})
    submit = ("ray", "job", "submit", "--submission-id", "job", "--working-dir", ".", "--runtime-env-json", runtime)
    run = ("python", "-m", "glioflow", "search", "search.yaml", "--data", str(place / "data"), "--json")
    submitted = hosts.client(*submit, "--no-wait", "--", *run)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr


def test_a_search_outlives_a_worker_that_is_cut_off_and_comes_back(hosts: Hosts, place: Path) -> None:
    write_files(place)
    home, head = place / "home", ADDRESS["head"]
    with ExitStack() as stack:
        hosts.ray(stack, "head", "--head", "--port=6379", f"--dashboard-host={head}", "--dashboard-port=8265")
        server = {"MLFLOW_HOME": str(place / "mlflow"), "MLFLOW_HOST": head}
        hosts.start(stack, "head", "mlflow.log", str(ROOT / "mlflow" / "start.sh"), **server)
        jobs = f"http://{head}:8265/api/jobs/"
        until(lambda: hosts.asks(jobs, hosts.token).startswith("200"), "the head is not up", hosts)
        join = ("worker", f"--address={head}:6379")
        worker = hosts.ray(stack, *join)
        assert hosts.asks(jobs, "") in ("401\n", "403\n")
        refused = hosts.client("ray", "job", "submit", "--", "true", RAY_AUTH_TOKEN="0" * 64)
        assert refused.returncode != 0
        assert "token" in refused.stderr, refused.stderr
        health = f"http://{head}:5000/health"
        until(lambda: hosts.asks(health, "").startswith("200"), "MLflow is not up", hosts)
        submit_search(hosts)
        told = Tracking(f"sqlite:///{place / 'mlflow' / 'mlflow.db'}")

        def at_work() -> int:
            """Count the trials that reported and go on."""
            parent = told.find("tiny", search="s", kind="search")
            if parent is None or not told.children("tiny", parent.info.run_id):  # then the study is there
                return 0
            return sum(not t.state.is_finished() and len(t.intermediate_values) >= 1 for t in study_of(home))

        def reported() -> int:
            return sum(len(trial.intermediate_values) for trial in study_of(home))

        def log() -> str:
            (file,) = place.glob("head/session_2*/logs/job-driver-job.log")
            return file.read_text()

        until(lambda: at_work() >= 2 and hosts.trials("worker") == 1, "no trial on each host", hosts)
        hosts.plug("worker", "down")
        until(lambda: "has been marked dead" in log(), "nobody noticed that the worker is away", hosts)
        before = reported()
        until(lambda: reported() > before, "the search stood still without its worker", hosts)
        hosts.plug("worker", "up")
        worker.wait(60)  # told that it had been given up, it ends; whoever keeps services up starts it again
        hosts.ray(stack, *join)
        nodes = f"http://{head}:8265/nodes?view=summary"
        until(lambda: hosts.asks(nodes, hosts.token).count('"ALIVE"') >= 2, "the worker did not come back", hosts)
        until(lambda: '"SUCCEEDED"' in hosts.asks(f"{jobs}job", hosts.token), "the job did not end", hosts)
        said = hosts.client("ray", "job", "logs", "job").stdout
        assert f'"num_trials": {TRIALS}' in said, said[-3000:]
    _nothing_is_lost(home, told)


def _nothing_is_lost(home: Path, told: Tracking) -> None:
    assert [trial.state.name for trial in study_of(home)] == ["COMPLETE"] * TRIALS
    parent: Any = told.find("tiny", search="s", kind="search")
    assert parent.info.status == "FINISHED"
    runs = told.children("tiny", parent.info.run_id)
    assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS
    for run in runs:
        steps = [entry.step for entry in told.client.get_metric_history(run.info.run_id, "val/dice")]
        assert set(steps) == set(range(EPOCHS))
        assert steps.count(0) == 1, "a trial began anew"
