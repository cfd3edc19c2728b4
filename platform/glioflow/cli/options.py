"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
# A text, since a path would lose a slash of `s3://`.
Data = Annotated[
    str | None,
    typer.Option(
        "--data", help="Cohort, raw or prepared, or the URI of a prepared one; by default the experiment's data.source."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="SECTION.KEY=VALUE", help="Change one key of the experiment; repeatable."),
]
SkipIncomplete = Annotated[
    bool, typer.Option("--skip-incomplete", help="Leave out cases that lack a sequence, and name them.")
]
Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        metavar="NAME=SERIES",
        help="Say which DICOM series (by description or number) or NIfTI file a channel (pre, post, flair, t2) is; "
        "repeatable.",
    ),
]
ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file (YAML).", metavar="EXPERIMENT")]
StepsFile = Annotated[
    Path | None, typer.Option(help="Experiment file whose preprocessing is used; by default GlioFlow's own.")
]
Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of a cohort, or one study: a folder or a file.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME, NAME@alias, a run id, or a bundle's folder or zip; several, separated by commas, are an ensemble.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a registered model.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every address of this machine.")]
