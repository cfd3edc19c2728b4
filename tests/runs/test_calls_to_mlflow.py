"""How often a trial calls the tracking server: a search of thousands of trials shares one server."""

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from bundles import changed
from glioflow.data.splits import make_split
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.plan import plan_of
from glioflow.runs.search.searcher import NUMBER
from glioflow.runs.search.trial import TrialPlan, run_trial
from glioflow.tracking import Tracking
from glioflow.tracking.run import Run, begin_run
from servers import counting_calls, mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("epoch_s", [0.0, 40.0], ids=["short epochs", "epochs longer than the pause between sendings"])
def test_a_trial_of_three_epochs_calls_the_server_nine_times_at_most(
    tiny: Any, prepared: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, epoch_s: float
) -> None:
    write = Run.write

    def write_later(run: Run, *args: Any, **options: Any) -> None:
        run._sent -= epoch_s  # as if the epoch had taken so long
        write(run, *args, **options)

    monkeypatch.setattr(Run, "write", write_later)
    monkeypatch.setattr("ray.tune.report", lambda metrics, checkpoint=None: None)
    monkeypatch.setattr("ray.tune.get_checkpoint", lambda: None)
    monkeypatch.setattr("ray.tune.get_context", lambda: SimpleNamespace(get_trial_id=lambda: "x"))
    experiment = changed(tiny, training={**tiny.training.model_dump(mode="json"), "epochs": 3})
    with mlflow_server(tmp_path / "server", {}) as server, counting_calls(server) as (address, calls):
        tracking = Tracking(server)
        setting = Setting(experiment, prepared, make_split(prepared.entries(), experiment.split), tracking)
        parent = begin_run(tracking, opening_of(setting, "search", "s", tags={"search": "s"}))
        plan = plan_of(setting, "").model_copy(update={"tracking_uri": address})
        trial = TrialPlan(plan=plan, parent=parent, search="s", prepared={}, experiment_id=tracking.experiment("tiny"))
        run_trial({"training.learning_rate": 0.0123, NUMBER: 7}, trial.model_dump_json())
        (run,) = tracking.children("tiny", parent)
        assert run.info.status == "FINISHED"
        assert len(tracking.metric_history(run.info.run_id, "val/dice")) == 3
        assert run.data.params["training.learning_rate"] == "0.0123"
        assert {"val/dice_mean", "train/loss"} <= run.data.metrics.keys()
        assert run.data.tags["glioflow.training.cuda_graphs"] == "false: no GPU"
        assert tracking.download(f"runs:/{run.info.run_id}/bundle/model.json").exists()
        assert len(calls) <= 9, Counter(calls)


def test_a_trial_outlives_a_database_that_is_away_at_its_beginning_and_in_its_middle(
    tiny: Any, prepared: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], checkpoint: Any = None) -> None:
        reports.append(metrics)
        (away.clear if metrics["epoch"] == 2 else away.set)()

    monkeypatch.setattr("ray.tune.report", report)
    monkeypatch.setattr("ray.tune.get_checkpoint", lambda: None)
    monkeypatch.setattr("ray.tune.get_context", lambda: SimpleNamespace(get_trial_id=lambda: "x"))
    monkeypatch.setattr("glioflow.runs.search.trial.EVERY_S", 0.0)
    experiment = changed(tiny, training={**tiny.training.model_dump(mode="json"), "epochs": 3})
    with mlflow_server(tmp_path / "server", {}) as server, counting_calls(server, away) as (address, _):
        tracking = Tracking(server)
        setting = Setting(experiment, prepared, make_split(prepared.entries(), experiment.split), tracking)
        parent = begin_run(tracking, opening_of(setting, "search", "s", tags={"search": "s"}))
        plan = plan_of(setting, "").model_copy(update={"tracking_uri": address})
        trial = TrialPlan(plan=plan, parent=parent, search="s", prepared={}, experiment_id=tracking.experiment("tiny"))
        away.set()
        threading.Timer(5, away.clear).start()
        run_trial({"training.learning_rate": 0.0123, NUMBER: 7}, trial.model_dump_json())
        assert "failed" not in reports[-1], reports[-1]
        (run,) = tracking.children("tiny", parent)
        assert run.info.status == "FINISHED"
        assert len(tracking.metric_history(run.info.run_id, "val/dice")) == 3
        assert tracking.read_json(run.info.run_id, "bundle/model.json")
        assert run.inputs.dataset_inputs
