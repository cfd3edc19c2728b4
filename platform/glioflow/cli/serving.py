"""The verbs that answer about studies."""

from pathlib import Path
from typing import Annotated

import typer

import glioflow as gf
from glioflow.cli.app import SERVING, verb, verb_group
from glioflow.cli.options import AsJson, Channels, Host
from glioflow.cli.output import one_line_errors, print_result, progress
from glioflow.errors import RunFailed

feedback_app = verb_group("feedback", SERVING, "Accept or reject the corrected masks that readers sent.")

Entry = Annotated[str, typer.Argument(metavar="ID", help="Id of the corrected study, as `feedback list` shows it.")]


@verb(SERVING)
def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="NAME, NAME@alias, a run id, a bundle's folder or zip, or the http:// URL of an endpoint; several "
            "models, separated by commas, are an ensemble.",
        ),
    ],
    studies: Annotated[
        list[Path], typer.Argument(metavar="STUDY", help="Case folders, files, zips, or folders of many cases.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace answers that already exist.")] = False,
    channels: Channels = None,
    as_json: AsJson = False,
) -> None:
    """Segment studies with a bundle, a registered model or an endpoint; exit code 1 if some of several fail."""
    with one_line_errors(), progress("predict") as say:
        done = gf.predict_studies(model, studies, out, overwrite=overwrite, channels=channels or (), say=say)
        print_result(done, as_json)
        if done.failed:
            raise RunFailed(f"{len(done.failed)} of {len(done.studies) + len(done.failed)} studies have no answer")


@verb(SERVING)
def serve(
    name: Annotated[str | None, typer.Option(help="Registered model; by default the only one with a champion.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    host: Host = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(envvar="GLIOFLOW_SERVE_TOKEN", help="Bearer token that callers must send; by default none."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Host name that callers may use, besides loopback names and addresses; repeatable."
        ),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Number of predictors.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each predictor; a fraction shares a GPU.")] = 0,
    shadow: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Fraction of the studies that the challenger answers as well, without showing its answers.",
        ),
    ] = 0,
    canary: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Fraction of the studies that the challenger answers in place of the champion."
        ),
    ] = 0,
) -> None:
    """Serve the champion with Ray Serve until Ctrl-C, and switch to each new champion."""
    with one_line_errors(), progress("serve") as say:
        gf.serve(
            name,
            host=host,
            port=port,
            token=token,
            allow_hosts=allow_host or (),
            replicas=replicas,
            gpus=gpus,
            shadow=shadow,
            canary=canary,
            say=say,
        )


@verb(SERVING)
def page(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    host: Host = "127.0.0.1",
    endpoint: Annotated[str, typer.Option(help="URL of a running `glioflow serve`.")] = "http://127.0.0.1:8000",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Host name that people may use, besides loopback names and addresses; repeatable."
        ),
    ] = None,
) -> None:
    """Serve the web page, which sends studies to an endpoint, until Ctrl-C."""
    with one_line_errors():
        gf.serve_page(host=host, port=port, endpoint=endpoint, allow_hosts=allow_host or ())


@feedback_app.command("list")
def feedback_list(as_json: AsJson = False) -> None:
    """List the corrected masks in quarantine."""
    with one_line_errors():
        print_result(gf.list_feedback(), as_json)


@feedback_app.command("accept")
def feedback_accept(entry: Entry, as_json: AsJson = False) -> None:
    """Make a corrected study a labeled case for the next training."""
    with one_line_errors():
        print_result(gf.accept_feedback(entry), as_json)


@feedback_app.command("reject")
def feedback_reject(entry: Entry, as_json: AsJson = False) -> None:
    """Delete a corrected study from quarantine."""
    with one_line_errors():
        print_result(gf.reject_feedback(entry), as_json)
