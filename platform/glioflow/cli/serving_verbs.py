"""The verbs that answer about studies, and the demo."""

from pathlib import Path
from typing import Annotated

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson
from glioflow.cli.output import answer, print_line, progress, told


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
def page(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    host: str = "127.0.0.1",
    endpoint: Annotated[str, typer.Option(help="Where `glioflow serve` answers.")] = "http://127.0.0.1:8000",
) -> None:
    """Show the web page for people, against an endpoint, until Ctrl-C."""
    from glioflow.serving.page_server import page_forever

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
