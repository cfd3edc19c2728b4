"""Numbers that say "per patient" are of patients: one who was scanned ten times counts once."""

import numpy as np
import pytest

from glioflow.api.results import metrics_table
from glioflow.bundle.card import subgroup_metrics
from glioflow.evaluation import evaluate_case, evaluate_parts, fit_volume_interval, summarize
from glioflow.evaluation.intervals import bootstrap_interval
from glioflow.evaluation.summary import flatten_summary
from glioflow.promotion.evidence import mean
from glioflow.runs.crossval.run import fit_interval
from glioflow.runs.scoring import CohortScores

TUMOR, NOTHING = np.ones((2, 3, 3), bool), np.zeros((2, 3, 3), bool)


def row(case, patient, dice, **more):
    return {"id": case, "patient": patient, "institution": "CS", "dice": dice, **more}


# A has three bad scans, B and C one good one each: 0.6 by patient, 0.4 by case.
ROWS = [
    row("A1", "A", 0.0),
    row("A2", "A", 0.0),
    row("A3", "A", 0.0),
    row("B1", "B", 0.8),
    row("C1", "C", 1.0),
]


def test_means_medians_intervals_and_counts_are_over_patients():
    summary = summarize(ROWS)
    assert (summary["num_patients"], summary["num_cases"]) == (3, 5)
    assert summary["dice_mean"] == pytest.approx(0.6)
    assert summary["dice_median"] == pytest.approx(0.8)
    assert summary["dice_ci95"] == pytest.approx(bootstrap_interval([0.0, 0.8, 1.0]))


def test_institutions_baselines_the_gate_and_the_card_are_by_patient_too():
    scores = CohortScores(rows=tuple(ROWS), baselines={"all_empty": {each["id"]: each["dice"] for each in ROWS}})
    assert scores.summary()["per_institution"]["CS"]["dice_mean"] == pytest.approx(0.6)
    assert scores.summary()["per_institution"]["CS"]["num_patients"] == 3
    assert scores.beside("brats")["all_empty"]["dice_mean"] == pytest.approx(0.6)
    assert mean(ROWS, "dice") == pytest.approx(0.6)
    assert subgroup_metrics(ROWS)["test/by/institution/CS/dice_mean"] == pytest.approx(0.6)
    assert subgroup_metrics(ROWS)["test/by/institution/CS/num_patients"] == 3


def test_a_metric_that_is_undefined_for_one_scan_is_the_mean_of_the_others():
    summary = summarize([row("A1", "A", 0.5, hd95=None), row("A2", "A", 0.5, hd95=4.0), row("B1", "B", 1, hd95=None)])
    assert summary["hd95_mean"] == 4.0
    assert summary["hd95_num_undefined"] == 1


def test_the_interval_for_volumes_has_one_residual_for_each_patient():
    rows = [
        row(case, case[0], 1.0, fold=fold, volume_prediction_px=predicted, volume_reference_px=99)
        for case, fold, predicted in (("A1", 0, 99), ("A2", 0, 199), ("B1", 1, 99))
    ]
    interval = fit_interval(rows)
    assert interval.described()["num_patients"] == 2
    assert interval.folds == (0, 1)
    assert interval.residuals == pytest.approx((np.log(2) / 2, 0))
    assert len(fit_volume_interval([1, 2], [1, 2], [0, 1]).residuals) == 2


def test_a_cohort_of_empty_masks_says_how_many_values_the_rule_for_empty_masks_decided():
    cases = [("A1", "A", NOTHING), ("B1", "B", NOTHING), ("C1", "C", TUMOR)]
    rows = [{"id": case, "patient": who, **evaluate_case(found, NOTHING)} for case, who, found in cases]
    summary = summarize(rows)
    assert summary["dice_mean"] == pytest.approx(2 / 3)
    assert summary["dice_num_empty_both"] == summary["nsd_num_empty_both"] == summary["num_empty_both"] == 2
    dice = {each["id"]: float(each["dice"]) for each in rows}
    baselines = CohortScores(rows=tuple(rows), baselines={"all_empty": dice}).beside("brats")
    assert baselines["all_empty"]["num_empty_both"] == 2


def test_a_part_that_is_empty_counts_beside_its_own_mean_and_beside_the_mean_over_parts():
    parts = {"WT": TUMOR, "ET": NOTHING}
    summary = summarize([{"id": "A1", "patient": "A", **evaluate_parts(parts, parts)}])
    assert summary["dice_ET_num_empty_both"] == summary["dice_num_empty_both"] == 1
    assert "dice_WT_num_empty_both" not in summary
    shown = metrics_table("r", flatten_summary(summary, "test")).rows
    assert ["dice_num_empty_both", 1] in shown, "not that of the union, which is 0"


def test_masks_with_tumor_need_no_such_count():
    assert not [key for key in summarize([evaluate_case(TUMOR, TUMOR)]) if key.endswith("_num_empty_both")]
