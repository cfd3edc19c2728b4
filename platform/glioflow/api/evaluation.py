"""Measuring models on labeled patients, and comparing two of them."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from glioflow import cluster
from glioflow.api.inputs import check_beside, model_name
from glioflow.api.results import Result, Summarized, patients_tables
from glioflow.errors import option
from glioflow.evaluation.comparison import ComparisonJson, PairedDifference
from glioflow.evaluation.patients import CaseScores
from glioflow.progress import Say, occasionally, print_progress
from glioflow.reports.evaluation_page import BESIDE, BOTH_EMPTY, METRICS, beside_baselines
from glioflow.reports.numbers import interval
from glioflow.reports.tables import Table
from glioflow.runs.analysis.compare import ComparedModel, PairedRow
from glioflow.runs.analysis.compare import compare as compare_models
from glioflow.runs.analysis.evaluate import evaluate as evaluate_model


@dataclass(frozen=True)
class EvaluationResult(Summarized):
    """A model, measured on the labeled patients of a cohort.

    Attributes:
        per_patient: Metrics of each case, with its `patient`.
        dice_mean: Mean over all patients, with the cases of each averaged; the other metrics likewise.
        dice_median: Median over all patients.
        dice_ci95: 95 % bootstrap interval of the mean.
        baselines: Mean and median Dice of the baselines that a network has to beat.
        num_parameters: Number of parameters of the model.
        warnings: Reasons why the numbers may be too good, a sentence each.
        run_id: The run of the evaluation; None for a bundle's bare folder, which has no run.
        report: Path or URI of the report; None if none was written.
        summary: Every further number, by its JSON key.
    """

    per_patient: list[CaseScores] = field(repr=False)
    dice_mean: float
    dice_median: float
    dice_ci95: tuple[float, float]
    baselines: dict[str, dict[str, float]]
    num_parameters: int
    warnings: list[str]
    run_id: str | None
    report: str | None
    summary: dict[str, object] = field(repr=False)

    def tables(self) -> list[Table]:
        """Return each patient's metrics, the summary, the means with intervals, and the baselines."""
        values: Any = self.to_json()
        chief = [
            *("study_sensitivity", "study_false_positive_rate", "study_auroc", "slice_auroc_pooled", "num_parameters"),
            *("expected_calibration_error", "expected_calibration_error_near_tumor", "run_id", "report"),
        ]
        means = [
            [
                *(name, values[f"{key}_mean"], interval(*values[f"{key}_ci95"]), values[f"{key}_median"]),
                values.get(f"{key}_num_empty_both", 0),
            ]
            for key, name in METRICS.items()
            if values.get(f"{key}_mean") is not None and key not in ("hd95", "nsd")  # they are there with their units
        ]
        return [
            *patients_tables(self.per_patient, {k: values[k] for k in chief if values.get(k) is not None}),
            Table(f"over {values['num_patients']} patients", ["", "mean", "95 %", "median", BOTH_EMPTY], means),
            Table("beside its baselines", list(BESIDE), beside_baselines(values)),
        ]

    def notes(self) -> list[str]:
        """Return the warnings."""
        return [f"warning: {warning}" for warning in self.warnings]


@dataclass(frozen=True)
class ComparisonResult(Result):
    """Two models on the same patients, paired.

    Attributes:
        difference: Mean Dice of A minus that of B.
        ci95: 95 % bootstrap interval of the difference.
        p_value: P-value of Wilcoxon's signed-rank test.
        num_patients: Number of patients with the metric under both models.
        num_undefined: Number of patients left out because it is undefined under one model.
        per_institution: The differences by institution.
        metric: The metric of the values above: `dice`.
        metrics: The difference in every metric.
        models: Names and means of A and B.
        per_patient: Dice of each patient under both.
        warnings: Reasons why the comparison may be unfair, a sentence each.
        run_id: The run of the comparison; None unless MLflow has both models.
        report: Path or URI of the report; None if none was written.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float
    num_patients: int
    num_undefined: int
    per_institution: dict[str, PairedDifference]
    metric: str
    metrics: dict[str, ComparisonJson] = field(repr=False)
    models: dict[str, ComparedModel] = field(repr=False)
    per_patient: list[PairedRow] = field(repr=False)
    warnings: list[str]
    run_id: str | None = None
    report: str | None = None

    def tables(self) -> list[Table]:
        """Return the differences by metric and by institution."""
        head = ["", "A minus B", "95 %", "p", "patients"]
        return [
            Table(title, head, [_difference(name, values) for name, values in differences.items()])
            for title, differences in (("metrics", self.metrics), ("institutions, by Dice", self.per_institution))
            if differences
        ]

    def notes(self) -> list[str]:
        """Return the warnings."""
        return [f"warning: {warning}" for warning in self.warnings]


def evaluate(
    model: Any,
    source: str | Path,
    *,
    unseen: bool = False,
    report: str | Path | None = None,
    say: Say = print_progress,
) -> EvaluationResult:
    """Measure a model on a labeled cohort, next to baselines; if MLflow has the model, the result is logged there.

    Args:
        model: A bundle's folder or zip, a run, a registered model, or the result of `train` or `register`; a list of
            them, or names separated by commas, is an ensemble.
        source: The cohort, raw, or prepared with the model's own preprocessing, or a prepared cohort's URI.
        unseen: Leave out the patients who trained the model or chose its settings.
        report: Folder for a report, one HTML file; None writes none.
        say: Called with the part of the cases that are measured, and now and then with a line.

    Raises:
        UserError: If the model or the cohort cannot be read, or no case has a mask.
    """
    if report is not None:
        check_beside(report, option("report"), source)
    with cluster.ending():
        answer = evaluate_model(
            model_name(model),
            source,
            unseen=unseen,
            report=None if report is None else Path(report),
            say=occasionally(say),
        )
    low, high = answer["dice_ci95"]
    named = {each.name for each in fields(EvaluationResult)}
    return EvaluationResult(
        per_patient=answer["per_patient"],
        dice_mean=answer["dice_mean"],
        dice_median=answer["dice_median"],
        dice_ci95=(low, high),
        baselines=answer["baselines"],
        num_parameters=answer["num_parameters"],
        warnings=answer["warnings"],
        run_id=answer.get("run_id"),
        report=answer.get("report"),
        summary={key: value for key, value in answer.items() if key not in named},
    )


def compare(
    model_a: Any,
    model_b: Any,
    source: str | Path | None = None,
    *,
    unseen: bool = False,
    report: str | Path | None = None,
    say: Say = print_progress,
) -> ComparisonResult:
    """Compare two models on the same patients, or two finished cross-validations on their own patients, paired.

    Args:
        model_a: As for `evaluate`, or a cross-validation.
        model_b: Another of the same kind and task.
        source: The labeled cohort; None for two cross-validations.
        unseen: Use only patients who neither trained a model nor chose its settings.
        report: Folder for a report, one HTML file; None writes none.
        say: As for `evaluate`.

    Raises:
        UserError: If a model or the cohort cannot be read, or the two have different tasks, patients or kinds.
    """
    if report is not None:
        check_beside(report, option("report"), source)
    with cluster.ending():
        values = compare_models(
            model_name(model_a),
            model_name(model_b),
            source,
            unseen=unseen,
            report=None if report is None else Path(report),
            say=occasionally(say),
        )
    return ComparisonResult(**values)


def _difference(name: str, values: PairedDifference) -> list[object]:
    return [name, values["difference"], interval(*values["ci95"]), values["p_value"], values["num_patients"]]
