"""The whole chain once, for real: Ray, Tune, Train, MLflow on SQLite, Serve, HTTP."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glioflow.promotion import decisions
from glioflow.runs.crossval.run import OUT_OF_FOLD
from glioflow.tracking import BUNDLE, Tracking

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1000)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run `glioflow demo` in a home of its own and give what it said on stdout, its home and its MLflow."""
    home = tmp_path_factory.mktemp("home")
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-m", "glioflow", "demo", "--json"],
        cwd=ROOT,
        env={**env, "GLIOFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    output = json.loads(done.stdout.splitlines()[-1])
    steps = {step["step"]: step for step in output["steps"]}
    tracking = Tracking(f"sqlite:///{home / 'mlflow.db'}")
    return {"steps": steps, "answer": output["answer"], "home": home, "tracking": tracking, "stderr": done.stderr}


def test_ray_says_nothing_of_its_own(demo: dict[str, Any]) -> None:
    assert "(raylet)" not in demo["stderr"]


def test_each_step_of_the_demo_is_said_when_it_begins(demo: dict[str, Any]) -> None:
    begun = (
        "MLflow: opening",
        "ray: starting",
        "search: ",
        "train: ",
        "crossval: ",
        "survival: fitting",
        "register: ",
        "gate: judging",
        "serve: starting",
    )
    missing = [step for step in begun if not any(line.startswith(step) for line in demo["stderr"].splitlines())]
    assert missing == []


def children(demo: dict[str, Any], step: str) -> list[Any]:
    return list(demo["tracking"].children("demo", demo["steps"][step]["run_id"]))


@pytest.mark.timeout(900)
def test_the_demo_serves_a_version_that_passed_the_gate(demo: dict[str, Any]) -> None:
    answer, tracking = demo["answer"], demo["tracking"]
    champion = tracking.version("demo")
    assert demo["steps"]["promote"]["decision"] == "promoted"
    assert answer["model"] == {"name": "demo", "version": champion.version, "run_id": demo["steps"]["train"]["run_id"]}
    assert champion.aliases == ("champion",)


def test_the_answer_holds_mask_features_and_survival_of_the_whole_study(demo: dict[str, Any]) -> None:
    answer = demo["answer"]
    case = next((demo["home"] / "demo" / "kaggle_3m").glob(answer["study"]["id"]))
    num_slices = len(list(case.glob("*_mask.tif")))
    assert answer["mask"]["shape"] == [num_slices, 96, 96]
    area = sum(sum(runs[1::2]) for runs in answer["mask"]["data"].values())
    assert answer["features"]["volume"]["volume_px"] == area
    assert {"centroid_row_px", "coordinate_std_row_px", "asd", "mf", "bevr"} <= set(answer["features"]["volume"])
    assert answer["survival"]["task"] == "death01"
    assert "age_years" in answer["survival"]["basis"]
    assert "not for clinical use" in answer["notice"]


def test_every_trial_is_a_closed_child_of_the_search_with_parameters_and_lineage(demo: dict[str, Any]) -> None:
    trials = children(demo, "search")
    assert len(trials) == 4
    for run in trials:
        assert run.info.status in ("FINISHED", "KILLED")
        assert run.data.tags["glioflow.kind"] == "trial"
        assert {"glioflow.source", "glioflow.cohort", "glioflow.split"} <= set(run.data.tags)
        assert run.data.params["model.architecture"] in ("buda-unet", "attention-unet")
        steps = [m.step for m in demo["tracking"].client.get_metric_history(run.info.run_id, "val/dice")]
        assert steps == list(range(len(steps)))
        assert len(steps) >= 1
    finished = [run for run in trials if run.info.status == "FINISHED"]
    assert all(demo["tracking"].has_artifact(run.info.run_id, BUNDLE) for run in finished)
    best = max(finished, key=lambda run: run.data.metrics["val/dice_mean"])
    assert demo["tracking"].run(demo["steps"]["search"]["run_id"]).data.tags["glioflow.best_run"] == best.info.run_id


def test_a_trial_that_asha_stopped_is_pruned_in_optuna_and_closed_in_mlflow(demo: dict[str, Any]) -> None:
    import optuna

    (folder,) = (demo["home"] / "searches").iterdir()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'optuna.db'}")
    states = [trial.state.name for trial in study.trials]
    killed = [run for run in children(demo, "search") if run.info.status == "KILLED"]
    assert states.count("PRUNED") == len(killed)
    assert states.count("COMPLETE") == 4 - len(killed)
    assert all(trial.intermediate_values for trial in study.trials)


def test_no_test_patient_took_part_in_the_survival_stage(demo: dict[str, Any]) -> None:
    tracking = demo["tracking"]
    test = set(tracking.read_json(demo["steps"]["train"]["run_id"], "split.json")["test"])
    seen = {row["id"] for row in tracking.read_json(demo["steps"]["crossval"]["run_id"], OUT_OF_FOLD)}
    assert test
    assert not test & seen


def test_every_run_is_closed_and_the_decision_is_on_record(demo: dict[str, Any]) -> None:
    tracking = demo["tracking"]
    experiments = [found.experiment_id for found in tracking.client.search_experiments()]
    runs = tracking.client.search_runs(experiments, max_results=1000)
    assert [run.info.run_name for run in runs if run.info.status == "RUNNING"] == []
    (verdict,) = decisions(tracking, "demo")
    assert [reason.rule for reason in verdict.reasons if "baseline" in reason.rule]
    assert all(reason.passed for reason in verdict.reasons)


def test_the_trained_network_beats_nothing_and_a_flair_threshold(demo: dict[str, Any]) -> None:
    (verdict,) = decisions(demo["tracking"], "demo")
    margins = [float(r.value) - float(r.limit) for r in verdict.reasons if "baseline" in r.rule]  # type: ignore[arg-type]
    assert len(margins) == 2
    assert min(margins) > 0.1


def glioflow(demo: dict[str, Any], *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "glioflow", *words, "--json"],
        env={**os.environ, "GLIOFLOW_HOME": str(demo["home"])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_predict_on_the_command_line_says_what_the_endpoint_said(demo: dict[str, Any], tmp_path: Path) -> None:
    answer = demo["answer"]
    case = demo["home"] / "demo" / "kaggle_3m" / answer["study"]["id"]
    (response,) = glioflow(demo, "predict", "demo@champion", str(case), "--out", str(tmp_path))["studies"]
    assert response["tumor"]["slices"] == answer["tumor"]["slices"]
    served = answer["features"]["volume"]["volume_px"]
    assert response["features"]["volume"]["volume_px"] == pytest.approx(served, rel=0.01, abs=3)  # bf16 decides edges
    assert len(list(Path(response["mask"]).glob("*_mask.tif"))) == len(answer["study"]["slices"])


def test_evaluate_agrees_with_the_run_on_its_test_patients(demo: dict[str, Any]) -> None:
    tracking, run_id = demo["tracking"], demo["steps"]["train"]["run_id"]
    answer = glioflow(demo, "evaluate", "demo@champion", str(demo["home"] / "demo" / "kaggle_3m"))
    test = tracking.read_json(run_id, "split.json")["test"]
    dice = [row["dice"] for row in answer["per_patient"] if row["id"] in test]
    assert sum(dice) / len(dice) == pytest.approx(tracking.run(run_id).data.metrics["test/dice_mean"], abs=0.01)
    assert answer["baselines"]["all_empty"]["dice_mean"] == 0
    assert answer["num_parameters"] > 100_000
