"""Searches that lose their driver, a node, their MLflow server or their memory, and what comes after."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from glioflow import cluster
from glioflow.config import override
from glioflow.runs.search.board import Board
from glioflow.tracking import Tracking

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

EXPERIMENT = """
name: tiny
preprocess: [{step: unit}, {step: resize, size: 32}]
split: {method: counts, counts: [4, 2, 2]}
model: {architecture: buda-unet}
training: {epochs: 6, steps_per_epoch: 2, batch_size: 4, precision: fp32}
search:
  name: s
  sampler: random
  scheduler: none
  trials: 3
  space:
    training.learning_rate: {kind: float, low: 1.0e-4, high: 1.0e-2, log: true}
"""


def run_search(file: Path, lgg: Path, *words: str) -> subprocess.Popen[str]:
    """Start `glioflow search`, its Ray a local one of its own."""
    command = [sys.executable, "-m", "glioflow", "search", str(file), "--data", str(lgg), "--json", *words]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **options)


def wait_for(condition: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def study_of(home: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{home / 'searches' / 's' / 'optuna.db'}"
    return list(optuna.load_study(study_name="s", storage=storage).trials)


def trial_runs(tracking: Tracking) -> dict[str, Any]:
    parent = tracking.find("tiny", search="s", kind="search")
    if parent is None:
        return {}
    return {run.data.tags["trial_id"]: run for run in tracking.children("tiny", parent.info.run_id)}


def steps_of(tracking: Tracking, run: Any) -> list[int]:
    return [entry.step for entry in tracking.client.get_metric_history(run.info.run_id, "val/dice")]


def test_a_search_whose_driver_is_killed_goes_on_without_repeating_or_losing_a_trial(
    experiment_file: Any, lgg: Path, home: Path, tracking: Tracking
) -> None:
    file = experiment_file(EXPERIMENT)
    # One at a time, so that the kill finds one finished, one at work and one not begun.
    process = run_search(file, lgg, "-o", "search.concurrent=1")

    wait_for(lambda: bool(trial_runs(tracking)), "no trial began", process)  # opening the study now makes no database

    def one_ended_one_at_work() -> bool:
        trials = study_of(home)
        return len(trials) == 2 and trials[0].state.is_finished() and len(trials[1].intermediate_values) >= 2

    wait_for(one_ended_one_at_work, "the second trial never reported", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    before = study_of(home)
    assert [trial.state.name for trial in before] == ["COMPLETE", "RUNNING"]
    first = trial_runs(tracking)["0"]

    output, errors = run_search(file, lgg, "-o", "search.concurrent=1", "--resume", "s").communicate(timeout=200)
    assert json.loads(output.splitlines()[-1])["num_trials"] == 3, errors
    after = study_of(home)
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 3
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before]
    runs = trial_runs(tracking)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["0"].info.end_time == first.info.end_time, "a finished trial was run again"
    assert steps_of(tracking, runs["0"]) == list(range(6))
    assert steps_of(tracking, runs["1"]).count(0) == 1, "the open trial began anew"
    assert set(steps_of(tracking, runs["1"])) == set(range(6))


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Return a function that starts an MLflow server on one and the same port and store each time."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "MLFLOW_HOME": str(tmp_path / "server"),
            "MLFLOW_PORT": str(free_port),
            "MLFLOW_BIN": str(Path(sys.executable).parent / "mlflow"),
        }
        started.append(subprocess.Popen([str(ROOT / "mlflow" / "start.sh")], env=env, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tracking_url(server: Any, free_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start the server and return its address, which every process of the test knows."""
    url = f"http://127.0.0.1:{free_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    return url


def test_a_search_outlives_its_mlflow_server_being_away_and_all_metrics_arrive(
    experiment_file: Any, lgg: Path, home: Path, server: Any, tracking_url: str
) -> None:
    first = server()
    tracking = Tracking(tracking_url, patience_s=120)
    file = experiment_file(EXPERIMENT)
    process = run_search(file, lgg, "-o", "search.trials=2", "-o", "training.epochs=12")
    wait_for(lambda: bool(trial_runs(tracking)), "no trial began", process)
    wait_for(lambda: any(len(trial.intermediate_values) >= 2 for trial in study_of(home)), "no trial reported", process)
    stop(first)
    reached = max(len(trial.intermediate_values) for trial in study_of(home))
    wait_for(
        lambda: (
            any(len(trial.intermediate_values) >= reached + 3 for trial in study_of(home))
            or any(trial.state.is_finished() for trial in study_of(home))
        ),
        "the search stood still without its server",
        process,
    )
    server()
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    assert json.loads(output.splitlines()[-1])["num_trials"] == 2
    for run in trial_runs(tracking).values():
        assert run.info.status == "FINISHED"
        assert steps_of(tracking, run) == list(range(12))


def test_a_trial_that_runs_out_of_memory_fails_with_that_reason_and_the_search_goes_on(
    from_yaml: Any, lgg: Path, home: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    from glioflow.runs.search.run import search

    batch = {"kind": "choice", "values": [3072, 4]}
    experiment = override(
        from_yaml(EXPERIMENT), {"search.sampler": "grid", "search.space": {"training.batch_size": batch}}
    )
    # A step on so many slices takes some gigabytes; Ray ends whoever takes the machine 3.5 of them above today's use.
    memory = psutil.virtual_memory()
    threshold = 1 - (memory.available - 3.5e9) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    try:
        cluster.connect(num_cpus=1)
        done = search(experiment, lgg)
    finally:
        cluster.disconnect()
    assert [trial.state.name for trial in study_of(home)] == ["FAIL", "COMPLETE"]
    runs = trial_runs(tracking)
    assert (runs["0"].info.status, runs["1"].info.status) == ("FAILED", "FINISHED")
    assert "out of memory" in runs["0"].data.tags["glioflow.reason"]
    assert done.best["params"] == {"training.batch_size": 4}


@pytest.fixture
def hosts(server: Any, tracking_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start MLflow's server and, for all that follows, a cluster whose head has one CPU."""
    from ray.cluster_utils import Cluster

    server()
    cluster.silence()
    hosts = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", hosts.address)
    yield hosts
    cluster.disconnect()
    hosts.shutdown()


def test_a_node_that_is_lost_in_the_middle_costs_no_trial(
    from_yaml: Any, lgg: Path, home: Path, hosts: Any, tracking_url: str
) -> None:
    from glioflow.runs.search.run import search

    tracking = Tracking(tracking_url, patience_s=120)
    second = hosts.add_node(num_cpus=1)
    lost: list[threading.Thread] = []

    def lose_a_node(board: Board) -> None:
        # A thread writes checkpoints, and a later one waits for it: from the third epoch on one is there.
        at_work = [row for row in board.rows.values() if row.state == "running" and row.epoch >= 3]
        if not lost and len(at_work) == 2:
            lost.append(threading.Thread(target=hosts.remove_node, args=(second,)))
            lost[0].start()

    done = search(override(from_yaml(EXPERIMENT), {"training.epochs": 30}), lgg, show=lose_a_node)
    assert lost, "two trials never ran at once"
    assert cluster.resources() == {"CPU": 1.0, "GPU": 0.0, "nodes": 1.0}
    assert done.num_trials == 3
    assert [trial.state.name for trial in study_of(home)] == ["COMPLETE"] * 3
    for run in trial_runs(tracking).values():
        assert run.info.status == "FINISHED"
        assert set(steps_of(tracking, run)) == set(range(30))
        assert steps_of(tracking, run).count(0) == 1, "a trial began anew"


@pytest.mark.timeout(800)
def test_a_node_whose_end_is_announced_leaves_checkpoints_from_within_an_epoch_and_costs_no_trial(
    from_yaml: Any, lgg: Path, home: Path, hosts: Any, tracking_url: str
) -> None:
    from glioflow.runs.search.run import search

    tracking = Tracking(tracking_url, patience_s=120)
    second = hosts.add_node(num_cpus=1)
    in_the_first_epoch: list[Path] = []

    def leave_once_both_train() -> None:
        wait_for(lambda: len(list(home.glob("runs/*/progress*"))) == 2, "two trials never ran at once")
        node = ["--address", hosts.address, "--node-id", second.node_id, "--deadline-remaining-seconds", "120"]
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a spot node is taken back"]
        subprocess.run([Path(sys.executable).with_name("ray"), "drain-node", *node, *reason], check=True)
        wait_for(lambda: len(list(home.glob("runs/*/checkpoint/**/*.pt"))) == 2, "no checkpoint was written")
        in_the_first_epoch.extend(home.glob("runs/*/checkpoint/**/*.pt"))
        hosts.remove_node(second)

    leaving = threading.Thread(target=leave_once_both_train)
    leaving.start()
    changes = {"training.epochs": 1, "training.steps_per_epoch": 600, "search.trials": 2}
    search(override(from_yaml(EXPERIMENT), changes), lgg)
    leaving.join()
    assert len(in_the_first_epoch) == 2
    assert [trial.state.name for trial in study_of(home)] == ["COMPLETE"] * 2
    for run in trial_runs(tracking).values():
        assert run.info.status == "FINISHED"
        assert steps_of(tracking, run) == [0]


def test_a_trial_of_two_workers_that_loses_the_node_of_one_goes_on_elsewhere(
    from_yaml: Any, lgg: Path, home: Path, hosts: Any, tracking_url: str
) -> None:
    from ray.util import placement_group_table

    from glioflow.runs.search.run import search

    tracking = Tracking(tracking_url, patience_s=120)
    others = {node.node_id: node for node in (hosts.add_node(num_cpus=1), hosts.add_node(num_cpus=1))}
    lost: list[threading.Thread] = []

    def lose_a_worker(board: Board) -> None:
        if not lost and any(row.epoch >= 2 for row in board.rows.values()):
            groups = [group["bundles_to_node_id"] for group in placement_group_table().values()]
            used = [node for group in groups if len(group) == 2 for node in group.values() if node in others]
            lost.append(threading.Thread(target=hosts.remove_node, args=(others[used[0]],)))
            lost[0].start()

    changes = {"training.epochs": 30, "training.num_workers": 2, "search.trials": 1}
    search(override(from_yaml(EXPERIMENT), changes), lgg, show=lose_a_worker)
    assert lost
    assert [trial.state.name for trial in study_of(home)] == ["COMPLETE"]
    (run,) = trial_runs(tracking).values()
    assert set(steps_of(tracking, run)) == set(range(30))
    assert steps_of(tracking, run).count(0) == 1, "it began anew"


def test_a_training_of_an_elastic_size_goes_on_with_fewer_workers_when_a_node_is_lost(
    from_yaml: Any, lgg: Path, home: Path, hosts: Any, tracking_url: str
) -> None:
    from glioflow.runs.train.run import train

    tracking = Tracking(tracking_url, patience_s=120)
    second = hosts.add_node(num_cpus=1)
    lost: list[threading.Thread] = []

    def say(text: str, part: float | None = None) -> None:
        if not lost and text.startswith("epoch 3 of"):
            lost.append(threading.Thread(target=hosts.remove_node, args=(second,)))
            lost[0].start()

    done = train(override(from_yaml(EXPERIMENT), {"training.epochs": 60, "training.num_workers": [1, 2]}), lgg, say=say)
    sizes = tracking.metric_history(done.run_id, "train/num_workers")
    assert (sizes[0], sizes[-1]) == (2, 1)
    history = tracking.client.get_metric_history(done.run_id, "val/dice")
    assert {entry.step for entry in history} == set(range(60))
    assert sum(entry.step == 0 for entry in history) == 1, "it began anew"
