"""The verbs that train and search."""

from pathlib import Path
from typing import Annotated

import typer

import glioflow as gf
from glioflow.cli.app import START, TRAINING, verb
from glioflow.cli.options import AsJson, Data, ExperimentFile, Name, Overrides
from glioflow.cli.output import one_line_errors, print_result, print_text, progress


@verb(TRAINING)
def plan(
    cohort: Annotated[
        str, typer.Argument(metavar="COHORT", help="Folder of a cohort with masks, as it was downloaded.")
    ],
    out: Annotated[Path | None, typer.Option(help="New experiment file; by default it is printed.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the experiment; by default that of the folder.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes that one training may take.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Write an experiment file for a cohort and this machine, with the reason for each choice."""
    with one_line_errors(), progress("plan") as say:
        made = gf.plan(cohort, out, name=name, minutes=minutes, say=say)
        if as_json or out is not None:
            print_result(made, as_json)
        else:
            print_text(made.text)


@verb(START)
def auto(
    cohort: Annotated[
        str, typer.Argument(metavar="COHORT", help="Folder of a cohort with masks, as it was downloaded.")
    ],
    hours: Annotated[float | None, typer.Option(help="Budget in hours; required without --resume.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; by default that of the folder.")] = None,
    resume: Annotated[str | None, typer.Option(help="Name of an interrupted auto to continue.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find, train, evaluate and register the best model for a cohort within a budget of hours, with a report."""
    with one_line_errors(), progress("auto") as say:
        print_result(gf.auto(cohort, hours=hours, name=name, resume=resume, say=say), as_json)


@verb(TRAINING)
def train(
    experiment: ExperimentFile,
    data: Data = None,
    resume: Annotated[str | None, typer.Option(help="Id of an interrupted run to continue.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train one experiment, measure it on its test patients, and log it as one MLflow run."""
    with one_line_errors(), progress("train") as say:
        print_result(gf.train(experiment, data, resume=resume, overrides=overrides or (), say=say), as_json)


@verb(TRAINING)
def crossval(
    experiment: ExperimentFile,
    data: Data = None,
    folds: Annotated[
        int | None, typer.Option(min=3, help="Number of folds; by default the experiment's split.folds.")
    ] = None,
    hold_out_test: Annotated[bool, typer.Option(help="Leave the split's test patients out of all folds.")] = False,
    resume: Annotated[
        str | None, typer.Option(help="Run id of an interrupted cross-validation; its finished folds are kept.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Cross-validate by patient, folds in parallel; every patient is predicted by a model that never saw it."""
    with one_line_errors(), progress("crossval") as say:
        done = gf.crossval(
            experiment,
            data,
            folds=folds,
            hold_out_test=hold_out_test,
            resume=resume,
            overrides=overrides or (),
            say=say,
        )
        print_result(done, as_json)


@verb(TRAINING)
def search(
    experiment: ExperimentFile,
    data: Data = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials; by default the experiment's search.trials.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Name of an interrupted search to continue.")] = None,
    budget: Annotated[float | None, typer.Option(help="Hours from the start after which no new trial begins.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search the experiment's space of settings with Ray Tune and Optuna."""
    from glioflow.cli.search_table import search_table

    with one_line_errors(), search_table() as (say, show_trials):
        result = gf.search(
            experiment,
            data,
            trials=trials,
            resume=resume,
            budget=budget,
            overrides=overrides or (),
            say=say,
            show=show_trials,
        )
        print_result(result, as_json)


@verb(TRAINING)
def retrain(
    name: Name,
    data: Annotated[
        str | None, typer.Option("--data", help="Folder of the champion's cohort; by default the recorded one.")
    ] = None,
    warm: Annotated[bool, typer.Option("--warm", help="Start from the champion's weights, not from new ones.")] = False,
    resume: Annotated[str | None, typer.Option(help="Id of an interrupted run to continue.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the champion again on its cohort with the accepted corrections, and put the result through the gate."""
    with one_line_errors(), progress("retrain") as say:
        print_result(gf.retrain(name, data, overrides=overrides or (), warm=warm, resume=resume, say=say), as_json)


@verb(TRAINING)
def searches(as_json: AsJson = False) -> None:
    """List the searches of this home with their state and their best trial."""
    with one_line_errors(), progress("searches"):
        print_result(gf.list_searches(), as_json)


@verb(TRAINING)
def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of a finished training, trial or fold.")],
    data: Annotated[str | None, typer.Option(help="Cohort of the run; by default the recorded one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a logged training, trial or fold again from what it logged, and compare every number."""
    with one_line_errors(), progress("reproduce") as say:
        print_result(gf.reproduce(run_id, data, say=say), as_json)
