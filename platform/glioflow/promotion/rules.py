"""The rules of the gate, each with a number, a limit and whether it holds; reads nothing from MLflow."""

from collections.abc import Sequence
from pathlib import Path

from glioflow import audit
from glioflow.bundle.measurement import measure_empty, measure_flair_threshold
from glioflow.bundle.prediction import Predictor
from glioflow.config.gate import USUAL_PATIENTS, GateSettings
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.prepared.manifest import CaseRecord
from glioflow.data.splits import Split
from glioflow.evaluation import compare_paired, compare_rows, summarize
from glioflow.evaluation.patients import institutions, patient_means
from glioflow.promotion.evidence import Measured, mean
from glioflow.promotion.record import Decision, Reason
from glioflow.tracking.trained import Trained

ENOUGH, UNSEEN = "enough test patients", "the champion never trained on these test patients"
# Failing these does not count against the challenger.
_EVIDENCE = (ENOUGH, UNSEEN)
_GOLDEN_LIMIT = 1e-3


def decide(reasons: Sequence[Reason]) -> Decision:
    """Return the decision that follows from all rules."""
    failed = {reason.rule for reason in reasons if not reason.passed}
    if failed & set(_EVIDENCE):
        return "insufficient-evidence"
    return "rejected" if failed else "promoted"


def at_most(rule: str, value: float | None, limit: float | None, note: str = "") -> list[Reason]:
    """Return the rule `value <= limit`; left out if the limit is None, and met if the value is None."""
    if limit is None:
        return []
    if value is None:
        return [Reason(rule=rule, value=None, limit=limit, passed=True, note="undefined on these patients")]
    return [Reason(rule=rule, value=value, limit=limit, passed=value <= limit, note=note)]


def clean(split: Split, cohort: PreparedCohort, settings: GateSettings) -> list[Reason]:
    """Audit for leaks between the parts of the split, and for test patients in other seen cohorts."""
    leaks = audit.find_split_leaks(split, cohort.entries())
    copies = audit.find_image_leaks(split, cohort.cases([*split.train, *split.val, *split.test]))
    return [
        *at_most("audit finds no patient in two parts", len(leaks), 0, "; ".join(leak.value for leak in leaks[:3])),
        *at_most("audit finds no image in two parts", len(copies), 0, "; ".join(leak.value for leak in copies[:3])),
        *(_not_elsewhere(split, cohort, [Path(each) for each in settings.seen]) if settings.seen else []),
    ]


def _not_elsewhere(split: Split, cohort: PreparedCohort, seen: Sequence[Path]) -> list[Reason]:
    leaks = audit.find_in_other_cohorts(split, cohort, seen, audit.read_aliases(seen))
    rule = "audit finds no test patient in other cohorts that the model has seen"
    return at_most(rule, len(leaks), 0, "; ".join(leak.value for leak in leaks[:3]))


def enough(split: Split, cohort: PreparedCohort, settings: GateSettings) -> Reason:
    """Require enough test patients; note if the experiment requires fewer than usual."""
    patients = len({cohort.case(case_id).record.patient for case_id in split.test})
    limit = settings.min_patients
    few = f"this experiment asks for few: {USUAL_PATIENTS} are usual" if limit < USUAL_PATIENTS else ""
    return Reason(rule=ENOUGH, value=patients, limit=limit, passed=patients >= limit, note=few)


def fresh(used: int, settings: GateSettings) -> Reason:
    """Limit the uses of the test patients, since each use reveals a little about them to those who choose models."""
    limit = settings.max_test_uses
    return Reason(
        rule="times that these test patients judged before",
        value=used,
        limit=limit,
        passed=limit is None or used <= limit,
        note="the experiment sets no limit" if limit is None else "",
    )


def unseen(champion: Trained, cases: Sequence[CaseRecord]) -> Reason:
    """Require that no test case or its person trained or tuned the champion, which would favor it."""
    seen = [case.id for case in cases if champion.part_of(case) in ("train", "val")]
    equal = set(champion.split.test) == {case.id for case in cases}
    same = "the same test patients" if equal else "another split than the champion's"
    return Reason(rule=UNSEEN, value=len(seen), limit=0, passed=not seen, note=same)


def alone(
    challenger: Predictor, measured: Measured, cases: Sequence[PreparedCase], settings: GateSettings
) -> list[Reason]:
    """Check what every version must show, with or without a champion."""
    dice = measured.mean("dice") or 0.0
    baselines = {"all-empty": mean(measure_empty(challenger.description.target, cases), "dice") or 0.0}
    if (rows := measure_flair_threshold(challenger.description, cases)) is not None:
        baselines["FLAIR threshold"] = mean(rows, "dice") or 0.0
    ruled = summarize(measured.rows).get("dice_num_empty_both")
    reasons = [
        Reason(
            rule=f"mean test Dice above the {name} baseline",
            value=dice,
            limit=baseline + settings.margin_over_baseline,
            passed=dice > baseline + settings.margin_over_baseline,
            note=f"{ruled} patients with an empty part in prediction and reference count as 1" if ruled else "",
        )
        for name, baseline in baselines.items()
    ]
    rate = measured.mean("false_positive_slice_rate")
    error = measured.reliability.expected_error
    return [
        *reasons,
        *at_most("false-positive slices", rate, settings.max_false_positive_slice_rate),
        *at_most("calibration error near the tumor", error, settings.max_calibration_error),
        *at_most("median seconds for a study", measured.latency_s, settings.max_latency_s),
    ]


def against(champion: Measured, challenger: Measured, settings: GateSettings) -> list[Reason]:
    """Compare with the champion on the same patients: overall, at each institution, and in false-positive slices."""
    compared = compare_rows(challenger.rows, champion.rows)
    low, note = -1.0, "no patient has a Dice under both"
    if compared is not None:
        low = compared.ci95[0]
        note = (
            f"{compared.num_patients} patients, mean difference {compared.difference:+.4f}, "
            f"p {compared.p_value:.3g} (Wilcoxon)"
        )
    superior = settings.rule == "superiority"
    limit = 0.0 if superior else -settings.margin
    reasons = [
        Reason(
            rule=f"{'better' if superior else 'not worse'} than the champion (lower end of the paired 95 % interval of "
            "mean Dice)",
            value=low,
            limit=limit,
            passed=low > limit if superior else low >= limit,
            note=note,
        )
    ]
    if settings.margin_by_institution is not None:
        reasons += _by_institution(champion, challenger, settings, settings.margin_by_institution)
    before, now = champion.mean("false_positive_slice_rate"), challenger.mean("false_positive_slice_rate")
    if settings.margin_false_positive_slices is not None and before is not None:
        allowed = before + settings.margin_false_positive_slices
        reasons += at_most("false-positive slices beside the champion's", now, allowed, f"champion {before:.4f}")
    return reasons


def _by_institution(champion: Measured, challenger: Measured, settings: GateSettings, margin: float) -> list[Reason]:
    """Check each institution, with small ones pooled; the worst one's number is the rule's."""
    ours, theirs = (patient_means(measured.rows, "dice") for measured in (challenger, champion))
    fewest = settings.min_patients_by_institution
    names = institutions(challenger.rows)
    groups = compare_paired(ours, theirs, institutions=names, min_patients=fewest).per_institution
    large = {name: group for name, group in groups.items() if group["num_patients"] >= fewest}
    rule = "not worse at any institution (mean difference of Dice at the worst one)"
    listed = ", ".join(f"{name} {g['difference']:+.4f} over {g['num_patients']}" for name, g in groups.items())
    if not large:
        note = f"no institution or pool has {fewest} patients: {listed or 'none is known'}"
        return [Reason(rule=rule, value=None, limit=-margin, passed=True, note=note)]
    worst = min(group["difference"] for group in large.values())
    return [Reason(rule=rule, value=worst, limit=-margin, passed=worst >= -margin, note=listed)]


def smoke(difference: float | None) -> list[Reason]:
    """Require the golden answer of the version's registration; None if none was recorded."""
    rule = "the golden study is answered as at registration (largest relative difference)"
    if difference is None:
        note = "this version was registered without a golden answer; its bundle loads"
        return [Reason(rule=rule, value=None, limit=_GOLDEN_LIMIT, passed=False, note=note)]
    return at_most(rule, min(difference, 1e9), _GOLDEN_LIMIT)
