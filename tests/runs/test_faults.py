"""A search whose trials fail, each way really done, in one local cluster of two CPUs."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from glioflow.config import Experiment, override
from glioflow.errors import RunFailed
from glioflow.runs.search.board import Board

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RATES = {"kind": "choice", "values": [1e-3, 2e-3]}


@pytest.fixture
def searched(tiny: Experiment) -> Callable[..., Experiment]:
    """Return a function that gives an experiment with a search named `s`, other settings by dotted key."""

    def make(**search: Any) -> Experiment:
        changes = {"training.epochs": search.pop("epochs", 4), "training.num_workers": search.pop("num_workers", 1)}
        settings = {"name": "s", "sampler": "grid", "scheduler": "none", "space": {"training.learning_rate": RATES}}
        return override(tiny, {**changes, "search": {**settings, **search}})

    return make


def study_states(home: Path) -> list[str]:
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{home / 'searches' / 's' / 'optuna.db'}")
    return [trial.state.name for trial in study.trials]


def trial_runs(tracking: Any) -> dict[str, Any]:
    parent = tracking.find("tiny", search="s", kind="search")
    return {run.data.tags["trial_id"]: run for run in tracking.children("tiny", parent.info.run_id)}


def once_at(epoch: int, act: Callable[[], None]) -> Callable[[Board], None]:
    """Return what, given the table of trials, acts once when some trial has reached `epoch`."""
    done: list[bool] = []

    def show(board: Board) -> None:
        if not done and any(row.state == "running" and row.epoch >= epoch for row in board.rows.values()):
            done.append(True)
            act()

    return show


def kill_actors(name: str) -> None:
    import ray
    from ray.util.state import list_actors

    actors = list_actors(address=ray.get_runtime_context().gcs_address, limit=1000)  # other clusters may run here
    found = [actor for actor in actors if actor.state == "ALIVE" and name in actor.class_name]
    assert found, f"no actor {name}"
    for actor in found:
        os.kill(actor.pid, signal.SIGKILL)


def test_a_killed_trial_goes_on_from_its_last_checkpoint(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path
) -> None:
    from glioflow.runs.search.run import search

    handler = signal.getsignal(signal.SIGINT)
    done = search(searched(concurrent=1), lgg, show=once_at(2, lambda: kill_actors("ImplicitFunc")))
    assert done.num_trials == 2
    assert signal.getsignal(signal.SIGINT) is handler, "the first Ctrl-C is swallowed after the search"
    assert study_states(home) == ["COMPLETE"] * 2
    for run in trial_runs(tracking).values():
        assert run.info.status == "FINISHED"
        history = tracking.client.get_metric_history(run.info.run_id, "val/dice")
        assert {entry.step for entry in history} == {0, 1, 2, 3}
        assert sum(entry.step == 0 for entry in history) == 1, "it began anew"


def test_a_trial_whose_loss_is_no_number_fails_with_its_reason_and_the_search_goes_on(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path
) -> None:
    from glioflow.runs.search.run import search

    space = {"training.weight_decay": {"kind": "choice", "values": [1e30, 1e-4]}}
    heard: list[str] = []
    done = search(searched(space=space), lgg, say=lambda text, part=None: heard.append(text))
    assert study_states(home) == ["FAIL", "COMPLETE"]
    runs = trial_runs(tracking)
    assert (runs["0"].info.status, runs["1"].info.status) == ("FAILED", "FINISHED")
    assert "not finite" in runs["0"].data.tags["glioflow.reason"]
    assert any("failed: the training loss is not finite" in text for text in heard)
    assert done.best["params"] == {"training.weight_decay": 1e-4}


def test_storage_that_goes_away_ends_a_search_clearly_and_it_can_be_resumed(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path
) -> None:
    from glioflow.runs.search.run import search

    def lose_storage() -> None:
        (home / "runs").rename(home / "away")
        (home / "runs").write_text("no folder any more")

    with pytest.raises(RunFailed, match=r"cannot continue .*; solve this, and continue with resume=.s."):
        search(searched(concurrent=1), lgg, show=once_at(1, lose_storage))
    assert "FAIL" not in study_states(home)
    (home / "runs").unlink()
    (home / "away").rename(home / "runs")
    search(searched(concurrent=1), lgg, resume="s")
    assert study_states(home) == ["COMPLETE"] * 2
    assert {run.info.status for run in trial_runs(tracking).values()} == {"FINISHED"}


def test_a_population_exchanges_weights_and_parameters(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path
) -> None:
    from glioflow.runs.search.run import search

    space = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    done = search(searched(sampler="random", scheduler="pbt", space=space, trials=3), lgg)
    assert done.num_trials == 3
    assert {run.info.status for run in trial_runs(tracking).values()} == {"FINISHED"}
    assert 1e-5 < done.best["params"]["training.learning_rate"] < 1e-1
    again = search(searched(sampler="random", scheduler="pbt", space=space, trials=3), lgg, resume="s")
    assert (again.num_trials, again.best["run_id"]) == (3, done.best["run_id"])


def test_a_later_search_begins_with_the_best_points_of_earlier_ones(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path
) -> None:
    from glioflow.runs.search.run import search

    space = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    plain = {"sampler": "random", "space": space, "epochs": 1}
    first = search(searched(name="earlier", trials=2, **plain), lgg)
    search(searched(trials=1, warm_start=1, seed=9, **plain), lgg)
    (run,) = trial_runs(tracking).values()
    assert float(run.data.tags["param.training.learning_rate"]) == first.best["params"]["training.learning_rate"]


def all_but_the_first_stop(at: int = 0) -> Any:
    """Return a scheduler that stops every trial but the first at its first report from epoch `at` on."""
    from ray.tune.schedulers import FIFOScheduler

    class AllButTheFirst(FIFOScheduler):  # type: ignore[misc]
        first = None

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            self.first = self.first or trial.trial_id
            return str(self.CONTINUE if trial.trial_id == self.first or result["epoch"] < at else self.STOP)

    return AllButTheFirst()


def test_trials_of_two_workers_share_two_cpus_and_a_stopped_one_leaves_no_placement_group(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glioflow.runs.search import run as module

    monkeypatch.setattr(module, "build_scheduler", lambda experiment: all_but_the_first_stop())
    module.search(searched(num_workers=2, epochs=3), lgg)
    assert study_states(home) == ["COMPLETE", "PRUNED"]
    assert not open_groups()
    runs = trial_runs(tracking)
    assert [runs[number].info.status for number in ("0", "1")] == ["FINISHED", "KILLED"]
    assert runs["1"].data.tags["glioflow.pruned"] == "true"
    for run in runs.values():
        steps = [entry.step for entry in tracking.client.get_metric_history(run.info.run_id, "val/dice")]
        assert steps == sorted(set(steps)), "logged twice"


def open_groups() -> list[Any]:
    from ray.util import placement_group_table

    return [group for group in placement_group_table().values() if group["state"] != "REMOVED"]


def test_trials_on_folds_are_killed_and_stopped_in_the_second_fold_and_repeat_none(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glioflow.runs.search import run as module

    monkeypatch.setattr(module, "build_scheduler", lambda experiment: all_but_the_first_stop(at=5))
    # The checkpoint of the second fold's first epoch, 5 of all, is whole once the next epoch is reported.
    killing = once_at(6, lambda: kill_actors("ImplicitFunc"))
    done = module.search(searched(folds=2, concurrent=1), lgg, show=killing)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{home / 'searches' / 's' / 'optuna.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert list(study.trials[1].intermediate_values) == [1, 2, 3, 4, 5]
    runs = trial_runs(tracking)
    steps = [
        [entry.step for entry in tracking.client.get_metric_history(runs["0"].info.run_id, name)]
        for name in ("val/dice", "val_fold_0/dice", "val_fold_1/dice")
    ]
    assert set(steps[0]) == set(range(8))
    assert steps[1] == [0, 1, 2, 3], "the finished fold was repeated"
    assert set(steps[2]) == {4, 5, 6, 7}
    assert steps[2].count(4) == 1, "the open fold began anew"
    reached = runs["0"].data.metrics
    assert study.trials[0].value == pytest.approx(done.best["metrics"]["val/dice_mean"])
    assert 2 * reached["val/dice_mean"] == pytest.approx(
        reached["val_fold_0/dice_mean"] + reached["val_fold_1/dice_mean"]
    )


def test_a_search_for_survival_too_keeps_a_front_with_the_c_index_of_predicted_masks(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path
) -> None:
    from glioflow.runs.search.run import search

    space = {"survival.penalties": {"kind": "choice", "values": [[0.1], [10.0]]}}
    result = searched(folds=2, epochs=1, space=space, objectives=["dice", "c_index"])
    experiment = override(result, {"survival": {"min_patients": 4, "shape_features": ["asd"], "repeats": 2}})
    heard: list[str] = []
    done = search(experiment, lgg, say=lambda text, part=None: heard.append(text))
    assert any("C-index on the manual masks of the folds' 6 cases" in text for text in heard)
    for entry in done.front:
        run = tracking.run(entry["run_id"])
        assert entry["c_index"] == run.data.metrics["val/c_index"]
        assert entry["latency_ms"] > 0
    assert done.experiment.survival.penalties == tuple(done.best["params"]["survival.penalties"])


def test_a_trial_of_two_workers_whose_driver_is_killed_goes_on_and_leaves_no_placement_group(
    ray: None, searched: Any, lgg: Path, tracking: Any, home: Path
) -> None:
    from glioflow.runs.search.run import search

    killing = once_at(2, lambda: kill_actors("ImplicitFunc"))
    search(searched(num_workers=2, trials=1, epochs=12), lgg, show=killing)
    assert study_states(home)[0] == "COMPLETE"
    assert not open_groups()
    history = tracking.client.get_metric_history(trial_runs(tracking)["0"].info.run_id, "val/dice")
    assert {entry.step for entry in history} == set(range(12))
    assert sum(entry.step == 0 for entry in history) == 1, "it began anew"


def test_a_training_worker_that_is_killed_goes_on_from_its_last_checkpoint(
    ray: None, tiny: Experiment, lgg: Path, tracking: Any
) -> None:
    from glioflow.runs.train.run import train

    killed: list[str] = []

    def say(text: str, part: float | None = None) -> None:
        if not killed and text.startswith("epoch 6 of"):
            killed.append(text)
            kill_actors("RayTrainWorker")

    trained = train(override(tiny, {"training.epochs": 40, "training.steps_per_epoch": 8}), lgg, say=say)
    assert killed
    steps = [entry.step for entry in tracking.client.get_metric_history(trained.run_id, "val/dice")]
    assert set(steps) == set(range(40))
    assert steps.count(0) == 1, "it began anew"
    shutil.rmtree(Path(os.environ["GLIOFLOW_HOME"]) / "train")
