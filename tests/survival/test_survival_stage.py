"""The stage as a user meets it: fitted, judged, stored, asked."""

import json

import numpy as np
import pandas as pd
import pytest

from glioflow.errors import UserError
from glioflow.survival import SurvivalSettings, SurvivalStage
from glioflow.survival.clinical_table import read_clinical
from glioflow.survival.evaluation import evaluate_stage
from glioflow.survival.stage_fitting import fit_stage

QUICK = {"repeats": 2, "num_bootstrap": 200, "num_permutations": 0}


def settings(**changes):
    return SurvivalSettings(**(QUICK | changes))


@pytest.mark.parametrize("task", ["death01", "overall_survival"])
@pytest.mark.parametrize("imputation", ["median", "knn", "mice"])
def test_a_stored_stage_answers_exactly_as_before(make_table, task, imputation):
    table = make_table(gaps=6)
    chosen = settings(task=task, imputation=imputation, clinical=("age_years", "gender"))
    stage = fit_stage(table, chosen)
    again = SurvivalStage.from_json(json.loads(json.dumps(stage.to_json(), allow_nan=False)))
    for features, clinical in (
        ({"bevr": 0.3}, {"Age": 61, "gender": 1}),
        ({}, {}),
        ({"bevr": None}, {"gender": "male"}),
    ):
        assert again.predict(features, clinical) == stage.predict(features, clinical)


@pytest.mark.parametrize("imputation", ["knn", "mice"])
def test_our_stored_imputation_is_that_of_scikit_learn(make_table, imputation):
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer

    from glioflow.survival.imputation import fit_preparation
    from glioflow.survival.preparation import encode

    table = make_table(gaps=8)
    table.iloc[5:15, table.columns.get_loc("bevr")] = np.nan
    prepared = fit_preparation(table, settings(imputation=imputation))
    scaled = (encode(table, prepared.inputs) - prepared.means) / prepared.deviations
    oracle = KNNImputer(n_neighbors=4) if imputation == "knn" else IterativeImputer(random_state=0)
    assert prepared.apply(table) == pytest.approx(oracle.fit_transform(scaled))


def test_an_answer_says_what_it_was_computed_from_and_what_was_imputed(make_table):
    stage = fit_stage(make_table(age=1), settings(task="death01"))
    answer = stage.predict({"bevr": 0.4}, {})
    assert answer.basis == ["bevr"]
    assert answer.imputed == ["age_years"]
    low, high = answer.interval
    assert 0 <= low <= answer.probability <= high <= 1
    assert answer.curve is None
    nothing = stage.predict({}, {})
    assert any("no input was known" in warning for warning in nothing.warnings)


def test_times_answer_with_a_curve_that_falls_and_a_stated_horizon(make_table):
    stage = fit_stage(make_table(age=1), settings(task="overall_survival"))
    answer = stage.predict({"bevr": 0.4}, {"age_years": 60})
    assert answer.horizon_days == 1095
    curve = answer.curve
    row = stage.preparation.apply(pd.DataFrame({"bevr": [0.4], "age_years": [60.0]}))
    assert curve.survival == stage.model.survival(row, np.array(curve.days))[0].tolist()
    assert curve.days[0] == 0
    assert curve.survival[0] == 1
    assert all(a >= b for a, b in zip(curve.survival, curve.survival[1:], strict=False))
    assert all(low <= value <= high for low, value, high in zip(curve.low, curve.survival, curve.high, strict=True))
    at = curve.days.index(1095)
    assert answer.probability == pytest.approx(1 - curve.survival[at])


@pytest.mark.parametrize("task", ["death01", "overall_survival"])
def test_higher_risk_is_worse(make_table, task):
    stage = fit_stage(make_table(80, age=1.5), settings(task=task))
    young, old = (stage.predict({"bevr": 0.4}, {"age_years": age}) for age in (30, 70))
    assert old.risk_score > young.risk_score
    assert old.probability > young.probability


def test_weibull_is_served_too_and_says_that_it_is_exploratory(make_table):
    stage = fit_stage(make_table(age=1), settings(task="overall_survival", model="weibull_aft"))
    again = SurvivalStage.from_json(stage.to_json())
    answer = again.predict({"bevr": 0.4}, {"age_years": 60})
    assert 0 < answer.probability < 1
    assert any("exploratory" in warning for warning in answer.warnings)


def test_brats_days_come_with_the_class(make_table):
    table = make_table(age=1).assign(resection="gtr")
    answer = fit_stage(table, settings(task="brats_days")).predict({"bevr": 0.4}, {"age_years": 60})
    assert answer.category in ("under 10 months", "10 to 15 months", "over 15 months")
    assert answer.probability is None
    assert answer.interval[0] <= answer.predicted_days <= answer.interval[1]


def test_values_out_of_range_or_unknown_are_refused(make_table):
    stage = fit_stage(make_table(), settings(task="death01", clinical=("age_years", "gender")))
    with pytest.raises(UserError, match="from 0 to 120"):
        stage.predict({}, {"age_years": 400})
    with pytest.raises(UserError, match=r"unknown clinical value 'shoe_size'.*age_years"):
        stage.predict({}, {"shoe_size": 42})
    with pytest.raises(UserError, match=r"gender .* choose one of: female, male"):
        stage.predict({}, {"gender": "x"})


def test_a_stage_that_was_fitted_on_other_spellings_of_sexes_answers_as_before(make_table):
    chosen, table = settings(task="death01", clinical=("age_years", "gender")), make_table()
    now = fit_stage(table, chosen)
    before = fit_stage(table.replace({"gender": {"female": "f", "male": "m"}}), chosen)
    for word in ("female", "F", "male", "Mann"):
        assert before.predict({}, {"gender": word}) == now.predict({}, {"gender": word})


def test_a_stage_of_numbers_for_sexes_takes_the_same_numbers(make_table):
    table = make_table().replace({"gender": {"female": "1", "male": "2"}})
    stage = fit_stage(table, settings(task="death01", clinical=("gender",)))
    assert stage.predict({}, {"gender": 1}) == stage.predict({}, {"Sex": "1"}) != stage.predict({}, {"gender": 2.0})
    with pytest.raises(UserError, match=r"gender must be a category that the model knows.* choose one of: 1, 2"):
        stage.predict({}, {"gender": "female"})


def test_a_request_names_columns_in_any_case_and_only_once(make_table):
    stage = fit_stage(make_table(), settings(task="death01", clinical=("Age", "GENDER")))
    assert stage.predict({}, {"AGE": 61, "Gender": "F"}).basis == ["age_years", "gender"]
    with pytest.raises(UserError, match=r"two clinical values both mean age_years, and differ; got 61\.0 and 40\.0"):
        stage.predict({}, {"Age": 61, "age_years": 40})


def test_a_stage_of_the_first_release_keeps_a_column_that_was_no_known_one(make_table):
    stored = fit_stage(make_table(), settings(task="death01", clinical=("gender",))).to_json()
    stored["preparation"]["inputs"][-1] |= {"name": "Gender", "levels": ["F", "M"]}
    stage = SurvivalStage.from_json(stored)
    assert stage.predict({}, {"Gender": "F"}).basis == ["Gender"]
    assert stage.predict({}, {"Gender": "F"}).risk_score != stage.predict({}, {"Gender": "M"}).risk_score


def test_a_column_of_ones_own_table_can_be_an_input(make_table):
    table = make_table()
    table["cluster"] = np.arange(len(table)) % 3.0
    stage = fit_stage(table, settings(task="death01", clinical=("age_years", "cluster")))
    assert stage.predict({}, {"cluster": "2"}).basis == ["cluster"]
    with pytest.raises(UserError, match="cluster must be a number"):
        stage.predict({}, {"cluster": "two"})


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        ("-", "must hold numbers alone, or words; got -; write numbers with a point"),
        ("70,5", "got 70,5"),
        ("<10", "got <10"),
        ("12%", "got 12%"),
        ("inf", "must be finite numbers"),
    ],
)
def test_numbers_of_which_one_cannot_be_read_are_no_categories(make_table, tmp_path, cell, rule):
    table = make_table()
    values = [cell, *(str(10 + k) for k in range(len(table) - 1))]
    table.assign(ki67=values).to_csv(tmp_path / "table.csv")
    read = read_clinical(tmp_path / "table.csv")
    with pytest.raises(UserError, match=f"input ki67 .*{rule}"):
        fit_stage(read, settings(task="death01", clinical=("age_years", "ki67")))
    words = table.assign(ki67=["high", "low", "1", "2"] * 10)
    assert fit_stage(words, settings(task="death01", clinical=("age_years", "ki67")))


def test_a_value_outside_the_training_range_is_a_warning(make_table):
    answer = fit_stage(make_table(), settings(task="death01")).predict({"bevr": 0.99}, {"age_years": 50})
    assert any("bevr 0.99 is outside what it was fitted on" in warning for warning in answer.warnings)


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored.pop("model"),
        lambda stored: stored.update(extra=1),
        lambda stored: stored["model"].update(coefficients=["__import__('os')"]),
        lambda stored: stored["model"].update(kind="forest"),
        lambda stored: stored["model"].update(intercept=float("nan")),
        lambda stored: stored["preparation"]["imputer"].update(medians="x"),
    ],
)
def test_a_damaged_stage_is_refused_in_one_line(make_table, damage):
    stored = fit_stage(make_table(), settings(task="death01")).to_json()
    damage(stored)
    with pytest.raises(UserError, match="stored survival stage") as raised:
        SurvivalStage.from_json(stored)
    assert "\n" not in str(raised.value)


def test_auto_takes_times_before_death01_and_says_so(make_table):
    table = make_table()
    assert evaluate_stage(table, settings()).task == "overall_survival"
    assert evaluate_stage(table.drop(columns=["os_days", "os_event"]), settings()).task == "death01"


def test_too_few_patients_or_events_say_the_rule_and_the_counts(make_table):
    with pytest.raises(UserError, match="at least 8 patients with a known outcome; got 5"):
        fit_stage(make_table(5), settings(task="death01"))
    with pytest.raises(UserError, match="at least 2 events among 40 patients; got 0"):
        fit_stage(make_table().assign(os_event=0.0), settings(task="overall_survival"))
    with pytest.raises(UserError, match="without the event among 40; got 0"):
        fit_stage(make_table().assign(death01=1.0), settings(task="death01"))
    with pytest.raises(UserError, match=r"overall_survival: .* progression_free: .* death01: "):
        fit_stage(make_table(5), settings())


def test_a_missing_column_is_named_with_the_choices(make_table):
    with pytest.raises(UserError, match=r"shape input.*got asd; choose one of: age_years, .*bevr"):
        fit_stage(make_table(), settings(shape_features=("asd",)))
    with pytest.raises(UserError, match="progression_free needs the columns pfi_days, pfi_event"):
        fit_stage(make_table(), settings(task="progression_free"))


def test_an_outcome_can_not_be_an_input(make_table):
    with pytest.raises(UserError, match="must not be an input; got os_days"):
        evaluate_stage(make_table(), settings(task="death01", clinical=("age_years", "os_days")))


def test_an_ensemble_can_be_judged_but_not_stored(make_table):
    chosen = settings(task="death01", model="random_forest", repeats=1)
    assert not evaluate_stage(make_table(30), chosen).primary
    with pytest.raises(UserError, match="plain numbers to be stored; got random_forest"):
        fit_stage(make_table(30), chosen)
    with pytest.raises(UserError, match=r"fit the kind of outcome \(binary\).*ridge, random_forest, gradient_boosting"):
        evaluate_stage(make_table(30), settings(task="death01", model="weibull_aft"))


def test_a_dozen_patients_are_enough_for_a_demo_and_come_with_a_warning(make_table):
    stage = fit_stage(make_table(12), settings(num_permutations=20))
    assert any("most of this is noise" in warning for warning in stage.warnings)
    assert stage.predict({"bevr": 0.4}, {"age_years": 50}).probability is not None
