"""The verbs about cohorts: make, fetch, check, describe, prepare."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from glioflow.cli.options import AsJson, Overrides
from glioflow.cli.output import answer, console, progress, table, told
from glioflow.errors import UserError, unknown_name

data_app = typer.Typer(help="Cohorts: make, fetch, check, describe, prepare.", no_args_is_help=True)


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
    from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg

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
def data_check(source: str, as_json: AsJson = False) -> None:
    """Read a cohort or a study and report every problem; exit code 2 where one is an error."""
    from glioflow import cluster
    from glioflow.data.checks.cohort_checks import check

    with told(), progress("check") as say, cluster.ending():
        report = check(_found(source), map_cases=_moving(say))

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
    source: str,
    out: Annotated[str, typer.Argument(help="Folder, or a URI such as s3://bucket/cohort.")],
    experiment: Annotated[Path | None, typer.Option(help="Experiment whose preprocessing is used.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Preprocess a cohort once, in parallel on Ray; skips what is already there."""
    import time

    from glioflow import cluster
    from glioflow.cluster.storage import is_uri, prepared_home
    from glioflow.config import Experiment, load_experiment
    from glioflow.data.formats.detect import open_cohort
    from glioflow.data.prepared.cohort import find_or_prepare, prepare
    from glioflow.data.prepared.remote import push

    with told(), progress("prepare") as say:
        steps = (load_experiment(experiment, overrides or ()) if experiment else Experiment()).preprocess
        began = time.monotonic()
        with cluster.ending():
            if is_uri(out):
                made = find_or_prepare(_found(source), steps, home=prepared_home(), map_cases=_moving(say))
                push(made, out)
            else:
                made = prepare(open_cohort(_found(source)), Path(out), steps, map_cases=_moving(say))
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
    source: str,
    out: Annotated[Path, typer.Option(help="Folder for index.html and its figures.")] = ...,  # type: ignore[assignment]
    experiment: Annotated[Path | None, typer.Option(help="Experiment whose preprocessing is shown.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write the exploratory report on a cohort: balance, tumor size, channels, gaps, examples through preprocessing."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.reports.cohort_page import describe

    with told(), progress("describe") as say, cluster.ending():
        steps = load_experiment(experiment, overrides or ()).preprocess if experiment else None
        done = describe(_found(source), out, steps=steps, map_cases=_moving(say))
        counts = {"patients": done.patients, "slices": done.slices, "positive_slices": done.positive_slices}
        answer({"report": str(done.report), **counts}, as_json)


def _found(source: str) -> Path:
    """Return where files lie as they were found, which is never behind a URI."""
    from glioflow.cluster.storage import is_uri

    if is_uri(source):
        raise UserError(
            "only a prepared cohort lies at a URI; this verb reads original files: give their folder", source
        )
    return Path(source)


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
