"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
# A text, since a path would lose a slash of `s3://`.
Data = Annotated[
    str | None,
    typer.Option("--data", help="Cohort, raw or prepared, or a prepared one's URI; default is the experiment's."),
]
Overrides = Annotated[list[str] | None, typer.Option("-o", help="section.key=value; may be repeated.")]
ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file (YAML).")]
