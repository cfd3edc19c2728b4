"""The whole of deploy/compose.yaml as processes on loopback, by its own commands, settings and secrets."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from glioflow.data.synthetic.cohort import synthesize_lgg
from servers import free_port, postgres

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
ENTRYPOINT = ["glioflow"]  # the image's
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Topology:
    """The services' commands and settings with containers' names, ports and folders made those of this machine."""

    def __init__(self, folder: Path, postgres_uri: str) -> None:
        self.folder = folder
        subprocess.run([ROOT / "deploy" / "make-secrets.sh", folder / "secrets"], check=True, capture_output=True)
        self.ports = {port: free_port() for port in ("5000", "6379", "8265", "8000", "8501")}
        self.replacements = [
            (r"postgresql\+psycopg://mlflow@postgres/mlflow", postgres_uri),
            ("/run/secrets/", f"{folder}/secrets/"),
            ("/var/lib/glioflow", f"{folder}/home"),
            ("/var/lib/mlflow", f"{folder}/mlflow"),
            ("/opt/glioflow", str(ROOT)),
            (r"^/data$", f"{folder}/data"),
            *((rf"(?<=[/=]){name}(?=:\d)", "127.0.0.1") for name in COMPOSE["services"]),
            (r"\b0\.0\.0\.0\b", "127.0.0.1"),
            *((rf"(?<!\d){port}(?!\d)", str(mine)) for port, mine in self.ports.items()),
        ]

    def here(self, text: str) -> str:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))
        for pattern, replacement in self.replacements:
            text = re.sub(pattern, replacement.replace("\\", "\\\\"), text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        settings = {key: self.here(value) for key, value in COMPOSE["services"][name].get("environment", {}).items()}
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0", **settings}

    def command(self, name: str) -> list[str]:
        service = COMPOSE["services"][name]
        words = [self.here(word) for word in [*service.get("entrypoint", ENTRYPOINT), *service.get("command", [])]]
        if words[0] == "ray":  # two nodes on one machine need sockets and ports of their own
            words = [word.replace("metrics-export-port=8080", f"metrics-export-port={free_port()}") for word in words]
            words += [f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=200000000"]
            if "--head" in words:
                words.append(f"--temp-dir={self.folder}/ray")
        return words

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def until(self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool], seconds: int = 120) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert process.poll() is None, f"{name} ended: {self.log(name)}"
            assert time.monotonic() < deadline, f"{name} is not ready: {self.log(name)}"
            time.sleep(1)

    def job(self, *words: str) -> dict[str, Any]:
        """Submit a job as the service `client` would, and return the JSON that it ends with."""
        done = subprocess.run(
            ["ray", "job", "submit", "--working-dir", self.folder / "work", "--", "python", "-m", "glioflow", *words],
            env=self.environment("client"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return dict(json.loads(answers[-1]))


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_the_compose_file_runs_from_a_search_to_an_answer() -> None:
    folder = Path(tempfile.mkdtemp(prefix="gt", dir="/tmp"))  # socket paths are short
    try:
        with ExitStack() as stack:
            topology = Topology(folder, stack.enter_context(postgres()))
            _prepare_files(folder)

            def start(name: str, ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
                process = stack.enter_context(topology.running(name))
                topology.until(name, process, ready)
                return process

            at = {port: f"http://127.0.0.1:{mine}" for port, mine in topology.ports.items()}
            start("mlflow", lambda: answers(at["5000"] + "/health"))
            assert requests.get(at["5000"] + "/api/2.0/mlflow/experiments/search", timeout=10).status_code == 401
            client = topology.environment("client")

            jobs = ["ray", "job", "list"]
            start("ray-head", lambda: not subprocess.run(jobs, env=client, capture_output=True).returncode)

            options = ("-o", "gate.min_patients=1", "-o", "search.name=whole")
            searched = topology.job(
                "search", "demo.yaml", "--data", f"{folder}/data/cohort", "--trials", "1", *options, "--json"
            )
            registered = topology.job("register", searched["best"]["run_id"], "--name", "whole", "--json")
            assert registered == {"name": "whole", "version": 1}
            verdict = topology.job("promote", "whole", "--json")
            assert verdict["decision"] == "promoted", verdict

            start("endpoint", lambda: answers(at["8000"] + "/readyz"))
            start("page", lambda: answers(at["8501"] + "/healthz"))
            slices = sorted((folder / "data" / "cohort").glob("TCGA_*"))[0].glob("*.tif")
            files = [("files", (path.name, path.read_bytes())) for path in slices if "_mask" not in path.name]
            url = at["8000"] + "/v1/predict"
            assert requests.post(url, files=files, timeout=60).status_code == 401
            token = (folder / "secrets" / "endpoint_token").read_text()
            answer = requests.post(url, files=files, headers={"Authorization": f"Bearer {token}"}, timeout=120)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"]["name"] == "whole"
            assert answer.json()["model"]["version"] == 1
            start("ray-worker", lambda: "Ray runtime started" in topology.log("ray-worker"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare_files(folder: Path) -> None:
    for name in ("home", "mlflow", "data", "work"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copy(ROOT / "experiments" / "demo.yaml", folder / "work")
    synthesize_lgg(folder / "data" / "cohort", patients=8, seed=0, size=64)
