"""Shape features against genomic clusters: the test, the areas, and when we say "agrees"."""

import numpy as np
import pandas as pd
import pytest

from glioflow.errors import UserError
from glioflow.features.association import associate, fisher_exact_p


def cohort(num=60, *, seed=0, effect=0.0):
    rng = np.random.default_rng(seed)
    index = pd.Index([f"p{k}" for k in range(num)], name="patient")
    cluster = rng.integers(1, 5, num).astype(float)
    bevr = rng.normal(0.4, 0.05, num) - effect * 0.05 * (cluster == 2)
    features = pd.DataFrame({"asd": rng.random(num), "mf": rng.random(num), "bevr": bevr}, index=index)
    return features, pd.DataFrame({"RNASeqCluster": cluster}, index=index)


def test_the_exact_test_of_a_larger_table_is_the_enumerated_one():
    # Both tables enumerated by hand: 2 x 3, all margins fixed.
    table = np.array([[3, 1, 0], [0, 2, 4]])
    from itertools import product
    from math import comb

    rows, columns = table.sum(axis=1), table.sum(axis=0)
    weights = {
        first: np.prod([comb(int(n), k) for n, k in zip(columns, first, strict=True)])
        for first in product(*[range(n + 1) for n in columns])
        if sum(first) == rows[0]
    }
    observed = weights[tuple(table[0])]
    expected = sum(w for w in weights.values() if w <= observed) / sum(weights.values())
    assert fisher_exact_p(table) == pytest.approx(expected, abs=0.003)
    assert fisher_exact_p(np.array([[8, 2], [1, 5]])) == pytest.approx(0.0349650, abs=1e-6)


def test_a_strong_association_is_found_and_noise_is_not():
    found = {one.feature: one for one in associate(*cohort(effect=4)).tests}
    assert found["bevr"].significant
    assert not found["asd"].significant
    assert found["bevr"].p_bonferroni == pytest.approx(min(1, 3 * found["bevr"].p_value))
    assert sum(map(sum, found["bevr"].table)) == found["bevr"].num_patients == 60


def test_areas_are_of_one_class_against_the_rest_and_of_the_reciprocal_of_bevr():
    from sklearn.metrics import roc_auc_score

    features, clinical = cohort(effect=1)
    area = next(one for one in associate(features, clinical).aucs if one.score == "1/bevr" and one.label == "2")
    assert area.auc == pytest.approx(roc_auc_score(clinical["RNASeqCluster"] == 2, 1 / features["bevr"]))
    assert area.low < area.auc < area.high


def test_agrees_means_that_the_published_area_lies_in_our_interval():
    for effect, agrees in ((1.2, True), (10, False)):
        areas = associate(*cohort(effect=effect)).aucs
        area = next(one for one in areas if one.published)
        assert (area.low <= 0.8 <= area.high) is agrees
        assert area.agrees["automatic masks"] is agrees
    assert sum(bool(one.published) for one in areas) == 1


def test_published_p_values_stand_beside_ours_without_a_verdict():
    test = next(one for one in associate(*cohort()).tests if one.feature == "bevr")
    assert test.published_p == "< .0002"
    assert not {name for name in type(test).model_fields if "agree" in name}


def test_gaps_leave_a_patient_out_of_that_test_only():
    features, clinical = cohort()
    clinical["CNCluster"] = np.where(np.arange(60) < 50, np.arange(60) % 3, np.nan)
    counts = {one.cluster: one.num_patients for one in associate(features, clinical).tests}
    assert counts == {"RNASeqCluster": 60, "CNCluster": 50}


def test_the_same_seed_gives_the_same_table():
    assert associate(*cohort(), seed=3) == associate(*cohort(), seed=3)


def test_other_columns_of_any_table_can_be_asked_for():
    features, clinical = cohort()
    clinical["sex"] = ["f", "m"] * 30
    found = associate(features, clinical, feature_names=["mf"], clusters=["sex"])
    assert [one.classes for one in found.tests] == [["f", "m"]]


def test_what_is_missing_is_named():
    features, clinical = cohort()
    with pytest.raises(UserError, match="got flatness; choose one of"):
        associate(features, clinical, feature_names=["flatness"])
    with pytest.raises(UserError, match="at least one patient"):
        associate(features.set_axis([f"q{k}" for k in range(60)]), clinical)
    with pytest.raises(UserError, match="2 to 12 classes"):
        associate(features, clinical.assign(RNASeqCluster=1.0))


def test_a_class_of_one_patient_has_an_area_but_no_interval():
    features, clinical = cohort()
    clinical["rare"] = [1.0, *[2.0] * 59]
    areas = associate(features, clinical, clusters=["rare"]).aucs
    assert all(area.low is None and area.high is None for area in areas)
    assert not any(area.agrees.get("automatic masks") for area in areas)


def test_a_class_without_patients_changes_no_p_value():
    table = np.array([[0, 2, 1], [0, 0, 2]])
    assert fisher_exact_p(table) == fisher_exact_p(table[:, 1:])
    assert fisher_exact_p(np.array([[0, 2], [0, 3]])) == 1.0


def test_a_small_table_has_one_p_value():
    assert fisher_exact_p(np.array([[2, 0, 1, 1], [1, 1, 1, 0]])) == 1.0  # SciPy answers an array
