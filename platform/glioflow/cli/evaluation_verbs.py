"""The verbs that judge models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson
from glioflow.cli.output import answer, patients_table, print_line, table, told

Source = Annotated[str, typer.Argument(help="Labeled cohort, raw or prepared, or a prepared one's URI.")]
Unseen = Annotated[bool, typer.Option(help="Only patients that neither trained the model nor chose its settings.")]
Report = Annotated[Path | None, typer.Option(help="Folder for a report, one HTML file.")]


@app.command()
def evaluate(
    model: str, source: Source, unseen: Unseen = False, report: Report = None, as_json: AsJson = False
) -> None:
    """Measure a bundle, run or registered model on a labeled cohort, beside baselines."""
    from glioflow.runs.analysis.evaluate import evaluate as run

    with told():
        done = run(model, source, unseen=unseen, report=report)
        answer(done, as_json, lambda: _show_evaluation(done))


@app.command()
def compare(
    model_a: str,
    model_b: str,
    source: Annotated[str | None, typer.Argument(help="Labeled cohort; none for two cross-validations.")] = None,
    unseen: Unseen = False,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same patients, or two finished cross-validations on their own, paired."""
    from glioflow.runs.analysis.compare import compare as run

    with told():
        done = run(model_a, model_b, source, unseen=unseen, report=report)
        answer(done, as_json, lambda: _show_comparison(done))


def _show_evaluation(done: dict[str, Any]) -> None:
    from glioflow.reports.evaluation_page import METRICS, beside_baselines

    chief = [
        *("study_sensitivity", "study_false_positive_rate", "study_auroc", "slice_auroc_pooled", "num_parameters"),
        *("expected_calibration_error", "expected_calibration_error_near_tumor", "run_id", "report"),
    ]
    patients_table(done["per_patient"], {key: done[key] for key in chief if done.get(key) is not None})
    rows = [
        [name, done[f"{key}_mean"], _interval(done[f"{key}_ci95"]), done[f"{key}_median"]]
        for key, name in METRICS.items()
        if done.get(f"{key}_mean") is not None and key not in ("hd95", "nsd")  # they are there with their units
    ]
    table(f"over {done['num_patients']} patients", ["", "mean", "95 %", "median"], rows)
    table("beside its baselines", ["", "mean Dice", "median Dice"], beside_baselines(done))
    for warning in done["warnings"]:
        print_line(f"warning: {warning}")


def _show_comparison(done: dict[str, Any]) -> None:
    head = ["", "A less B", "95 %", "p", "patients"]
    for title, said in (("metrics", done["metrics"]), ("institutions, by Dice", done["per_institution"])):
        rows = [[k, v["difference"], _interval(v["ci95"]), v["p_value"], v["num_patients"]] for k, v in said.items()]
        table(title, head, rows)
    for warning in done["warnings"]:
        print_line(f"warning: {warning}")


def _interval(ends: Sequence[float]) -> str:
    return "{:.3g} to {:.3g}".format(*ends)
