"""The verbs about cohorts: make, download, check, describe, prepare."""

from pathlib import Path
from typing import Annotated

import typer

import glioflow as gf
from glioflow.cli.app import DATA, verb_group
from glioflow.cli.options import AsJson, Channels, Overrides, SkipIncomplete, Source, StepsFile
from glioflow.cli.output import one_line_errors, print_result, progress

data_app = verb_group("data", DATA, "Make, download, check, describe and prepare cohorts.")


@data_app.command("synthesize")
def data_synthesize(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="lgg or brats, or a public data set such as upenn-gbm.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the cohort.")],
    patients: Annotated[
        int | None, typer.Option(min=1, help="Number of patients; by default 12, or the two or three of a tiny copy.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the random generator; the same seed gives the same files.")
    ] = 0,
    size: Annotated[
        int | None, typer.Option(min=32, help="Side of a slice in pixels; by default that of the real cohort.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic cohort that looks like the real one on disk."""
    with one_line_errors(), progress("synthesize") as say:
        print_result(gf.synthesize(kind, out, patients=patients, seed=seed, size=size, say=say), as_json)


@data_app.command("download")
def data_download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="lgg, brats2020, decathlon or another public set.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the cohort.")],
    as_json: AsJson = False,
) -> None:
    """Download a public data set, or say how to get it by hand."""
    with one_line_errors(), progress("download"):
        print_result(gf.download(name, out), as_json)


@data_app.command("check")
def data_check(
    source: Source, channels: Channels = None, skip_incomplete: SkipIncomplete = False, as_json: AsJson = False
) -> None:
    """Read a cohort or a study and report every problem; exit code 2 if one is an error."""
    with one_line_errors(), progress("check") as say:
        checked = gf.check(source, channels=channels or (), skip_incomplete=skip_incomplete, say=say)
        print_result(checked, as_json)
        if not checked.ok:
            raise SystemExit(2)


@data_app.command("prepare")
def data_prepare(
    source: Source,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder, or a URI such as s3://bucket/cohort.")],
    experiment: StepsFile = None,
    overrides: Overrides = None,
    channels: Channels = None,
    skip_incomplete: SkipIncomplete = False,
    as_json: AsJson = False,
) -> None:
    """Preprocess a cohort once, in parallel on Ray; skip cases that are already prepared."""
    with one_line_errors(), progress("prepare") as say:
        made = gf.prepare(
            source,
            out,
            experiment=experiment,
            overrides=overrides or (),
            channels=channels or (),
            skip_incomplete=skip_incomplete,
            say=say,
        )
        print_result(made, as_json)


@data_app.command("describe")
def data_describe(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for index.html and its figures.")],
    experiment: Annotated[
        Path | None, typer.Option(help="Experiment file whose preprocessing is shown; by default a tour of all steps.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write a report on a cohort: class balance, tumor sizes, channels, missing values, preprocessing examples."""
    with one_line_errors(), progress("describe") as say:
        print_result(gf.describe(source, out, experiment=experiment, overrides=overrides or (), say=say), as_json)
