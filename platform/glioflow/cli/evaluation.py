"""The verbs that judge models and experiments."""

from pathlib import Path
from typing import Annotated

import typer

import glioflow as gf
from glioflow.cli.app import EVALUATION, verb
from glioflow.cli.options import AsJson, Data, ExperimentFile, Model, Overrides
from glioflow.cli.output import one_line_errors, print_result, progress

Unseen = Annotated[bool, typer.Option(help="Use only patients who neither trained the model nor chose its settings.")]
Report = Annotated[Path | None, typer.Option(help="Folder for an HTML report, index.html.")]


@verb(EVALUATION)
def evaluate(
    model: Model,
    source: Annotated[
        str, typer.Argument(metavar="COHORT", help="Labeled cohort, raw or prepared, or the URI of a prepared one.")
    ],
    unseen: Unseen = False,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle, run or registered model on a labeled cohort, next to baselines."""
    with one_line_errors(), progress("evaluate") as say:
        print_result(gf.evaluate(model, source, unseen=unseen, report=report, say=say), as_json)


@verb(EVALUATION)
def compare(
    model_a: Annotated[
        str, typer.Argument(metavar="MODEL_A", help="A model, as `evaluate` takes it, or a cross-validation's run id.")
    ],
    model_b: Annotated[str, typer.Argument(metavar="MODEL_B", help="Another of the same kind and task.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="COHORT", help="Labeled cohort; leave it out to compare two cross-validations."),
    ] = None,
    unseen: Unseen = False,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same patients, or two finished cross-validations on their own patients, paired."""
    with one_line_errors(), progress("compare") as say:
        print_result(gf.compare(model_a, model_b, source, unseen=unseen, report=report, say=say), as_json)


@verb(EVALUATION)
def audit(
    experiment: ExperimentFile,
    data: Data = None,
    clinical: Annotated[Path | None, typer.Option(help="Clinical table (CSV); by default the cohort's.")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Second table, with the follow-up (CSV).")] = None,
    seen: Annotated[
        list[Path] | None,
        typer.Option(metavar="COHORT", help="Another cohort that the model learned from; repeatable."),
    ] = None,
    train: Annotated[bool, typer.Option(help="Measure the leakage gap by training under both splits.")] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks and measure their effect; exit code 2 if the experiment leaks."""
    with one_line_errors(), progress("audit") as say:
        done = gf.audit_experiment(
            experiment,
            data,
            clinical=clinical,
            outcomes=outcomes,
            seen=seen or (),
            train=train,
            overrides=overrides or (),
            say=say,
        )
        print_result(done, as_json)
        if done.leaks:
            raise SystemExit(2)
