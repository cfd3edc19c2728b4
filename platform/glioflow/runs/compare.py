"""Two models on the same patients of one cohort, paired: what differs, by how much, where, and how surely."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.errors import UserError
from glioflow.evaluation import Comparison, compare_rows, summarize
from glioflow.prediction import Row, measure
from glioflow.reports.comparison_page import comparison_page
from glioflow.runs.evaluate import Subject, labeled_cases, open_subject, unseen_by

METRICS = (
    "dice",
    "iou",
    "precision",
    "sensitivity",
    "hd95",
    "nsd",
    "volume_error_relative",
    "dice_tumor_slices",
    "slice_sensitivity",
    "false_positive_slice_rate",
    "lesion_sensitivity_any_voxel",
    "lesion_precision_any_voxel",
)


def compare(
    model_a: str, model_b: str, source: str | Path, *, unseen: bool = False, report: Path | None = None
) -> dict[str, Any]:
    """Compare two models on the same labeled patients, each with its own preprocessing.

    Args:
        model_a: A bundle's folder, a run, or a registered model.
        model_b: Another, of the same task.
        source: The cohort; raw where the two prepare it differently.
        unseen: Only patients that neither model was trained or chosen on.
        report: Folder for the report, `index.html`; None writes none.

    Returns:
        Of the mean Dice of A less that of B: `difference`, `ci95`, `p_value`, `num_patients`, `per_institution`. The
        same of every metric under `metrics`; `models` with each one's means; `per_patient`; `warnings`.

    Raises:
        UserError: If a model or the cohort cannot be read, or the two answer different questions.
    """
    subjects = open_subject(model_a), open_subject(model_b)
    targets = [subject.predictor.description.target for subject in subjects]
    if targets[0].names != targets[1].names:
        rule = "two models are compared on one task"
        raise UserError(rule, f"{model_a} finds {list(targets[0].names)}, {model_b} {list(targets[1].names)}")
    (rows_a, warnings_a), (rows_b, warnings_b) = (_rows(subject, subjects, source, unseen) for subject in subjects)
    paired = compare_all(rows_a, rows_b)
    answer = {
        **vars(paired["dice"]),
        "metric": "dice",
        "metrics": {metric: vars(compared) for metric, compared in paired.items()},
        "models": {"a": _described(subjects[0], rows_a), "b": _described(subjects[1], rows_b)},
        "per_patient": _side_by_side(rows_a, rows_b),
        "warnings": [*warnings_a, *(text for text in warnings_b if text not in warnings_a)],
    }
    if report is not None:
        atomic.write_text(report / "index.html", comparison_page(answer, about=f"patients of {Path(source).name}"))
        answer["report"] = str(report / "index.html")
    return answer


def compare_all(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Comparison]:
    """Compare rows of two models by every metric that both have, those of single parts (`dice_ET`) too."""
    parts = {key.removeprefix("dice_") for key in first[0] if key.startswith("dice_") and f"iou_{key[5:]}" in first[0]}
    names = [
        *METRICS,
        *(f"{metric}_{part}" for part in sorted(parts - {"tumor_slices"}) for metric in ("dice", "hd95")),
    ]
    found = {metric: compare_rows(first, second, metric=metric) for metric in names}
    return {metric: compared for metric, compared in found.items() if compared is not None}


def _rows(
    subject: Subject, subjects: Sequence[Subject], source: str | Path, unseen: bool
) -> tuple[list[Row], list[str]]:
    cohort, cases = labeled_cases(subject, source)
    if unseen:
        cases = unseen_by(subjects, cases)
    return measure(subject.predictor, cases), subject.warnings(cohort, [case.record.id for case in cases])


def _described(subject: Subject, rows: Sequence[Row]) -> dict[str, Any]:
    said, summary = subject.predictor.description, summarize(rows)
    means = {f"{metric}_mean": summary.get(f"{metric}_mean") for metric in METRICS}
    return {
        "name": subject.name,
        "experiment": said.origin.experiment,
        "architecture": said.model.architecture,
        "num_parameters": said.num_parameters,
        "dice_median": summary["dice_median"],
        **means,
    }


def _side_by_side(first: Sequence[Row], second: Sequence[Row]) -> list[dict[str, Any]]:
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
