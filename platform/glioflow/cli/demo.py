"""The whole chain, on a synthetic cohort or on a real one: what `make demo` runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from glioflow.cli.app import START, verb
from glioflow.cli.options import AsJson
from glioflow.cli.output import answer, one_line_errors, progress


@verb(START)
def demo(
    data: Annotated[Path | None, typer.Option(help="LGG cohort; by default a synthetic one is written.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole chain on a small cohort: search, train, promote, serve, and answer one study."""
    # After Ctrl-C, what still runs beside would else make Ray start anew.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    with one_line_errors(), progress("demo") as say:
        from glioflow.cli.demo_chain import run_chain

        steps, served = run_chain(data, say)
        answer({"steps": steps, "answer": served}, as_json, lambda: None)
