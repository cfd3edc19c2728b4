"""The verbs that answer about studies, and the demo."""

from pathlib import Path
from typing import Annotated

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson
from glioflow.cli.output import answer, print_line, progress, table, told

feedback_app = typer.Typer(help="Corrected masks that callers sent back.", no_args_is_help=True)
app.add_typer(feedback_app, name="feedback")


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
    token: Annotated[
        str | None, typer.Option(envvar="GLIOFLOW_SERVE_TOKEN", help="Callers must show it as a bearer token.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Predictors.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="Of each predictor; a fraction shares a GPU.")] = 0,
    shadow: Annotated[float, typer.Option(min=0, max=1, help="Part of the studies the challenger answers too.")] = 0,
    canary: Annotated[float, typer.Option(min=0, max=1, help="Part of the studies the challenger answers.")] = 0,
) -> None:
    """Serve the champion with Ray Serve until Ctrl-C, and whoever becomes champion meanwhile."""
    from glioflow.serving.server import serve_forever
    from glioflow.serving.settings import ServeSettings, Trial, digest_of

    with told(), progress("serve") as say:
        settings = ServeSettings(
            replicas=replicas,
            max_replicas=replicas,
            gpus=gpus,
            token_sha256=digest_of(token),
            trial=Trial(shadow=shadow, canary=canary),
        )
        serve_forever(name, host=host, port=port, say=say, settings=settings)


@feedback_app.command("list")
def feedback_list(as_json: AsJson = False) -> None:
    """Show what waits in quarantine."""
    from glioflow.serving.http.feedback import Feedback

    with told():
        entries = Feedback().entries()
        head = ["id", "patient", "kind", "slices", "labeled_px"]
        answer({"feedback": entries}, as_json, lambda: table("", head, [[e[key] for key in head] for e in entries]))


@feedback_app.command("accept")
def feedback_accept(entry: str, as_json: AsJson = False) -> None:
    """Make a corrected study a labeled case for the next training."""
    from glioflow.serving.http.feedback import Feedback

    with told():
        answer({"path": str(Feedback().accept(entry))}, as_json)


@feedback_app.command("reject")
def feedback_reject(entry: str, as_json: AsJson = False) -> None:
    """Delete a corrected study from quarantine."""
    from glioflow.serving.http.feedback import Feedback

    with told():
        Feedback().reject(entry)
        answer({"rejected": entry}, as_json)


@app.command()
def page(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    host: str = "127.0.0.1",
    endpoint: Annotated[str, typer.Option(help="Where `glioflow serve` answers.")] = "http://127.0.0.1:8000",
) -> None:
    """Show the web page for people, against an endpoint, until Ctrl-C."""
    from glioflow.serving.page.launcher import page_forever

    with told():
        page_forever(host=host, port=port, endpoint=endpoint, say=print_line)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="LGG cohort; default is a synthetic one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the main job from end to end on a small cohort."""
    from glioflow.cli.demo import run_demo

    with told(), progress("demo") as say:
        steps, said = run_demo(data, say)
        answer({"steps": steps, "answer": said}, as_json, lambda: None)
