"""Head, worker and client as hosts of their own: network namespaces joined by a bridge, Ray's tokens on."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from bundles import TINY
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.tracking import Tracking
from hosts import ADDRESS, ROOT, Hosts

EPOCHS, TRIALS = 40, 4
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


def study_of(home: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{home / 'searches' / 's' / 'optuna.db'}"
    return list(optuna.load_study(study_name="s", storage=storage).trials)


def write_files(folder: Path) -> None:
    (folder / "work").mkdir()
    (folder / "work" / "search.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    synthesize_lgg(folder / "data", patients=8, seed=0, size=48, slices=(5, 7))


def submit_search(hosts: Hosts) -> None:
    folder, head = hosts.folder, ADDRESS["head"]
    variables = {"GLIOFLOW_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": f"http://{head}:5000"}
    runtime = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT / "platform"), **variables}})
    submit = ("ray", "job", "submit", "--submission-id", "job", "--working-dir", ".", "--runtime-env-json", runtime)
    run = ("python", "-m", "glioflow", "search", "search.yaml", "--data", str(folder / "data"), "--json")
    submitted = hosts.client(*submit, "--no-wait", "--", *run)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr


def test_a_search_outlives_a_worker_that_is_cut_off_and_comes_back(hosts: Hosts) -> None:
    folder = hosts.folder
    write_files(folder)
    home, head = folder / "home", ADDRESS["head"]
    with ExitStack() as stack:
        hosts.ray(stack, "head", "--head", "--port=6379", f"--dashboard-host={head}", "--dashboard-port=8265")
        server = {"MLFLOW_HOME": str(folder / "mlflow"), "MLFLOW_HOST": head}
        hosts.start(stack, "head", "mlflow.log", str(ROOT / "mlflow" / "start.sh"), **server)
        jobs = f"http://{head}:8265/api/jobs/"
        hosts.until(lambda: hosts.asks(jobs, hosts.token).startswith("200"), "the head is not up")
        join = ("worker", f"--address={head}:6379")
        worker = hosts.ray(stack, *join)
        assert hosts.asks(jobs, "") in ("401\n", "403\n")
        refused = hosts.client("ray", "job", "submit", "--", "true", RAY_AUTH_TOKEN="0" * 64)
        assert refused.returncode != 0
        assert "token" in refused.stderr, refused.stderr
        health = f"http://{head}:5000/health"
        hosts.until(lambda: hosts.asks(health, "").startswith("200"), "MLflow is not up")
        submit_search(hosts)
        tracking = Tracking(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")

        def at_work() -> int:
            """Count the trials that reported and go on."""
            parent = tracking.find("tiny", search="s", kind="search")
            if parent is None or not tracking.children("tiny", parent.info.run_id):  # then the study is there
                return 0
            return sum(not t.state.is_finished() and len(t.intermediate_values) >= 1 for t in study_of(home))

        def reported() -> int:
            return sum(len(trial.intermediate_values) for trial in study_of(home))

        def log() -> str:
            (file,) = folder.glob("head/session_2*/logs/job-driver-job.log")
            return file.read_text()

        hosts.until(lambda: at_work() >= 2 and hosts.trials("worker") == 1, "no trial on each host")
        hosts.plug("worker", "down")
        hosts.until(lambda: "has been marked dead" in log(), "nobody noticed that the worker is away")
        before = reported()
        hosts.until(lambda: reported() > before, "the search stood still without its worker")
        hosts.plug("worker", "up")
        worker.wait(60)  # told that it had been given up, it ends; whoever keeps services up starts it again
        hosts.ray(stack, *join)
        nodes = f"http://{head}:8265/nodes?view=summary"
        hosts.until(lambda: hosts.asks(nodes, hosts.token).count('"ALIVE"') >= 2, "the worker did not come back")
        hosts.until(lambda: '"SUCCEEDED"' in hosts.asks(f"{jobs}job", hosts.token), "the job did not end")
        output = hosts.client("ray", "job", "logs", "job").stdout
        assert f'"num_trials": {TRIALS}' in output, output[-3000:]
    _nothing_is_lost(home, tracking)


def _nothing_is_lost(home: Path, tracking: Tracking) -> None:
    assert [trial.state.name for trial in study_of(home)] == ["COMPLETE"] * TRIALS
    parent: Any = tracking.find("tiny", search="s", kind="search")
    assert parent.info.status == "FINISHED"
    runs = tracking.children("tiny", parent.info.run_id)
    assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS
    for run in runs:
        steps = [entry.step for entry in tracking.client.get_metric_history(run.info.run_id, "val/dice")]
        assert set(steps) == set(range(EPOCHS))
        assert steps.count(0) == 1, "a trial began anew"
