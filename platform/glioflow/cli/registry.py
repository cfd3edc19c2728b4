"""The verbs about registered models."""

from pathlib import Path
from typing import Annotated

import typer

import glioflow as gf
from glioflow.cli.app import REGISTRY, verb
from glioflow.cli.options import AsJson, Name
from glioflow.cli.output import one_line_errors, print_result, progress


@verb(REGISTRY)
def register(
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID",
            help="Id of a finished training or trial, or of a cross-validation, for the ensemble of its folds.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the model; by default that of the experiment.")] = None,
    survival: Annotated[str | None, typer.Option(help="Run id of a survival stage to put into the bundle.")] = None,
    crossval: Annotated[
        str | None,
        typer.Option(
            help="Run id of a cross-validation whose interval of tumor volumes to put into the bundle; by default "
            "the one on whose masks the survival stage was fitted."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the bundle of a run the next version of a model."""
    with one_line_errors(), progress("register"):
        print_result(gf.register(run_id, name=name, survival=survival, crossval=crossval), as_json)


@verb(REGISTRY)
def promote(
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="Version to judge; by default the newest.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Cohort of the test patients; by default the recorded one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a version through the gate: it becomes the champion if it passes every rule."""
    with one_line_errors(), progress("promote") as say:
        print_result(gf.promote(name, version=version, data=data, say=say), as_json)


@verb(REGISTRY)
def rollback(name: Name, as_json: AsJson = False) -> None:
    """Make the previous champion the champion again."""
    with one_line_errors(), progress("rollback"):
        print_result(gf.rollback(name), as_json)


@verb(REGISTRY)
def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of a registered model; by default all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List versions, aliases and decisions."""
    with one_line_errors(), progress("models"):
        print_result(gf.list_models(name), as_json)


@verb(REGISTRY)
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME, NAME@alias, a run id, or a bundle's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder, or new file that ends with .zip.")],
    as_json: AsJson = False,
) -> None:
    """Write a bundle, with its card and checksums, to a folder or a zip that needs no MLflow."""
    with one_line_errors(), progress("export"):
        print_result(gf.export(model, out), as_json)


@verb(REGISTRY)
def gc(
    keep: Annotated[
        int, typer.Option(min=1, help="Number of trials whose bundles are kept in each finished search.")
    ] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no run or version needs: old checkpoints, working folders, worse trials, unused cohorts."""
    with one_line_errors(), progress("gc") as say:
        print_result(gf.collect_garbage(keep=keep, dry_run=dry_run, say=say), as_json)
