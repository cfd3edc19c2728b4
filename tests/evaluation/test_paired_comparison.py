"""Intervals over patients, and two models on the same patients."""

import numpy as np
import pytest

from glioflow.errors import UserError
from glioflow.evaluation import bootstrap_interval, compare_paired, compare_rows


def scores(seed, num=30, shift=0.0):
    values = np.random.default_rng(seed).normal(0.8, 0.05, num) + shift
    return {f"patient-{k:02d}": float(value) for k, value in enumerate(values)}


def test_an_interval_is_that_of_scipys_bootstrap():
    from scipy.stats import bootstrap

    values = np.array(list(scores(0).values()))
    for statistic, function in (("mean", np.mean), ("median", np.median)):
        theirs = bootstrap((values,), function, method="percentile", rng=1).confidence_interval
        assert bootstrap_interval(values, statistic=statistic) == pytest.approx(tuple(theirs), abs=0.004)


def test_a_95_percent_interval_holds_the_truth_about_that_often():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        low, high = bootstrap_interval(rng.normal(0, 1, 40), seed=seed)
        hits += low <= 0 <= high
    assert 0.9 <= hits / 300 <= 0.98


def test_the_better_model_is_found_through_the_patients_spread():
    worse = scores(0)
    better = {patient: value + 0.02 + 0.001 * (k % 3) for k, (patient, value) in enumerate(worse.items())}
    compared = compare_paired(better, worse)
    assert compared.difference == pytest.approx(0.021)
    assert 0.019 < compared.ci95[0] < compared.difference < compared.ci95[1] < 0.023
    assert compared.p_value < 0.001
    assert compare_paired(worse, better).difference == pytest.approx(-0.021)


def test_two_models_of_equal_worth_are_not_told_apart():
    compared = compare_paired(scores(1), scores(2))
    assert compared.ci95[0] < 0 < compared.ci95[1]
    assert compared.p_value > 0.05


def test_a_model_against_itself_differs_by_nothing():
    compared = compare_paired(scores(1), scores(1))
    assert (compared.difference, compared.ci95, compared.p_value) == (0, (0, 0), 1)


def test_the_order_of_patients_does_not_matter():
    first, second = scores(1), scores(2)
    assert compare_paired(dict(reversed(first.items())), second) == compare_paired(first, second)


def test_small_institutions_are_pooled():
    first, second = scores(1, 12), scores(2, 12)
    names = ["DU"] * 6 + ["HT"] * 2 + ["EZ"] + ["FG"] * 3
    compared = compare_paired(first, second, institutions=dict(zip(first, names, strict=True)))
    assert {name: entry["num_patients"] for name, entry in compared.per_institution.items()} == {"DU": 6, "other": 6}
    differences = [first[patient] - second[patient] for patient in list(first)[:6]]
    assert compared.per_institution["DU"]["difference"] == pytest.approx(np.mean(differences))


def test_other_patients_are_refused():
    with pytest.raises(UserError, match=r"same patients for both models.*2 of them unpaired"):
        compare_paired({"a": 1.0, "b": 1.0}, {"b": 1.0, "c": 1.0})


def row(case, dice, patient=None, **others):
    return {"id": case, "patient": patient or case, "institution": None, "dice": dice, **others}


def test_a_patient_with_many_cases_counts_once():
    ours = [row("a1", 0.9, "a"), row("a2", 0.7, "a"), row("b1", 0.5, "b")]
    theirs = [row("a1", 0.5, "a"), row("a2", 0.5, "a"), row("b1", 0.6, "b")]
    compared = compare_rows(ours, theirs)
    assert compared.num_patients == 2
    assert compared.difference == pytest.approx((0.3 - 0.1) / 2)


def test_a_metric_undefined_for_one_model_leaves_the_pair_out_and_is_counted():
    ours = [row("a", 1, precision=None), row("b", 1, precision=0.5)]
    theirs = [row("a", 1, precision=0.2), row("b", 1, precision=0.25)]
    compared = compare_rows(ours, theirs, metric="precision")
    assert (compared.difference, compared.num_patients, compared.num_undefined) == (0.25, 1, 1)
    assert compare_rows(ours, theirs, metric="nsd") is None


def test_rows_of_other_cases_are_refused_by_name():
    with pytest.raises(UserError, match=r"same cases.*unpaired \['b', 'c'\]"):
        compare_rows([row("a", 1), row("b", 1)], [row("a", 1), row("c", 1)])
