"""Pieces of runs that need Ray but no whole chain: tasks, and a training of several workers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glioflow import cluster
from glioflow.config import Experiment, override
from glioflow.errors import UserError

ROOT = Path(__file__).parents[2]


def make_square() -> Callable[[int], int]:
    def square(number: int) -> int:  # inside a function, so that it travels by value: workers cannot import tests
        if number == 7:
            raise UserError("numbers are no sevens", number, [1, 2])
        return number * number

    return square


def test_tasks_answer_in_the_order_they_were_asked(ray: None) -> None:
    assert list(cluster.map_parallel(make_square(), range(6))) == [0, 1, 4, 9, 16, 25]


def test_a_mistake_in_a_task_arrives_with_its_rule_value_and_choices(ray: None) -> None:
    with pytest.raises(UserError) as caught:
        list(cluster.map_parallel(make_square(), [1, 7]))
    assert (caught.value.rule, caught.value.value, caught.value.choices) == ("numbers are no sevens", "7", ["1", "2"])


def test_a_training_that_can_never_fit_is_refused_with_the_numbers(ray: None, tiny: Experiment) -> None:
    from glioflow.runs.launch import check_resources

    with pytest.raises(UserError, match=r"needs 12 CPUs \(4 workers of 3\).*a cluster of 2"):
        check_resources(override(tiny, {"training.num_workers": 4, "training.cpus_per_worker": 3}))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_train_one_network_and_log_each_epoch_once(
    ray: None, tiny: Experiment, lgg: Path, tracking: Any, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from glioflow import bundle
    from glioflow.models import build_network
    from glioflow.runs.train.run import train

    handler = signal.getsignal(signal.SIGINT)
    save_file(build_network(tiny.model, in_channels=3, num_outputs=1).state_dict(), tmp_path / "start.safetensors")
    often = {"training.num_workers": 2, "training.checkpoint_minutes": 1e-6}  # after every step, too
    begun = {"training.start": os.path.relpath(tmp_path / "start.safetensors")}  # from this folder, as the driver's
    trained = train(override(tiny, {**often, **begun}), lgg)
    assert tracking.run(trained.run_id).info.status == "FINISHED"
    assert len(tracking.metric_history(trained.run_id, "val/dice")) == tiny.training.epochs
    assert tracking.run(trained.run_id).data.tags["glioflow.training.data"].startswith("disk: the CPU reads ")
    assert {"val/dice_mean", "test/dice_mean"} <= set(trained.metrics)
    folder, _ = tracking.find_bundle(trained.model_uri)
    assert bundle.load(folder).description.origin.num_patients == {"train": 4, "val": 2, "test": 2}
    assert signal.getsignal(signal.SIGINT) is handler, "Ctrl-C is swallowed after the training"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["waiting for a worker", "epoch 1 of"])
def test_ctrl_c_ends_a_training_at_once_even_while_it_waits_for_a_worker(
    ray: None, tiny: Experiment, lgg: Path, tracking: Any, moment: str
) -> None:
    from ray.util import placement_group, remove_placement_group

    from glioflow.runs.train.run import train

    pressed: list[float] = []
    taken: list[Any] = []

    def say(text: str, part: float | None = None) -> None:
        if text.startswith("run ") and moment == "waiting for a worker":
            taken.append(placement_group([{"CPU": 2}]))
        if moment in text and not pressed:
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            train(override(tiny, {"training.epochs": 1000}), lgg, say=say)
    finally:
        for each in taken:
            remove_placement_group(each)
    assert time.monotonic() < pressed[0] + 30
    (run,) = tracking.find_all("tiny")
    assert run.info.status == "KILLED"
    while cluster_of_two_has_less():
        assert time.monotonic() < pressed[0] + 60, "its worker still runs"
        time.sleep(0.2)


def cluster_of_two_has_less() -> bool:
    import ray

    return bool(ray.available_resources().get("CPU", 0) < 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_failed_is_resumed_under_its_own_id(ray: None, tiny: Experiment, lgg: Path, tracking: Any) -> None:
    from glioflow.runs.train import run as module

    patch = pytest.MonkeyPatch()
    patch.setattr(module, "score_test_patients", lambda plan: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        module.train(tiny, lgg)
    patch.undo()
    (run,) = tracking.find_all("tiny")
    assert run.info.status == "FAILED"
    again = module.train(tiny, lgg, resume=run.info.run_id)
    assert again.run_id == run.info.run_id
    assert tracking.run(again.run_id).info.status == "FINISHED"
    with pytest.raises(UserError, match="resume must be the id of an unfinished run"):
        module.train(tiny, lgg, resume=run.info.run_id)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_search_ends_killed_and_says_how_to_go_on(
    lgg: Path, home: Path, tracking: Any, stop: signal.Signals
) -> None:
    words = [
        "search",
        "experiments/demo.yaml",
        "--data",
        str(lgg),
        "-o",
        "search.name=cut",
        "-o",
        "training.epochs=200",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "glioflow", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 200

    def reported() -> bool:
        parent = tracking.find("demo", search="cut", kind="search")
        runs = [] if parent is None else tracking.children("demo", parent.info.run_id)
        return any("val/dice" in run.data.metrics for run in runs)

    while not reported():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no trial reported"
        time.sleep(1)
    process.send_signal(stop)
    output = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "stopping the trials" in output
    assert "--resume cut" in output
    parent = tracking.find("demo", search="cut", kind="search")
    assert parent is not None
    assert parent.info.status == "KILLED"
    assert "RUNNING" not in {run.info.status for run in tracking.children("demo", parent.info.run_id)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cross_validation_that_is_killed_goes_on_from_the_command_line(
    lgg: Path, home: Path, tracking: Any, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "name: tiny\npreprocess: [{step: unit}, {step: resize, size: 32}]\nmodel: {architecture: buda-unet}\n"
        "training: {epochs: 8, steps_per_epoch: 2, batch_size: 4, precision: fp32, cpus_per_worker: 2}\n"
    )
    words = [sys.executable, "-m", "glioflow", "crossval", str(file), "--data", str(lgg), "--folds", "3", "--json"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=ROOT, start_new_session=True, **options)
    deadline = time.monotonic() + 300

    def finished_folds() -> dict[str, int]:
        parents = tracking.find_all("tiny", **{"glioflow.kind": "crossval"})
        runs = tracking.children("tiny", parents[0].info.run_id) if parents else []
        return {run.info.run_id: run.info.end_time for run in runs if run.info.status == "FINISHED"}

    while not finished_folds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no fold finished"
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    before = finished_folds()
    assert 1 <= len(before) < 3
    (parent,) = tracking.find_all("tiny", **{"glioflow.kind": "crossval"})
    done = subprocess.run([*words, "--resume", parent.info.run_id], cwd=ROOT, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["run_id"] == parent.info.run_id
    after = finished_folds()
    assert len(after) == 3
    assert {run_id: after[run_id] for run_id in before} == before, "a finished fold was run again"
    rows = tracking.read_json(parent.info.run_id, "out_of_fold.json")
    assert [row["id"] for row in rows] == sorted(path.name for path in lgg.iterdir() if path.is_dir())
    assert tracking.run(parent.info.run_id).info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_folds_train_with_the_workers_that_the_experiment_names(
    ray: None, tiny: Experiment, lgg: Path, tracking: Any
) -> None:
    from glioflow.runs.crossval.run import crossval

    done = crossval(override(tiny, {"training.num_workers": 2, "training.epochs": 1}), lgg, folds=3)
    folds = tracking.children("tiny", done.run_id)
    assert {run.info.status for run in folds} == {"FINISHED"}
    assert [tracking.metric_history(run.info.run_id, "train/num_workers") for run in folds] == [[2.0]] * 3
