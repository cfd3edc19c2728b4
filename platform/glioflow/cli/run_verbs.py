"""The verbs that train and search."""

from typing import Annotated

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson, Data, ExperimentFile, Overrides
from glioflow.cli.output import answer, metrics_table, patients_table, print_line, progress, table, told


@app.command()
def train(
    experiment: ExperimentFile,
    data: Data = None,
    resume: Annotated[str | None, typer.Option(help="Id of an interrupted run to go on with.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train one experiment, measure it on its test patients, log it as one MLflow run."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.runs.train.run import train as run

    with told(), progress("train") as say, cluster.ending():
        done = run(load_experiment(experiment, overrides or ()), data, resume=resume, say=say)
        payload = {"run_id": done.run_id, "model_uri": done.model_uri, "metrics": done.metrics}
        answer(payload, as_json, lambda: metrics_table(done.run_id, done.metrics))


@app.command()
def crossval(
    experiment: ExperimentFile,
    data: Data = None,
    folds: Annotated[int | None, typer.Option(min=3)] = None,
    hold_out_test: Annotated[bool, typer.Option(help="Leave the split's test patients out.")] = False,
    resume: Annotated[str | None, typer.Option(help="Id of an interrupted one; finished folds are kept.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Cross-validate by patient, folds in parallel; every patient is predicted by a model that never saw it."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.runs.crossval.run import crossval as run

    with told(), progress("crossval") as say, cluster.ending():
        settings = load_experiment(experiment, overrides or ())
        done = run(settings, data, folds=folds, hold_out_test=hold_out_test, resume=resume, say=say)
        chief = {key: done.summary.get(key) for key in ("dice_mean", "dice_median", "dice_ci95", "baselines")}
        answer(
            {"run_id": done.run_id, "folds": done.folds, **done.summary, "per_patient": done.per_patient},
            as_json,
            lambda: patients_table(done.per_patient, chief),
        )


@app.command()
def search(
    experiment: ExperimentFile,
    data: Data = None,
    trials: Annotated[int | None, typer.Option(min=1)] = None,
    resume: Annotated[str | None, typer.Option(help="Name of an interrupted search to go on with.")] = None,
    budget: Annotated[float | None, typer.Option(help="Hours after which no new trial begins.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search the experiment's space with Ray Tune and Optuna."""
    from glioflow import cluster
    from glioflow.cli.search_table import search_table
    from glioflow.config import load_experiment
    from glioflow.runs.search.run import search as run

    with told(), search_table() as (say, show_trials), cluster.ending():
        hours = [] if budget is None else [f"search.budget_hours={budget}"]
        settings = load_experiment(experiment, [*(overrides or ()), *hours])
        done = run(settings, data, trials=trials, resume=resume, say=say, show=show_trials)
        payload = {"name": done.name, "run_id": done.run_id, "num_trials": done.num_trials, "best": done.best}

        def show() -> None:
            table(f"best of {done.num_trials} trials", ["key", "value"], list(done.best["params"].items()))
            metrics_table(done.best["run_id"], done.best["metrics"])
            if done.front:
                reached = ["trial", *settings.search.objectives, "latency_ms"]
                table("Pareto front", reached, [[entry.get(key) for key in reached] for entry in done.front])
            table("cost in hours", ["", ""], [[key.removeprefix("cost/"), value] for key, value in done.cost.items()])
            print_line("the best configuration is the parent run's artifact best.yaml, ready for `glioflow train`")

        answer(payload | {"front": done.front, "cost": done.cost}, as_json, show)
