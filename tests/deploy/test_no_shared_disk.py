"""Two nodes that share no folder, an object store as home: from a search whose driver is killed to a served answer."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from bundles import TINY
from glioflow.cluster.lease import STALE_S
from glioflow.data.synthetic.cohort import synthesize_lgg
from hosts import ADDRESS, ROOT, Hosts

TRIALS = 3
HEAD, STORES = ADDRESS["head"], ADDRESS["client"]
S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": f"http://{STORES}:5001",
}
MAKE_BUCKET = "import boto3; boto3.client('s3').create_bucket(Bucket='home')"
# A training over both nodes that is good enough for the gate.
LONGER = {"num_workers": 2, "epochs": 5, "steps_per_epoch": 20, "batch_size": 8, "learning_rate": 0.02}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXPERIMENT = {
    **TINY,
    "preprocess": [{"step": "unit"}, {"step": "resize", "size": 48}],
    "model": {"architecture": "buda-unet", "options": {"features": [8, 8, 8, 8, 8]}},
    "loss": {"name": "dice_bce"},
    "gate": {"min_patients": 2, "max_calibration_error": None},
    "search": {
        "name": "s",
        "sampler": "random",
        "scheduler": "none",
        "trials": TRIALS,
        "space": {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    },
}


class Cluster:
    """A head and a worker with a disk each, and the stores on a third host."""

    def __init__(self, hosts: Hosts, stack: ExitStack) -> None:
        self.hosts, self.stack, self.commands = hosts, stack, 0
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self) -> None:
        hosts, start = self.hosts, self.hosts.start
        start(self.stack, "client", "s3.log", "moto_server", "-H", STORES, "-p", "5001")
        server = {"MLFLOW_HOME": f"{hosts.folder}/mlflow", "MLFLOW_HOST": STORES}
        start(self.stack, "client", "mlflow.log", str(ROOT / "mlflow" / "start.sh"), **server)
        self.join("head", "--head", "--port=6379", f"--dashboard-host={HEAD}", "--dashboard-port=8265")
        hosts.until(lambda: hosts.asks(f"http://{HEAD}:8265/api/jobs/", hosts.token).startswith("200"), "no head")
        self.join("worker", f"--address={HEAD}:6379")
        hosts.until(lambda: hosts.asks(f"http://{STORES}:5000/health", "").startswith("200"), "no MLflow")
        made = hosts.client("python", "-c", MAKE_BUCKET, **S3)
        assert made.returncode == 0, made.stderr
        nodes = f"http://{HEAD}:8265/nodes?view=summary"
        hosts.until(lambda: hosts.asks(nodes, hosts.token).count('"ALIVE"') >= 2, "no worker")

    def join(self, host: str, *words: str) -> None:
        # Gloo would take the address of the host's name, which is this machine's on all of them.
        own = {"HOME": str(self.hosts.folder), "GLOO_SOCKET_IFNAME": "eth0", "PYTHONPATH": str(ROOT / "platform")}
        self.nodes[host] = self.hosts.ray(self.stack, host, *words, alone=True, **own)

    def begin_at(self, host: str, *words: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start a command of ours on a node; return it and the name of its log."""
        self.commands += 1
        log = f"{self.commands:02}-{words[0]}.log"
        folder = self.hosts.folder
        home = {
            "GLIOFLOW_HOME": "s3://home/gf",
            "GLIOFLOW_CACHE": f"{folder}/cache",
            "MLFLOW_TRACKING_URI": f"http://{STORES}:5000",
            "RAY_ADDRESS": f"{HEAD}:6379",
            "PYTHONPATH": str(ROOT / "platform"),
            "HOME": str(folder),
        }
        command = ("python", "-m", "glioflow", *words)
        return self.hosts.inside(self.stack, self.nodes[host], log, *command, **S3, **home), log

    def output(self, log: str) -> str:
        return (self.hosts.folder / log).read_text()

    def at(self, host: str, *words: str) -> dict[str, Any]:
        """Run a command of ours on a node, to its end, and return its JSON."""
        process, log = self.begin_at(host, *words, "--json")
        assert process.wait(240) == 0, f"{' '.join(words)}: {self.hosts.logs()}"
        answer: dict[str, Any] = json.loads(self.output(log).splitlines()[-1])
        return answer

    def file_at(self, host: str, path: str) -> str:
        """Return what a file on the disk of a node says."""
        process = self.hosts.inside(self.stack, self.nodes[host], "file", "cat", path)
        assert process.wait(10) == 0, path
        return self.output("file")

    def killed(self, begun: tuple[subprocess.Popen[bytes], str], far: Callable[[str], bool]) -> str:
        """Kill a command as soon as it has come so `far`, as its output tells; return that output."""
        process, log = begun
        self.hosts.until(lambda: far(self.output(log)) or process.poll() is not None, f"{log} came not so far")
        assert process.poll() is None, self.output(log)
        process.kill()
        process.wait()
        return self.output(log)

    def epochs(self, run_id: str) -> list[int]:
        """Return the epochs of a run that MLflow has; one that was done twice stands twice."""
        url = f"http://{STORES}:5000/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=val/dice"
        status, _, answer = self.hosts.asks(url, "").partition(" ")
        return [int(each.get("step", 0)) for each in json.loads(answer).get("metrics", [])] if status == "200" else []


def run_of(text: str) -> str:
    """Return the run id that a command has printed; empty before."""
    match = re.search(r"\brun ([0-9a-f]{32})", text)
    return match[1] if match else ""


@pytest.fixture
def cluster(hosts: Hosts) -> Iterator[Cluster]:
    work = hosts.folder / "work"
    work.mkdir()
    (work / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    synthesize_lgg(work / "lgg", patients=8, seed=0, size=48, slices=(5, 7))
    with ExitStack() as stack:
        made = Cluster(hosts, stack)
        made.begin()
        yield made


def test_from_a_search_to_an_answer_over_two_nodes_that_share_no_folder(cluster: Cluster) -> None:
    run = ("tiny.yaml", "--data", "lgg")
    cluster.killed(cluster.begin_at("head", "search", *run), lambda output: "trial 1 of 3: finished" in output)
    killed = time.monotonic()
    train = ("train", *run, *(word for key, value in LONGER.items() for word in ("-o", f"training.{key}={value}")))
    begun = cluster.begin_at("head", *train)
    run_id = run_of(cluster.killed(begun, lambda output: len(cluster.epochs(run_of(output))) >= 3))

    # Another host cannot see that the driver ended: it takes its lease once nobody has renewed that.
    time.sleep(max(0, killed + STALE_S + 2 - time.monotonic()))
    searched = cluster.at("worker", "search", *run, "--resume", "s")
    assert searched["num_trials"] == TRIALS
    trained = cluster.at("head", *train, "--resume", run_id)
    assert trained["run_id"] == run_id
    epochs = cluster.epochs(run_id)
    assert set(epochs) == set(range(LONGER["epochs"]))
    assert epochs.count(0) == 1, "the training began anew"
    crossed = cluster.at("worker", "crossval", *run, "--folds", "3")
    assert len(crossed["per_patient"]) == 8
    registered = cluster.at("worker", "register", run_id)
    decided = cluster.at("head", "promote", registered["name"], "--data", "lgg")
    assert decided["decision"] == "promoted", decided

    serving, log = cluster.begin_at("head", "serve", "--name", "tiny", "--port", "8000")
    cluster.hosts.until(lambda: "serving tiny" in cluster.output(log) or serving.poll() is not None, "not served")
    study = sorted((cluster.hosts.folder / "work" / "lgg").glob("TCGA*"))[0].name
    cluster.at("head", "predict", "http://127.0.0.1:8000", f"lgg/{study}", "--out", "answers")
    answer = json.loads(cluster.file_at("head", f"answers/{study}/answer.json"))
    assert answer["model"] == {"name": "tiny", "version": 1, "run_id": run_id}
    assert answer["tumor"]["detected"]
