"""The verbs that judge models and experiments."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import glioflow as gf
from glioflow.cli.app import EVALUATION, verb
from glioflow.cli.options import AsJson, Data, ExperimentFile, Model, Overrides
from glioflow.cli.output import answer, one_line_errors, print_line, print_result, progress, table

if TYPE_CHECKING:
    from glioflow.runs.analysis.audit import AuditAnswer

Unseen = Annotated[bool, typer.Option(help="Only patients that neither trained the model nor chose its settings.")]
Report = Annotated[Path | None, typer.Option(help="Folder for a report, one HTML file.")]


@verb(EVALUATION)
def evaluate(
    model: Model,
    source: Annotated[str, typer.Argument(help="Labeled cohort, raw or prepared, or the URI of a prepared one.")],
    unseen: Unseen = False,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle, run or registered model on a labeled cohort, beside baselines."""
    with one_line_errors(), progress("evaluate") as say:
        print_result(gf.evaluate(model, source, unseen=unseen, report=report, say=say), as_json)


@verb(EVALUATION)
def compare(
    model_a: Annotated[str, typer.Argument(help="A model, as `evaluate` takes it, or a cross-validation's run id.")],
    model_b: Annotated[str, typer.Argument(help="Another one of the same kind and task.")],
    source: Annotated[
        str | None, typer.Argument(help="Labeled cohort; leave it out to compare two cross-validations.")
    ] = None,
    unseen: Unseen = False,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same patients, or two finished cross-validations on their own, paired."""
    with one_line_errors():
        print_result(gf.compare(model_a, model_b, source, unseen=unseen, report=report), as_json)


@verb(EVALUATION)
def audit(
    experiment: ExperimentFile,
    data: Data = None,
    clinical: Annotated[Path | None, typer.Option(help="Clinical table (CSV); by default the cohort's.")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="A further table with the follow-up (CSV).")] = None,
    seen: Annotated[
        list[Path] | None,
        typer.Option(help="Another cohort that the model learned from; may be given several times."),
    ] = None,
    train: Annotated[bool, typer.Option(help="Measure the leakage gap by training under both splits.")] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks and measure their effect; exit code 2 if the experiment leaks."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.runs.analysis.audit import audit_experiment

    with one_line_errors(), progress("audit") as say, cluster.ending():
        settings = load_experiment(experiment, overrides or ())
        done = audit_experiment(
            settings, data, clinical=clinical, outcomes=outcomes, seen=seen or (), train=train, say=say
        )
    payload = done.answer()
    answer(payload, as_json, lambda: _show_audit(payload))
    if done.leaks:
        raise SystemExit(2)


def _show_audit(payload: "AuditAnswer") -> None:
    if payload["leaks"]:
        table("leaks", ["rule", "where"], [[leak["rule"], leak["value"]] for leak in payload["leaks"]])
    if scores := payload["scores"]:
        keys = ("dice", "dice_pooled", "dice_per_slice", "dice_tumor_slices")
        rows = [
            [who, f"by {kind}", *(scores[kind][who][key] for key in keys)]
            for who in scores["patient"]
            for kind in ("patient", "slice")
        ]
        table("the same experiment under two splits", ["", "split", *keys], rows)
    if example := payload["death01_example"]:
        table("the published death01 score, rebuilt", ["", ""], list(example.items()))
    for note in payload["notes"]:
        print_line(note)
    print_line(f"the report is audit.html of run {payload['run_id']}")
