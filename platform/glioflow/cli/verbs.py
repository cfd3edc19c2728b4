"""Every verb of the command line."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from glioflow.cli.output import answer, console, print_line, progress, table, told
from glioflow.errors import UserError, unknown_name

app = typer.Typer(
    name="glioflow",
    help="Honest, patient-level brain tumor segmentation on Ray and MLflow. Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Cohorts: make, check, prepare.", no_args_is_help=True)
survival_app = typer.Typer(help="The survival stage.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(survival_app, name="survival")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Data = Annotated[Path | None, typer.Option("--data", help="Cohort, raw or prepared; default is the experiment's.")]
Overrides = Annotated[list[str] | None, typer.Option("-o", help="section.key=value; may be repeated.")]
ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file (YAML).")]


@data_app.command("synthesize")
def data_synthesize(
    kind: Annotated[str, typer.Argument(help="lgg or brats")],
    out: Path,
    patients: Annotated[int, typer.Option(min=1)] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[
        int | None, typer.Option(min=32, help="Side of a slice in pixels; default is the real one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic cohort that looks like the real one on disk."""
    from glioflow import cluster
    from glioflow.data.synthetic import synthesize_brats, synthesize_lgg

    with told(), progress("synthesize") as say, cluster.ending():
        if kind not in ("lgg", "brats"):
            raise unknown_name("cohort to synthesize", kind, ["lgg", "brats"])
        if kind == "lgg":
            made = synthesize_lgg(out, patients=patients, seed=seed, size=size or 256, map_cases=_moving(say))
        else:
            made = synthesize_brats(out, patients=patients, seed=seed, size=size or 240, map_cases=_moving(say))
        answer(dict(made), as_json)


@data_app.command("download")
def data_download(
    name: Annotated[str, typer.Argument(help="lgg or brats2020")], out: Path, as_json: AsJson = False
) -> None:
    """Fetch a public data set through kagglehub; says what to do where it cannot."""
    from glioflow.data.download import download

    with told():
        answer({"path": str(download(name, out))}, as_json)


@data_app.command("check")
def data_check(source: Path, as_json: AsJson = False) -> None:
    """Read a cohort or a study and report every problem; exit code 2 where one is an error."""
    from glioflow import cluster
    from glioflow.data.checks import check

    with told(), progress("check") as say, cluster.ending():
        report = check(source, map_cases=_moving(say))

        def show() -> None:
            head = ["severity", "file", "rule", "value"]
            table(
                f"{report.format}: {report.patients} patients, {report.slices} slices",
                head,
                [[p.severity, p.file, p.rule, p.value] for p in report.problems],
            )

        answer(report.to_dict(), as_json, show)
        if not report.ok:
            raise SystemExit(2)


@data_app.command("prepare")
def data_prepare(
    source: Path,
    out: Annotated[str, typer.Argument(help="Folder, or a URI such as s3://bucket/cohort.")],
    experiment: Annotated[Path | None, typer.Option(help="Experiment whose preprocessing is used.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Preprocess a cohort once, in parallel on Ray; skips what is already there."""
    import time

    from glioflow import cluster
    from glioflow.config import Experiment, load_experiment
    from glioflow.config.places import prepared_home
    from glioflow.data.cohort import open_cohort
    from glioflow.data.prepared import find_or_prepare, prepare
    from glioflow.data.remote import is_uri, push

    with told(), progress("prepare") as say:
        steps = (load_experiment(experiment, overrides or ()) if experiment else Experiment()).preprocess
        began = time.monotonic()
        with cluster.ending():
            if is_uri(out):
                made = find_or_prepare(source, steps, home=prepared_home(), map_cases=_moving(say))
                push(made, out)
            else:
                made = prepare(open_cohort(source), Path(out), steps, map_cases=_moving(say))
        payload = {
            "path": out,
            "fingerprint": made.manifest.fingerprint,
            "patients": len({record.patient for record in made.records}),
            "slices": made.num_slices,
            "seconds": round(time.monotonic() - began, 3),
        }
        answer(payload, as_json)


@data_app.command("describe")
def data_describe(
    source: Path,
    out: Annotated[Path, typer.Option(help="Folder for index.html and its figures.")] = ...,  # type: ignore[assignment]
    experiment: Annotated[Path | None, typer.Option(help="Experiment whose preprocessing is shown.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write the exploratory report on a cohort: balance, tumor size, channels, gaps, examples through preprocessing."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.data.describe import describe

    with told(), progress("describe") as say, cluster.ending():
        steps = load_experiment(experiment, overrides or ()).preprocess if experiment else None
        done = describe(source, out, steps=steps, map_cases=_moving(say))
        counts = {"patients": done.patients, "slices": done.slices, "positive_slices": done.positive_slices}
        answer({"report": str(done.report), **counts}, as_json)


def _moving(say: Callable[..., None]) -> Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]:
    """Return a map over Ray's tasks that moves the bar with every result; a few items are done right here."""
    from glioflow import cluster

    def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        waiting = list(items)
        # Starting a local cluster takes longer than a dozen cases do.
        over = cluster.map_parallel if len(waiting) > 12 else map
        for done, result in enumerate(over(function, waiting), start=1):
            if console().is_terminal:
                say("", done / len(waiting))
            yield result

    return run


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
