"""Honesty: nothing leaks into a fold, and a model that does not beat its baselines says so."""

import numpy as np
import pandas as pd
import pytest

from glioflow.survival import SurvivalSettings
from glioflow.survival import crossvalidation as cv
from glioflow.survival.calibration import calibration, calibration_over_time
from glioflow.survival.evaluation import evaluate_stage
from glioflow.survival.leakage_example import rebuild_leakage
from glioflow.survival.outcome import Outcome, take_outcome
from glioflow.survival.statistics import Prediction

QUICK = {"repeats": 3, "num_bootstrap": 300, "num_permutations": 0}
GRID = np.array([100.0, 500.0])


@pytest.mark.parametrize("imputation", ["median", "knn", "mice"])
def test_a_prediction_does_not_change_when_other_test_patients_or_outcomes_do(make_table, imputation):
    table = make_table(40, gaps=10)
    chosen = SurvivalSettings(task="death01", imputation=imputation)
    rows, outcome = take_outcome(table, "death01")
    split = cv.make_splits(outcome, chosen, folds=4, seed=0)[0]
    train, test = split
    learn = cv.learner(chosen, GRID)
    before = learn(rows.iloc[train], outcome.take(train))(rows.iloc[test]).risk

    # What a fold must not see: the test patients' own values (all but the first's) and every outcome of theirs.
    changed = rows.copy()
    changed.iloc[test[1:], changed.columns.get_loc("bevr")] = 1e6
    changed.iloc[test, changed.columns.get_loc("death01")] = 1 - changed.iloc[test]["death01"]
    after = learn(changed.iloc[train], outcome.take(train))(changed.iloc[test]).risk
    assert after[0] == before[0]


@pytest.mark.parametrize("imputation", ["median", "knn", "mice"])
def test_imputation_does_not_know_the_outcome(make_table, imputation):
    from glioflow.survival.imputation import fit_preparation

    table = make_table(40, gaps=10)
    flipped = table.assign(death01=1 - table["death01"], os_days=9.0, os_event=1 - table["os_event"])
    chosen = SurvivalSettings(task="death01", imputation=imputation)
    assert fit_preparation(table, chosen) == fit_preparation(flipped, chosen)


def test_every_patient_is_predicted_by_a_model_that_never_saw_them(make_table):
    rows, outcome = take_outcome(make_table(30), "death01")
    seen = []

    def learn(table, of):
        def predict(asked):
            seen.append((set(table.index), set(asked.index)))
            return cv.Prediction(risk=np.arange(len(asked), dtype=float))

        return predict

    cv.out_of_fold(rows, outcome, learn, cv.make_splits(outcome, SurvivalSettings(), folds=5, seed=1))
    assert all(not train & test for train, test in seen)
    assert set.union(*(test for _, test in seen)) == set(rows.index)


def test_a_patient_whose_outcome_is_unknown_is_not_filled_in_but_left_out(make_table):
    table = make_table(40)
    table.iloc[:7, table.columns.get_loc("death01")] = np.nan
    assert evaluate_stage(table, SurvivalSettings(task="death01", **QUICK)).num_patients == 33


def test_two_rows_of_one_patient_are_refused(make_table):
    table = make_table(20)
    with pytest.raises(ValueError, match="one row"):
        evaluate_stage(pd.concat([table, table.iloc[:1]]), SurvivalSettings(**QUICK))


@pytest.mark.parametrize("task", ["death01", "overall_survival"])
def test_noise_does_not_beat_its_baselines(make_table, task):
    found = evaluate_stage(make_table(65, seed=4), SurvivalSettings(task=task, **QUICK))
    assert not found.beats_baselines
    assert any("does not clearly beat" in warning for warning in found.warnings)


@pytest.mark.parametrize("task", ["death01", "overall_survival"])
def test_age_alone_never_beats_age_alone(make_table, task):
    chosen = SurvivalSettings(task=task, shape_features=(), **QUICK)
    found = evaluate_stage(make_table(100, age=2), chosen)
    assert found.metrics[found.primary_metric].value > 0.7
    assert not found.beats_baselines
    assert found.differences["age_only"].value == 0


@pytest.mark.parametrize("task", ["death01", "overall_survival"])
def test_a_shape_that_matters_beats_its_baselines(make_table, task):
    found = evaluate_stage(make_table(150, age=0.5, shape=2), SurvivalSettings(task=task, **QUICK))
    assert found.beats_baselines
    assert set(found.differences) == {"majority", "age_only", "institution_only"}


def test_a_handful_of_events_never_beats_anything_however_clear_it_looks(make_table):
    table = make_table(40)
    for deaths, claimed in ((8, False), (12, True)):
        table["death01"] = (table["bevr"].rank() <= deaths).astype(float)
        found = evaluate_stage(table, SurvivalSettings(task="death01", **QUICK))
        assert all(one.low > 0 for one in found.differences.values())
        assert found.beats_baselines is claimed
        verdict = "does not clearly beat its baselines (a claim needs 10 events; there are 8)"
        assert (verdict in found.warnings) is not claimed


def test_only_the_baselines_that_are_not_beaten_are_named(make_table):
    found = evaluate_stage(make_table(100, age=2), SurvivalSettings(task="death01", shape_features=(), **QUICK))
    assert found.differences["majority"].low > 0
    (verdict,) = (warning for warning in found.warnings if "does not clearly beat" in warning)
    assert "age_only" in verdict
    assert "majority" not in verdict


def test_the_baseline_of_most_ranks_nobody(make_table):
    table = make_table(60)
    table["death01"] = (np.arange(60) % 5 == 0).astype(float)
    found = evaluate_stage(table, SurvivalSettings(task="death01", **QUICK))
    assert found.baselines["majority"]["auroc"].value == 0.5
    assert found.baselines["majority"]["accuracy"].value == pytest.approx(0.8)


def test_shuffled_outcomes_tell_a_signal_from_noise(make_table):
    chosen = SurvivalSettings(task="death01", repeats=1, num_bootstrap=50, num_permutations=60)
    assert evaluate_stage(make_table(80, shape=2), chosen).p_value < 0.05
    assert evaluate_stage(make_table(40, seed=9), chosen).p_value > 0.05


def test_metrics_come_with_intervals_that_hold_them(make_table):
    found = evaluate_stage(make_table(60, age=1), SurvivalSettings(task="overall_survival", **QUICK))
    assert {"c_index", "ibs", "auc_365_days", "auc_730_days"} <= set(found.metrics)
    resampled = [one for name, one in found.metrics.items() if not name.startswith("calibration")]
    assert all(one.low <= one.value <= one.high for one in resampled)
    assert found.risk_groups.log_rank_p < 0.2
    assert set(found.risk_groups.survival) == {"low", "high"}


def test_the_same_seed_gives_the_same_evaluation(make_table):
    chosen = SurvivalSettings(task="death01", **(QUICK | {"num_permutations": 5}))
    assert evaluate_stage(make_table(30), chosen) == evaluate_stage(make_table(30), chosen)


def test_a_penalty_is_chosen_inside_the_training_patients(make_table, monkeypatch):
    asked = []
    original = cv._choose_penalty

    def spy(table, outcome, settings):
        asked.append(len(table))
        return original(table, outcome, settings)

    monkeypatch.setattr(cv, "_choose_penalty", spy)
    evaluate_stage(make_table(30), SurvivalSettings(task="death01", penalties=(0.1, 10.0), **(QUICK | {"repeats": 1})))
    assert asked
    assert max(asked) < 30


def test_one_censored_patient_does_not_ruin_the_folds(make_table):
    table = make_table(40)
    table["os_event"] = 1.0
    table.iloc[0, table.columns.get_loc("os_event")] = 0.0
    outcome = take_outcome(table, "overall_survival")[1]
    assert len(cv.make_splits(outcome, SurvivalSettings(), folds=5, seed=0)) == 5


def test_the_published_hundred_percent_is_the_leak(make_table):
    rng = np.random.default_rng(0)
    clinical = make_table(40)[["age_years", "gender", "institution", "death01"]]
    patients = np.repeat(np.arange(40), 20)
    position = rng.normal(size=(40, 2))[patients] + 0.1 * rng.normal(size=(800, 2))  # slices of one tumor are alike
    slices = pd.DataFrame(position, columns=["row_px", "column_px"], index=clinical.index[patients])
    found = rebuild_leakage(clinical, slices)
    assert found.leaking_accuracy > 0.97
    assert found.patient_accuracy < 0.8
    assert found.num_rows == 800
    assert found.num_patients == 40


def test_times_are_judged_for_calibration_at_the_horizons(make_table):
    table = make_table(150, age=1.2)
    chosen = SurvivalSettings(task="overall_survival", **(QUICK | {"repeats": 1}))
    metrics = evaluate_stage(table, chosen).metrics
    assert abs(metrics["calibration_in_the_large_365_days"].value) < 0.05
    assert 0.6 < metrics["calibration_slope"].value < 1.5
    assert evaluate_stage(table, chosen).baselines["majority"]["calibration_slope"].value is None


@pytest.mark.parametrize("name", ["random_forest", "gradient_boosting", "weibull_aft"])
def test_what_is_exploratory_is_judged_over_time_too_and_says_so(make_table, name):
    chosen = SurvivalSettings(task="overall_survival", model=name, repeats=1, num_bootstrap=50, num_permutations=0)
    found = evaluate_stage(make_table(60, age=1.5), chosen)
    assert not found.primary
    assert found.metrics["c_index"].value > 0.55
    assert 0 < found.metrics["ibs"].value < 0.3
    assert any("exploratory" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "change",
    [
        {"shape_features": ("asd",)},
        {"shape_features": ()},
        {"clinical": ("age_years", "grade")},
        {"imputation": "knn"},
        {"penalties": (0.1, 1.0)},
        {"model": "weibull_aft"},
    ],
)
def test_a_model_that_differs_from_the_fixed_one_is_exploratory(change):
    assert SurvivalSettings().primary
    assert not SurvivalSettings(**change).primary


def test_fewer_folds_than_asked_for_are_told(make_table):
    table = make_table(30, age=1.5)
    table["os_event"] = [1.0, 1.0, 1.0] + [0.0] * 27
    found = evaluate_stage(table, SurvivalSettings(task="overall_survival", **(QUICK | {"folds": 5})))
    assert any(warning.startswith("3 folds in place of 5: 3 events") for warning in found.warnings)
    table["os_event"] = 1.0
    found = evaluate_stage(table, SurvivalSettings(task="overall_survival", **(QUICK | {"folds": 5})))
    assert not any("in place of" in warning for warning in found.warnings)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "missing"), (0.5, "the same")])
def test_an_input_that_tells_no_patient_from_another_is_named(make_table, value, words):
    chosen = SurvivalSettings(task="death01", shape_features=("bevr",), clinical=("age_years",), **QUICK)
    named = f"the input bevr is {words} for all 40 patients"
    assert named in evaluate_stage(make_table(40).assign(bevr=value), chosen).warnings
    assert not any("for all" in warning for warning in evaluate_stage(make_table(40), chosen).warnings)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_slope_of_calibration_that_has_no_maximum_is_not_estimated(sign):
    rank = np.arange(20, dtype=float)
    probability = np.clip((rank + 0.5) / 20 if sign > 0 else 1 - (rank + 0.5) / 20, 0.01, 0.99)
    separable, mixed = rank >= 12, rank % 3 == 0
    for event, known in ((separable, False), (mixed, True)):
        outcome = Outcome("binary", event, np.zeros(20))
        assert np.isfinite(calibration(outcome, probability)["calibration_slope"]) == known
    grid = np.arange(0.0, 50.0)
    survival = np.exp(-np.outer(np.exp((rank - 10) / 5) / 100, grid))
    prediction = Prediction(risk=rank, survival=survival)
    chosen = SurvivalSettings(task="overall_survival")
    for days, known in ((30 - rank if sign > 0 else 1 + rank, False), (1 + (7 * rank) % 20, True)):
        outcome = Outcome("time", np.ones(20, dtype=bool), days)
        found = calibration_over_time(outcome, prediction, survival, chosen, grid)
        assert np.isfinite(found["calibration_slope"]) == known
