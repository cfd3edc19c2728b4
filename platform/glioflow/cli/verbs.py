"""The verbs of the command line; those about cohorts are in `data_verbs`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from glioflow.cli.data_verbs import data_app
from glioflow.cli.options import AsJson, Data, ExperimentFile, Overrides
from glioflow.cli.output import answer, print_line, progress, table, told
from glioflow.errors import UserError

app = typer.Typer(
    name="glioflow",
    help="Honest, patient-level brain tumor segmentation on Ray and MLflow. Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
survival_app = typer.Typer(help="The survival stage.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(survival_app, name="survival")


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
    from glioflow.runs.train import train as run

    with told(), progress("train") as say, cluster.ending():
        done = run(load_experiment(experiment, overrides or ()), data, resume=resume, say=say)
        payload = {"run_id": done.run_id, "model_uri": done.model_uri, "metrics": done.metrics}
        answer(payload, as_json, lambda: _run_table(done.run_id, done.metrics))


@app.command()
def crossval(
    experiment: ExperimentFile,
    data: Data = None,
    folds: Annotated[int | None, typer.Option(min=3)] = None,
    hold_out_test: Annotated[bool, typer.Option(help="Leave the split's test patients out.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Cross-validate by patient, folds in parallel; every patient is predicted by a model that never saw it."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.runs.crossval import crossval as run

    with told(), progress("crossval") as say, cluster.ending():
        settings = load_experiment(experiment, overrides or ())
        done = run(settings, data, folds=folds, hold_out_test=hold_out_test, say=say)
        rows = [{k: v for k, v in row.items() if k != "features"} for row in done.per_patient]
        summary = {key: done.summary.get(key) for key in ("dice_mean", "dice_median", "dice_ci95")}
        answer(
            {"run_id": done.run_id, "folds": done.folds, **summary, "per_patient": rows},
            as_json,
            lambda: _patients(rows, summary),
        )


@app.command()
def search(
    experiment: ExperimentFile,
    data: Data = None,
    trials: Annotated[int | None, typer.Option(min=1)] = None,
    resume: Annotated[str | None, typer.Option(help="Name of an interrupted search to go on with.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search the experiment's space with Ray Tune and Optuna."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.runs.search import search as run

    with told(), progress("search") as say, cluster.ending():
        settings = load_experiment(experiment, overrides or ())
        done = run(settings, data, trials=trials, resume=resume, say=say)
        payload = {"name": done.name, "run_id": done.run_id, "num_trials": done.num_trials, "best": done.best}

        def show() -> None:
            table(f"best of {done.num_trials} trials", ["key", "value"], list(done.best["params"].items()))
            _run_table(done.best["run_id"], done.best["metrics"])
            print_line("the best configuration is the parent run's artifact best.yaml, ready for `glioflow train`")

        answer(payload, as_json, show)


@app.command()
def evaluate(model: str, source: Path, as_json: AsJson = False) -> None:
    """Measure a bundle, run or registered model on a labeled cohort, beside baselines."""
    from glioflow.runs.evaluate import evaluate as run

    with told():
        done = run(model, source)
        answer(
            done, as_json, lambda: _patients(done["per_patient"], {k: v for k, v in done.items() if k != "per_patient"})
        )


@app.command()
def register(
    run_id: str,
    name: Annotated[str | None, typer.Option(help="Of the model; default is the experiment's.")] = None,
    survival: Annotated[str | None, typer.Option(help="Run id of a survival stage to put inside.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the bundle of a run the next version of a model."""
    from glioflow.runs.register import register as run

    with told():
        made = run(run_id, name=name, survival=survival)
        answer({"name": made.name, "version": made.version}, as_json)


@app.command()
def promote(
    name: str,
    version: Annotated[int | None, typer.Option(min=1)] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Put a version before the gate; move the alias champion or say why not."""
    from glioflow.config.places import prepared_home
    from glioflow.promotion import promote as run

    with told():
        verdict = run(name, version=version, data=data, home=prepared_home())

        def show() -> None:
            rows = [
                [reason.rule, reason.value, reason.limit, "yes" if reason.passed else "NO"]
                for reason in verdict.reasons
            ]
            table(f"{name} version {verdict.version}: {verdict.decision}", ["rule", "value", "limit", "holds"], rows)

        answer(verdict.model_dump(mode="json"), as_json, show)


@app.command()
def rollback(name: str, as_json: AsJson = False) -> None:
    """Go back to the champion before this one."""
    from glioflow.promotion import rollback as run

    with told():
        verdict = run(name)
        answer({"name": name, "version": verdict.version, "previous": verdict.previous}, as_json)


@app.command()
def models(name: Annotated[str | None, typer.Argument()] = None, as_json: AsJson = False) -> None:
    """List versions, aliases and decisions."""
    from glioflow.promotion import decisions
    from glioflow.tracking import Tracking

    with told():
        tracking = Tracking()
        if name is not None and name not in tracking.names():
            raise UserError(f"no registered model {name!r}", choices=tracking.names())
        rows: list[dict[str, Any]] = []
        for each in [name] if name else tracking.names():
            verdicts = decisions(tracking, each)
            for found in tracking.versions(each):
                said = [f"{v.decision} {v.when}" for v in verdicts if v.version == found.version]
                rows.append({"name": each, "version": found.version, "aliases": list(found.aliases), "decisions": said})
        head = ["name", "version", "aliases", "decisions"]
        answer({"models": rows}, as_json, lambda: table("", head, [[row[key] for key in head] for row in rows]))


@app.command()
def features(
    mask: Path,
    spacing: Annotated[str | None, typer.Option(help="z,y,x in millimeters.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the shape features of a mask: a file, or the folder of one LGG case."""
    from glioflow.data.masks import read_mask
    from glioflow.features import measure_mask

    with told():
        volume, known = read_mask(mask)
        measured = measure_mask(volume > 0, spacing_mm=_spacing(spacing) or known)
        rows = [[key, value] for key, value in measured.volume.items()]
        answer({"features": measured.model_dump(mode="json")}, as_json, lambda: table("", ["feature", "value"], rows))


@survival_app.command("fit")
def survival_fit(
    cohort: Annotated[Path | None, typer.Argument(help="Needed for --masks manual.")] = None,
    clinical: Annotated[Path, typer.Option(help="Clinical table (CSV).")] = ...,  # type: ignore[assignment]
    outcomes: Annotated[Path | None, typer.Option(help="Follow-up besides it (CSV).")] = None,
    masks: Annotated[str, typer.Option(help="A crossval run's id (its out-of-fold masks), manual, or none.")] = "none",
    experiment: Annotated[Path | None, typer.Option(help="Experiment whose survival section is used.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Fit and honestly evaluate the survival stage."""
    from glioflow.config import Experiment, load_experiment
    from glioflow.config.experiment import override_texts
    from glioflow.runs.survival import fit_survival

    with told():
        base = (
            load_experiment(experiment, overrides or ())
            if experiment
            else override_texts(Experiment(), overrides or ())
        )
        done = fit_survival(base.survival, clinical, outcomes=outcomes, masks=masks, cohort=cohort)
        said = done.evaluation.model_dump(mode="json")
        keys = ("task", "metrics", "baselines", "beats_baselines")
        answer({"run_id": done.run_id, **{key: said[key] for key in keys}}, as_json)


@app.command()
def predict(
    model: str,
    studies: list[Path],
    out: Annotated[Path, typer.Option(help="Folder for the answers.")] = ...,  # type: ignore[assignment]
    as_json: AsJson = False,
) -> None:
    """Segment studies with a bundle, a registered model or an http:// endpoint."""
    from glioflow.serving.local import predict_studies

    with told(), progress("predict") as say:
        answer({"studies": predict_studies(model, studies, out, say=say)}, as_json)


@app.command()
def serve(
    name: Annotated[str | None, typer.Option(help="Registered model; default is the only one.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    host: str = "127.0.0.1",
) -> None:
    """Serve the champion with Ray Serve until Ctrl-C."""
    from glioflow.serving.server import serve_forever

    with told(), progress("serve") as say:
        serve_forever(name, host=host, port=port, say=say)


@app.command()
def demo(data: Data = None, as_json: AsJson = False) -> None:
    """Run the main job from end to end on a small cohort."""
    from glioflow.cli.demo import run_demo

    with told(), progress("demo") as say:
        steps, said = run_demo(data, say)
        answer({"steps": steps, "answer": said}, as_json, lambda: None)


def _run_table(run_id: str, metrics: dict[str, float | None]) -> None:
    keys = ("dice_mean", "dice_ci95_low", "dice_ci95_high", "dice_median", "hd95_median", "iou_mean")
    parts = [part for part in ("val", "test") if f"{part}/dice_mean" in metrics]
    shown = [key for key in keys if any(f"{part}/{key}" in metrics for part in parts)]
    table(f"run {run_id}", ["", *parts], [[key, *(metrics.get(f"{part}/{key}") for part in parts)] for key in shown])


def _patients(rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    head = ["id", "dice", "iou", "hd95"]
    table("", head, [[row.get(key) for key in head] for row in rows])
    table("", ["", ""], [[key, value] for key, value in summary.items()])


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError("--spacing is three numbers z,y,x in millimeters", text) from None
    if min(z, y, x) <= 0:
        raise UserError("--spacing is three positive numbers", text)
    return z, y, x
