"""The survival stage as a run: what is logged and what people are told."""

from types import SimpleNamespace

import numpy as np
import pytest

from glioflow.data.synthetic.cohort import synthesize_brats
from glioflow.runs.analysis.survival import STAGE, Shapes, fit_survival, masks_of
from glioflow.survival import SurvivalSettings
from glioflow.survival.stage import CLASSES

QUICK = {"repeats": 1, "num_bootstrap": 50, "num_permutations": 0}


def csv(tmp_path, num=30):
    rng = np.random.default_rng(0)
    path = tmp_path / "clinical.csv"
    rows = [f"p{k},{rng.integers(30, 70)},{rng.integers(100, 2000)},{k % 2}" for k in range(num)]
    path.write_text("Patient,age_years,OS_days,OS_event\n" + "\n".join(rows) + "\n")
    return path


def test_times_are_logged_with_the_figure_of_the_risk_groups(tmp_path, tracking):
    done = fit_survival(SurvivalSettings(**QUICK), csv(tmp_path))
    assert (done.evaluation.task, done.masks) == ("overall_survival", "none")
    assert tracking.download(f"runs:/{done.run_id}/risk_groups.png").read_bytes().startswith(b"\x89PNG")
    assert tracking.has_artifact(done.run_id, STAGE)
    logged = tracking.run(done.run_id)
    assert "survival/ibs" in logged.data.metrics
    assert {"glioflow.source", "glioflow.clinical", "command"} <= logged.data.tags.keys()
    assert [used.dataset.name for used in logged.inputs.dataset_inputs] == ["clinical.csv"]


def test_an_ensemble_is_judged_and_logged_without_a_stage_to_serve(tmp_path, tracking):
    done = fit_survival(SurvivalSettings(model="random_forest", **QUICK), csv(tmp_path))
    assert done.stage is None
    assert not tracking.has_artifact(done.run_id, STAGE)
    assert tracking.has_artifact(done.run_id, "evaluation.json")


def test_shapes_of_manual_masks_are_used_only_of_patients_in_the_table(tmp_path, prepared, tracking):
    path = tmp_path / "clinical.csv"
    rows = [f"{r.patient},{40 + 3 * k},{k % 2}" for k, r in enumerate(prepared.records)]
    path.write_text("Patient,age,death01\n" + "\n".join([*rows, "stranger,50,1"]) + "\n")
    chosen = SurvivalSettings(task="death01", **QUICK)
    done = fit_survival(chosen, path, masks="manual", cohort=prepared.path)
    assert done.evaluation.num_patients == len(prepared.records)
    assert done.stage is not None
    assert tracking.run(done.run_id).data.tags["glioflow.cohort"] == prepared.manifest.fingerprint
    assert {entry.name for entry in done.stage.preparation.inputs} == {"bevr", "age_years"}
    with pytest.raises(ValueError, match="give COHORT"):
        fit_survival(chosen, path, masks="manual")


def test_days_of_brats_patients_come_from_their_masks_with_the_official_metrics(tmp_path, tracking):
    path = tmp_path / "brats"
    synthesize_brats(path, patients=20, seed=0, size=32, slices=16)
    chosen = SurvivalSettings(task="brats_days", min_patients=4, folds=2, **QUICK)
    done = fit_survival(chosen, path / "survival_info.csv", masks="manual", cohort=path)
    assert len(tracking.run(done.run_id).data.tags["glioflow.cohort_source"]) == 32, "a raw cohort has a digest too"
    official = {"accuracy", "mse_days2", "median_se_days2", "std_se_days2", "spearman"}
    assert official <= set(done.evaluation.metrics)
    assert {"majority", "age_only"} <= set(done.evaluation.baselines)
    answer = done.stage.predict({"bevr": 0.4}, {"Age": 60})
    assert answer.category in CLASSES
    assert answer.imputed == []


@pytest.mark.parametrize(
    ("tags", "run_id"),
    [
        (Shapes({}, {}, "in other words", (), "b" * 32).tags, "b" * 32),
        ({"glioflow.masks": f"out-of-fold masks of run {'a' * 32}"}, "a" * 32),  # of an earlier version
        (Shapes({}, {}, "manual", ()).tags, None),
        ({}, None),
    ],
)
def test_a_run_names_the_cross_validation_whose_masks_it_measured(tags, run_id):
    assert masks_of(SimpleNamespace(data=SimpleNamespace(tags=tags))) == run_id
