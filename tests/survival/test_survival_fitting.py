"""The models and scores against libraries that were written by others."""

import warnings

import numpy as np
import pytest

from glioflow.survival.censoring import censoring_weights, followed_before, followed_until
from glioflow.survival.crossvalidation import kaplan_meier
from glioflow.survival.evaluation import compare_risk_groups
from glioflow.survival.fitted import CoxModel, LogisticModel
from glioflow.survival.fitting import (
    FITS,
    fit_cox,
    fit_linear,
    fit_logistic,
    fit_weibull,
)
from glioflow.survival.outcome import Outcome
from glioflow.survival.statistics import (
    auc_at,
    brier,
    concordance,
    integrated_brier,
    survival_classes,
)


@pytest.fixture
def cohort():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(80, 2))
    death, censor = rng.exponential(500 * np.exp(-inputs[:, 0])), rng.uniform(100, 2000, 80)
    return inputs, Outcome("time", death <= censor, np.minimum(death, censor))


def everyone(outcome):
    return np.ones((1, len(outcome.event)))


# What lifelines 0.30.3 gives for the cohort above; survival probabilities of its first four patients.
LIFELINES_COX = [1.015928858500901, 0.18099716101755292]  # CoxPHFitter(penalizer=3 / 80), standardized inputs
LIFELINES_COX_SURVIVAL = [
    [0.904175, 0.628379, 0.229465],
    [0.939596, 0.750229, 0.402331],
    [0.844374, 0.458302, 0.084420],
    [0.963587, 0.842753, 0.581567],
]
LIFELINES_WEIBULL = [-1.1316692927490482, -0.2503739036948107, 6.12881658264981]  # WeibullAFTFitter(): lambda_
LIFELINES_WEIBULL_LOG_SHAPE = 0.07699214007392423
LIFELINES_WEIBULL_SURVIVAL = [
    [0.692462, 0.193496, 0.019382],
    [0.816205, 0.403458, 0.113129],
    [0.517808, 0.052786, 0.000857],
    [0.889497, 0.592527, 0.284644],
]
LIFELINES_CONCORDANCE = 0.7282132908873856  # concordance_index of the first input, rounded to tenths
LIFELINES_CENSORING = [1.0, 0.7664407275568931, 0.657597073939346]  # KaplanMeierFitter of censoring
LIFELINES_LOG_RANK_P = 7.598925453208269e-07  # logrank_test below and above the median of the first input
LIFELINES_CURVE = {39.84495145733227: 0.875, 145.38874655974223: 0.525, 596.4615235133098: 0.02625}  # of those above


def test_cox_is_that_of_lifelines(cohort):
    inputs, outcome = cohort
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    ours = fit_cox(inputs, outcome, 3.0, 0)
    assert ours.coefficients == pytest.approx(LIFELINES_COX, rel=0.005)
    days = np.sort(outcome.days[outcome.event])[[5, 20, 40]]  # between events lifelines interpolates
    assert ours.survival(inputs[:4], days) == pytest.approx(np.array(LIFELINES_COX_SURVIVAL), abs=0.002)


def test_weibull_is_that_of_lifelines(cohort):
    inputs, outcome = cohort
    ours = fit_weibull(inputs, outcome, 1e-9, 0)
    assert [*ours.coefficients, ours.intercept] == pytest.approx(LIFELINES_WEIBULL, rel=0.002)
    assert np.log(ours.shape) == pytest.approx(LIFELINES_WEIBULL_LOG_SHAPE, abs=0.002)
    days = np.array([100.0, 400.0, 900.0])
    assert ours.survival(inputs[:4], days) == pytest.approx(np.array(LIFELINES_WEIBULL_SURVIVAL), abs=0.002)


def test_concordance_is_that_of_lifelines(cohort):
    inputs, outcome = cohort
    risk = np.round(inputs[:, 0], 1)
    assert concordance(outcome, risk).value(everyone(outcome))[0] == pytest.approx(LIFELINES_CONCORDANCE)


def test_risk_groups_are_those_of_lifelines(cohort):
    inputs, outcome = cohort
    groups = compare_risk_groups(outcome, inputs[:, 0])
    assert groups.log_rank_p == pytest.approx(LIFELINES_LOG_RANK_P)
    curve = dict(zip(groups.days["high"], groups.survival["high"], strict=True))
    assert (groups.days["high"][0], groups.survival["high"][0]) == (0.0, 1.0)
    assert {day: curve[day] for day in LIFELINES_CURVE} == pytest.approx(LIFELINES_CURVE)


def test_without_any_event_the_log_rank_test_is_undefined(cohort):
    inputs, outcome = cohort
    nobody = Outcome("time", np.zeros(len(inputs), bool), outcome.days)
    groups = compare_risk_groups(nobody, inputs[:, 0])
    assert groups.log_rank_p is None
    assert set(groups.survival["low"]) == {1.0}


def test_binary_scores_are_those_of_scikit_learn():
    from sklearn.metrics import brier_score_loss, roc_auc_score

    rng = np.random.default_rng(0)
    probability = np.round(rng.random(60), 1)
    outcome = Outcome("binary", rng.random(60) < probability, np.zeros(60))
    assert concordance(outcome, probability).value(everyone(outcome))[0] == pytest.approx(
        roc_auc_score(outcome.event, probability)
    )
    assert brier(outcome, probability).value(everyone(outcome))[0] == pytest.approx(
        brier_score_loss(outcome.event, probability)
    )


def test_resampling_by_counts_is_resampling_of_patients(cohort):
    inputs, outcome = cohort
    index = np.random.default_rng(3).integers(0, 80, 80)
    counts = np.bincount(index, minlength=80)[None, :].astype(float)
    by_counts = concordance(outcome, inputs[:, 0]).value(counts)[0]
    # A patient drawn twice is no comparable pair: equal times with an event on both sides are none.
    drawn = outcome.take(index)
    assert by_counts == pytest.approx(concordance(drawn, inputs[index, 0]).value(everyone(drawn))[0])


def test_without_censoring_the_weighted_scores_are_the_plain_ones():
    rng = np.random.default_rng(0)
    days = rng.exponential(500, 50)
    outcome = Outcome("time", np.ones(50, bool), days)
    risk = rng.normal(size=50)
    from sklearn.metrics import roc_auc_score

    assert auc_at(outcome, risk, 300).value(everyone(outcome))[0] == pytest.approx(roc_auc_score(days <= 300, risk))
    grid = np.linspace(100, 900, 200)
    perfect = (days[:, None] > grid[None, :]).astype(float)
    assert integrated_brier(outcome, perfect, grid).value(everyone(outcome))[0] == pytest.approx(0)
    assert integrated_brier(outcome, 0 * perfect + 0.5, grid).value(everyone(outcome))[0] == pytest.approx(0.25)
    assert censoring_weights(outcome) == pytest.approx(np.ones(50))


def test_the_brier_score_counts_tied_times_as_if_deaths_came_first():
    # Whole years: at 1 one dies and one is lost; at 2 the same; at 3 the last two die.
    outcome = Outcome("time", np.array([True, False, True, False, True, True]), np.array([1.0, 1, 2, 2, 3, 3]))
    # Of the five left after the first death one is lost: 4/5 are followed; then of three one more: 4/5 times 2/3.
    assert followed_before(outcome, np.array([1.0, 2, 3])) == pytest.approx([1, 4 / 5, 8 / 15])
    assert followed_until(outcome, np.array([1.0, 2, 3])) == pytest.approx([4 / 5, 8 / 15, 8 / 15])
    # At 2 by hand: deaths at 1 and 2 weigh 1 and 5/4; the two that are left weigh 15/8 each.
    expected = ((1 + 5 / 4) * 0.6**2 + 2 * 15 / 8 * 0.4**2) / 6
    score = integrated_brier(outcome, np.full((6, 2), 0.6), np.array([2.0, 2.000001])).value(everyone(outcome))[0]
    assert score == pytest.approx(expected)


def test_the_brier_score_weighs_those_still_followed_for_those_lost():
    outcome = Outcome("time", np.array([True, False, True, False]), np.array([1.0, 2, 3, 4]))
    # By hand at 2.5: one death before any loss counts once; of three at risk one is lost, so the two left count 1.5.
    expected = (0.8**2 + 2 * 1.5 * 0.2**2) / 4
    score = integrated_brier(outcome, np.full((4, 2), 0.8), np.array([2.5, 2.6])).value(everyone(outcome))[0]
    assert score == pytest.approx(expected)


def test_followed_before_is_kaplan_meier_of_censoring(cohort):
    _, outcome = cohort
    days = np.array([50.0, 333.3, 1000.1])
    assert followed_before(outcome, days) == pytest.approx(LIFELINES_CENSORING)


def test_a_patient_lost_on_a_day_is_still_followed_just_before_it():
    outcome = Outcome("time", np.array([True, False, False, True]), np.array([1.0, 2, 2, 4]))
    assert followed_before(outcome, np.array([2.0, 2.5, 4.0])) == pytest.approx([1, 1 / 3, 1 / 3])


def test_a_patient_lost_on_the_day_of_a_death_was_still_at_risk_of_it():
    outcome = Outcome("time", np.array([True, False, True]), np.array([1.0, 1, 2]))
    assert kaplan_meier(outcome, np.array([0.5, 1, 1.5, 2])) == pytest.approx([1, 2 / 3, 2 / 3, 0])
    nobody_died = Outcome("time", np.zeros(3, bool), outcome.days)
    assert kaplan_meier(nobody_died, np.array([1.0, 3])) == pytest.approx([1, 1])


def test_a_censored_patient_counts_as_alive_and_not_as_dead(cohort):
    inputs, outcome = cohort
    as_dead = Outcome("time", np.ones(80, bool), outcome.days)
    at = np.array([800.0])
    right = fit_cox(inputs, outcome, 1.0, 0).survival(inputs, at).mean()
    wrong = fit_cox(inputs, as_dead, 1.0, 0).survival(inputs, at).mean()
    assert right > wrong + 0.03


def test_leaving_a_censored_patient_out_of_the_days_is_not_the_same_as_weighing():
    inputs = np.linspace(-1, 1, 30)[:, None]
    days = 500 - 200 * inputs[:, 0] + 50 * np.sin(np.arange(30))
    event = np.ones(30, bool)
    event[:5] = False
    outcome = Outcome("days", event, days)
    assert fit_linear(inputs, outcome, 1e-9, 0).days(inputs).mean() != pytest.approx(days[event].mean(), abs=1)


def test_a_strong_penalty_leaves_the_average():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(50, 2))
    outcome = Outcome("binary", rng.random(50) < 0.3, np.zeros(50))
    fitted = fit_logistic(inputs, outcome, 1e6, 0)
    assert fitted.event_probability(inputs) == pytest.approx(np.full(50, outcome.event.mean()), abs=1e-3)


def test_a_patient_censored_on_the_day_of_a_death_is_at_risk_but_no_death():
    outcome = Outcome("time", np.array([True, False, False, False]), np.array([10.0, 10, 20, 30]))
    fitted = fit_cox(np.zeros((4, 1)), outcome, 1.0, 0)
    assert fitted.cumulative_hazard == pytest.approx([1 / 4])


def test_one_patient_who_dies_first_does_not_break_cox():
    inputs = np.array([[5.0], [0.0], [0.0], [0.0]])
    outcome = Outcome("time", np.array([True, False, False, False]), np.array([1.0, 10, 20, 30]))
    fitted = fit_cox(inputs, outcome, 1.0, 0)
    assert np.isfinite(fitted.coefficients).all()
    assert fitted.coefficients[0] > 0


def test_two_cases_at_300_days_change_class_with_the_constant():
    days = np.array([299.0, 300.0, 450.0, 451.0])
    assert survival_classes(days, 30).tolist() == [0, 1, 1, 2]
    assert survival_classes(days, 30.4375).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("model", "family"), list(FITS))
def test_every_model_ranks_a_worse_patient_higher(model, family, cohort):
    inputs, outcome = cohort
    same = Outcome(family, outcome.days < 400 if family == "binary" else outcome.event, outcome.days)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = FITS[model, family](inputs, same, 1.0, 0)
    worse, better = fitted.risk(np.array([[1.5, 0.0], [-1.5, 0.0]]))
    assert worse > better


def test_stored_models_refuse_what_is_no_number():
    with pytest.raises(ValueError, match="finite"):
        LogisticModel(intercept=float("nan"), coefficients=[1.0])
    with pytest.raises(ValueError, match="extra"):
        CoxModel.model_validate({"coefficients": [1.0], "days": [], "cumulative_hazard": [], "code": "x"})


@pytest.mark.parametrize("name", ["random_forest", "gradient_boosting"])
def test_an_ensemble_of_hazards_falls_with_time_and_ranks_as_cox_does(cohort, name):
    inputs, outcome = cohort
    fitted = FITS[name, "time"](inputs, outcome, 1.0, 0)
    days = np.linspace(0, outcome.days.max() * 1.2, 40)
    survival = fitted.survival(inputs, days)
    assert survival[:, 0] == pytest.approx(1)
    assert (np.diff(survival, axis=1) <= 1e-12).all()
    assert survival.min() >= 0
    new = np.column_stack([np.linspace(-2, 2, 9), np.zeros(9)])
    cox = fit_cox(inputs, outcome, 1.0, 0)
    assert np.corrcoef(fitted.risk(new), cox.risk(new))[0, 1] > 0.7


def test_hazards_by_interval_give_kaplan_meier_where_nothing_is_known():
    rng = np.random.default_rng(0)
    death, censor = rng.exponential(500, 400), rng.uniform(600, 3000, 400)
    outcome = Outcome("time", death <= censor, np.minimum(death, censor))
    fitted = FITS["gradient_boosting", "time"](np.zeros((400, 1)), outcome, 1.0, 0)
    survival = fitted.survival(np.zeros((1, 1)), np.array([200.0, 500.0, 1000.0]))[0]
    assert survival == pytest.approx(np.exp(-np.array([200, 500, 1000]) / 500), abs=0.07)
