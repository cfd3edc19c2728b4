"""Each rule of the gate on made-up measurements: on which side of its limit it falls, and what it says."""

import shutil

import numpy as np
import pytest

from glioflow.config.gate import GateSettings
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.preprocessing.pipeline import ResizePlane
from glioflow.data.splits import Split
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.evaluation import count_reliability
from glioflow.promotion import Reason, rules
from glioflow.promotion.evidence import Measured
from glioflow.promotion.golden import golden_difference
from glioflow.tracking.trained import KnownCase, Trained

CERTAIN = count_reliability(np.array([0.0, 1.0]), np.array([False, True]))


def measured(dice, *, places=None, rates=None, latency_s=0.1):
    """Return a measurement of one patient per value."""
    places = places or ["A"] * len(dice)
    rates = rates or [0.0] * len(dice)
    rows = [
        {"id": f"case{k}", "patient": f"p{k}", "institution": institution, "dice": d, "false_positive_slice_rate": rate}
        for k, (d, institution, rate) in enumerate(zip(dice, places, rates, strict=True))
    ]
    return Measured(rows, CERTAIN, latency_s)


def against(champion, challenger, **settings):
    reasons = rules.against(champion, challenger, GateSettings(**settings))
    return {reason.rule.split(" (")[0]: reason for reason in reasons}


def test_a_little_worse_is_not_inferior_within_the_margin_and_never_superior():
    champion, challenger = measured([0.8] * 8), measured([0.79] * 8)
    reason = against(champion, challenger, margin=0.02)["not worse than the champion"]
    assert reason.passed
    assert (reason.value, reason.limit) == (pytest.approx(-0.01), -0.02)
    assert "8 patients" in reason.note
    assert not against(champion, challenger, margin=0.005)["not worse than the champion"].passed
    assert not against(champion, challenger, rule="superiority")["better than the champion"].passed


def test_superiority_needs_the_whole_interval_above_zero():
    champion = measured([0.8] * 8)
    clearly, on_average = measured([0.82, 0.84] * 4), measured([0.7, 0.95] * 4)
    assert against(champion, clearly, rule="superiority")["better than the champion"].passed
    assert not against(champion, on_average, rule="superiority")["better than the champion"].passed
    assert not against(champion, measured([0.8] * 8), rule="superiority")["better than the champion"].passed


def test_one_institution_may_not_pay_for_the_others():
    places = ["A"] * 8 + ["B"] * 4
    champion = measured([0.8] * 12, places=places)
    challenger = measured([0.9] * 8 + [0.65] * 4, places=places)
    found = against(champion, challenger, margin=0.1, margin_by_institution=0.1)
    assert found["not worse than the champion"].passed
    reason = found["not worse at any institution"]
    assert not reason.passed
    assert reason.value == pytest.approx(-0.15)
    assert "A +0.1000 over 8" in reason.note
    assert "B -0.1500 over 4" in reason.note


def test_small_institutions_are_pooled_and_a_pool_too_small_is_not_judged():
    places = ["A"] * 8 + ["B", "C", "D"]
    champion = measured([0.8] * 11, places=places)
    challenger = measured([0.8] * 8 + [0.6] * 3, places=places)
    pooled = against(champion, challenger, min_patients_by_institution=3)["not worse at any institution"]
    assert not pooled.passed
    assert "other -0.2000 over 3" in pooled.note
    fewer = against(champion, challenger, min_patients_by_institution=4)["not worse at any institution"]
    assert fewer.passed
    assert fewer.value == pytest.approx(0.0)
    nowhere = against(champion, challenger, min_patients_by_institution=20)["not worse at any institution"]
    assert (nowhere.passed, nowhere.value) == (True, None)
    assert "no institution or pool has 20 patients" in nowhere.note


def test_more_false_positive_slices_than_the_champion_are_held_against_a_challenger():
    champion = measured([0.8] * 4, rates=[0.1] * 4)
    name = "false-positive slices beside the champion's"
    assert against(champion, measured([0.8] * 4, rates=[0.11] * 4))[name].passed
    worse = against(champion, measured([0.8] * 4, rates=[0.2] * 4))[name]
    assert (worse.passed, worse.value, worse.limit) == (False, pytest.approx(0.2), pytest.approx(0.12))
    assert name not in against(champion, champion, margin_false_positive_slices=None)


def test_a_champion_that_learned_from_the_test_patients_is_no_measure(prepared):
    a, b = (prepared.records[0], prepared.records[1])
    fair = rules.unseen(Trained(Split(train=("c",), val=("d",), test=(a.id, b.id)), {}), [a, b])
    unfair = rules.unseen(Trained(Split(train=(a.id, "c"), val=(b.id,), test=("d",)), {}), [a, b])
    assert (fair.passed, fair.value, fair.note) == (True, 0, "the same test patients")
    assert (unfair.passed, unfair.value) == (False, 2)
    assert rules.decide([unfair]) == "insufficient-evidence"


def test_a_champion_that_learned_from_another_scan_of_a_test_patient_is_no_measure_either(prepared):
    test = prepared.records[0]
    person = {"earlier": KnownCase(patient=test.patient)}
    images = {"renamed": KnownCase(patient="somebody", digest=test.digest)}
    for name, known in (("earlier", person), ("renamed", images)):
        assert not rules.unseen(Trained(Split(train=(name,), val=("d",)), known), [test]).passed


def test_the_use_of_the_test_patients_is_said_and_may_be_limited():
    assert rules.fresh(7, GateSettings()).passed
    assert rules.fresh(7, GateSettings(max_test_uses=7)).passed
    tired = rules.fresh(8, GateSettings(max_test_uses=7))
    assert (tired.passed, tired.value, tired.limit) == (False, 8, 7)


def reason(rule, passed):
    return Reason(rule=rule, value=0, limit=0, passed=passed)


@pytest.mark.parametrize(
    ("reasons", "decision"),
    [
        ([reason("x", True)], "promoted"),
        ([reason("x", False), reason("y", True)], "rejected"),
        ([reason(rules.ENOUGH, False), reason("y", False)], "insufficient-evidence"),
    ],
)
def test_one_broken_rule_rejects_and_missing_evidence_decides_nothing(reasons, decision):
    assert rules.decide(reasons) == decision


ANSWER = {"tumor_voxels": 100, "mean_probability": 0.2, "highest_probability": 0.9, "risk_score": 1.0}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"tumor_voxels": 101, "mean_probability": 0.2 + 1e-6}, True),  # another machine's rounding
        ({"tumor_voxels": 400}, False),
        ({"mean_probability": 0.21}, False),
        ({"risk_score": None}, False),
        ({"risk_score": 1.1}, False),
    ],
)
def test_the_golden_answer_may_move_by_rounding_only(changes, same):
    (result,) = rules.smoke(golden_difference(ANSWER, ANSWER | changes))
    assert result.passed is same


def test_a_refusal_is_an_answer_too_and_no_answer_at_all_does_not_pass():
    refusal = {"refused": "needs a brain mask"}
    assert rules.smoke(golden_difference(refusal, dict(refusal)))[0].passed
    assert not rules.smoke(golden_difference(refusal, ANSWER))[0].passed
    assert not rules.smoke(None)[0].passed


def test_a_test_patient_in_a_cohort_that_the_model_has_seen_fails_the_gate(lgg, tmp_path):
    prepared = prepare(open_cohort(lgg), tmp_path / "prepared", (ResizePlane(size=48),))
    ids = [record.id for record in prepared.records]
    split = Split(train=tuple(ids[:5]), val=tuple(ids[5:7]), test=tuple(ids[7:]))
    rule = "audit finds no test patient in other cohorts that the model has seen"

    def asked(*seen):
        reasons = rules.clean(split, prepared, GateSettings(seen=tuple(map(str, seen))))
        return next((reason for reason in reasons if reason.rule == rule), None)

    assert asked() is None
    synthesize_lgg(tmp_path / "others", patients=3, seed=9, size=48, slices=(5, 7))
    (tmp_path / "others" / "renamed").mkdir()  # the test patient under another name
    for file in (lgg / ids[7]).iterdir():
        name = file.name.replace(ids[7], "renamed")
        (tmp_path / "others" / "renamed" / name).write_bytes(file.read_bytes())
    found = asked(tmp_path / "others")
    assert not found.passed
    assert f"{ids[7]} is renamed of others" in found.note
    shutil.rmtree(tmp_path / "others" / "renamed")
    assert asked(tmp_path / "others").passed
