"""Paired comparison of two models on the same patients: differences, their size and their confidence intervals."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from glioflow import atomic
from glioflow.bundle.measurement import measure
from glioflow.errors import UserError, option
from glioflow.evaluation import flatten_summary, summarize
from glioflow.evaluation.comparison import METRICS, ComparisonJson, PairedDifference, compare_all
from glioflow.evaluation.patients import CaseScores, metric_of
from glioflow.evaluation.summary import EMPTY_BOTH
from glioflow.progress import Say, counted, portion, quiet
from glioflow.quantities import count
from glioflow.reports.comparison_page import comparison_page
from glioflow.runs.analysis.evaluate import Subject, check_exists, labeled_cases, open_subject, short_name, unseen_by
from glioflow.runs.crossval.out_of_fold import OutOfFold, find_crossval, read_out_of_fold
from glioflow.tracking import Tracking
from glioflow.tracking.datasets import Dataset, prepared_dataset
from glioflow.tracking.run import Opening, open_run

# Description of a model, with its means and medians by JSON key (`hd95_mean`).
ComparedModel = dict[str, str | float | list[float] | None]


class PairedRow(TypedDict):
    """A case under both models."""

    id: str
    patient: str
    institution: str | None
    dice_a: float
    dice_b: float
    difference: float


class ComparisonAnswer(ComparisonJson):
    """A comparison in JSON: the difference in Dice, and the following.

    Keys:
        metric: Metric of the difference: `dice`.
        metrics: The difference in every metric.
        models: Descriptions of `a` and `b`, with their means.
        per_patient: Each case under both models.
        warnings: Reasons why the comparison may be unfair, a sentence each.
        run_id: Its run; absent if MLflow does not have both models.
        report: Path or URI of the report; absent if none was written.
    """

    metric: str
    metrics: dict[str, ComparisonJson]
    models: dict[str, ComparedModel]
    per_patient: list[PairedRow]
    warnings: list[str]
    run_id: NotRequired[str]
    report: NotRequired[str]


@dataclass(frozen=True)
class _Side:
    """One of the two models: its description, its scores by case, its data set, and whether MLflow has it."""

    name: str
    experiment: str
    architecture: str
    num_parameters: int | None
    rows: Sequence[CaseScores]
    datasets: tuple[Dataset, ...]
    logged: bool


def compare(
    model_a: str,
    model_b: str,
    source: str | Path | None = None,
    *,
    unseen: bool = False,
    report: Path | None = None,
    say: Say = quiet,
) -> ComparisonAnswer:
    """Compare two models on the same labeled patients, each with its own preprocessing, or two cross-validations.

    A comparison of models that MLflow has is logged there, beside the runs of A's experiment.

    Args:
        model_a: A bundle's folder, a run, a registered model, or the run of a finished cross-validation.
        model_b: Another of the same kind and task.
        source: The cohort; raw where the two prepare it differently. None for cross-validations, whose out-of-fold
            patients are compared.
        unseen: Only patients that neither model was trained or chosen on; those of cross-validations always are.
        report: Folder for the report, `index.html`; None writes none.
        say: Called after each case.

    Returns:
        `difference`, `ci95`, `p_value`, `num_patients` and `per_institution` of the mean Dice of A minus that of B; the
        same for every metric under `metrics`, the means of each model under `models`, and `run_id` if it is logged.

    Raises:
        UserError: If a model or the cohort cannot be read, or the two have different tasks, patients or kinds.
    """
    a, b, warnings, about = _measure_sides(model_a, model_b, source, unseen=unseen, say=say)
    paired = compare_all(a.rows, b.rows)
    dice = paired["dice"]
    answer: ComparisonAnswer = {
        "difference": dice.difference,
        "ci95": dice.ci95,
        "p_value": dice.p_value,
        "num_patients": dice.num_patients,
        "per_institution": dice.per_institution,
        "num_undefined": dice.num_undefined,
        "metric": "dice",
        "metrics": {metric: compared.to_json() for metric, compared in paired.items()},
        "models": {"a": _described(a, paired), "b": _described(b, paired)},
        "per_patient": _side_by_side(a.rows, b.rows),
        "warnings": warnings,
    }
    page = comparison_page(answer, about=about)
    if a.logged and b.logged:
        answer["run_id"] = _log(a, b, answer, page)
        answer["report"] = f"runs:/{answer['run_id']}/report/index.html"
    if report is not None:
        atomic.write_text(report / "index.html", page)
        answer["report"] = str(report / "index.html")
    return answer


def _measure_sides(
    model_a: str, model_b: str, source: str | Path | None, *, unseen: bool, say: Say
) -> tuple[_Side, _Side, list[str], str]:
    """Measure both models on the cohort, or read the scores of two cross-validations; say which patients count."""
    run_a, run_b = find_crossval(model_a), find_crossval(model_b)
    if run_a and run_b:
        if source is not None:
            rule = "two cross-validations must be compared on their own patients"
            raise UserError(rule, source, hint="leave out the cohort")
        _check_two(run_a != run_b, model_a, model_b)
        a, b, warnings = _out_of_fold(read_out_of_fold(run_a), read_out_of_fold(run_b))
        return a, b, warnings, f"{len(a.rows)} cases, each predicted by models that never saw it"
    if run_a or run_b:
        rule = (
            "a cross-validation cannot be compared with a model: it judges every patient by a model that never saw it, "
            "which a single model cannot"
        )
        mixed = f"{run_a or run_b}, a cross-validation, with {model_b if run_a else model_a}, a model"
        raise UserError(rule, mixed, hint="give two models and a cohort, or two cross-validations")
    if source is None:
        raise UserError("a comparison of two models needs a labeled cohort", hint="give one: compare A B COHORT")
    check_exists(source)
    _check_two(os.path.realpath(model_a) != os.path.realpath(model_b), model_a, model_b)
    one, other = open_subject(model_a), open_subject(model_b)
    _check_two(not one.run_ids or {*one.run_ids} != {*other.run_ids}, model_a, model_b)
    a, b, warnings = _on_cohort(one, other, source, unseen=unseen, say=say)
    return a, b, warnings, f"patients of {Path(source).name}"


def _check_two(are_two: bool, model_a: str, model_b: str) -> None:
    if not are_two:
        rule = "a model cannot be compared with itself: every difference would be 0"
        hint = "give another model, or measure this one with `glioflow evaluate`"
        raise UserError(rule, model_a if model_a == model_b else f"{model_a} and {model_b}", hint=hint)


def _log(a: _Side, b: _Side, answer: ComparisonAnswer, page: str) -> str:
    """Log a comparison as a run of its own, and return its id."""
    opening = Opening(
        kind="compare",
        experiment=a.experiment,
        name=f"compare-{short_name(a.name)}-with-{short_name(b.name)}"[:200],
        tags={"glioflow.model_a": a.name, "glioflow.model_b": b.name},
        datasets=tuple({dataset.digest: dataset for dataset in (*a.datasets, *b.datasets)}.values()),
    )
    with open_run(Tracking(), opening) as run:
        for metric, compared in answer["metrics"].items():
            shown = {key: value for key, value in compared.items() if key in PairedDifference.__annotations__}
            run.log_metrics(flatten_summary(shown, f"compare/{metric}"))
        run.log_json("comparison.json", answer)
        run.log_text("report/index.html", page)
    return run.run_id


def _on_cohort(a: Subject, b: Subject, source: str | Path, *, unseen: bool, say: Say) -> tuple[_Side, _Side, list[str]]:
    _check_task({subject.name: subject.predictor.description.target.names for subject in (a, b)})
    sides, warnings = [], []
    for number, subject in enumerate((a, b)):
        cohort, cases = labeled_cases(subject, source, say=say)
        if unseen:
            warnings += subject.renamed(cases)
            cases = unseen_by((a, b), cases)
        model = subject.predictor.description
        report_part = portion(say, short_name(subject.name), number / 2, (number + 1) / 2)
        sides.append(
            _Side(
                name=subject.name,
                experiment=model.origin.experiment,
                architecture=model.model.architecture,
                num_parameters=model.num_parameters,
                rows=measure(subject.predictor, counted(cases, "case", report_part)),
                datasets=(prepared_dataset(cohort, "testing", cases=len(cases)),),
                logged=bool(subject.run_ids),
            )
        )
        warnings += subject.warnings(cohort, cases)
    _check_references(sides[0].rows, sides[1].rows, "models", "give models whose parts are made of the same labels")
    return sides[0], sides[1], list(dict.fromkeys(warnings))


def _out_of_fold(a: OutOfFold, b: OutOfFold) -> tuple[_Side, _Side, list[str]]:
    _check_task({each.run_id: each.parts for each in (a, b)})
    ours, theirs = ({str(row["id"]): row for row in each.rows} for each in (a, b))
    if odd := sorted(ours.keys() ^ theirs.keys()):
        counts = f"{len(ours)} and {count(len(theirs), 'case')}, {len(odd)} only in one, such as {odd[:3]}"
        hint = f"run both with the same cohort, and with the same {option('hold_out_test')}"
        raise UserError("two cross-validations must be compared on the same patients", counts, hint=hint)
    _check_references(a.rows, b.rows, "cross-validations", "run both on the same version of the cohort")
    moved = sum(row["fold"] != theirs[case_id]["fold"] for case_id, row in ours.items())
    warnings = [] if a.folds == b.folds else [f"A has {a.folds} folds and B {b.folds}: they train on other numbers"]
    if moved and not warnings:
        warnings = [f"{moved} of {len(ours)} cases lie in different folds of A and B: what trained differs, too"]
    return _side_of(a), _side_of(b), warnings


def _side_of(crossval: OutOfFold) -> _Side:
    return _Side(
        name=crossval.run_id,
        experiment=crossval.experiment,
        architecture=crossval.architecture,
        num_parameters=crossval.num_parameters,
        rows=crossval.rows,
        datasets=crossval.datasets,
        logged=True,
    )


def _check_task(parts: dict[str, tuple[str, ...]]) -> None:
    if len(set(parts.values())) > 1:
        tasks = ", ".join(f"{name} finds {list(names)}" for name, names in parts.items())
        raise UserError("two models must be compared on one task", tasks, hint="give models with the same target")


def _check_references(first: Sequence[CaseScores], second: Sequence[CaseScores], kind: str, hint: str) -> None:
    """Refuse rows of the same cases if parts with the same name cover different voxels."""
    theirs = {str(row["id"]): row for row in second}
    others = [
        row["id"] for row in first if row["id"] in theirs and _true_voxels(row) != _true_voxels(theirs[row["id"]])
    ]
    if others:
        rule = f"two {kind} must be compared against the same reference masks"
        raise UserError(rule, f"{count(len(others), 'case')} with others, such as {others[:3]}", hint=hint)


def _true_voxels(row: CaseScores) -> dict[str, float]:
    """Return the number of reference voxels in each part and in all parts together."""
    parts = [key.removeprefix("num_true_positive") for key in row if key.startswith("num_true_positive")]
    kinds = ("num_true_positive", "num_false_negative")
    return {part: sum(metric_of(row, f"{kind}{part}") or 0 for kind in kinds) for part in parts}


def _described(side: _Side, metrics: Iterable[str]) -> ComparedModel:
    """Describe a model with its means, and for each the number of patients decided by the rule for two empty masks."""
    summary = summarize(side.rows)
    return {
        "name": side.name,
        "experiment": side.experiment,
        "architecture": side.architecture,
        "num_parameters": side.num_parameters,
        "dice_median": summary["dice_median"],
        **{f"{metric}_mean": summary.get(f"{metric}_mean") for metric in (*METRICS, *metrics)},
        **{key: summary.get(key, 0) for key in (f"{metric}_{EMPTY_BOTH}" for metric in ("dice", *metrics))},
    }


def _side_by_side(first: Sequence[CaseScores], second: Sequence[CaseScores]) -> list[PairedRow]:
    theirs = {row["id"]: row for row in second}
    return [
        {
            "id": row["id"],
            "patient": row["patient"],
            "institution": row["institution"],
            "dice_a": row["dice"],
            "dice_b": theirs[row["id"]]["dice"],
            "difference": row["dice"] - theirs[row["id"]]["dice"],
        }
        for row in first
    ]
