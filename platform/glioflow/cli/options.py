"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Data = Annotated[Path | None, typer.Option("--data", help="Cohort, raw or prepared; default is the experiment's.")]
Overrides = Annotated[list[str] | None, typer.Option("-o", help="section.key=value; may be repeated.")]
ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file (YAML).")]
