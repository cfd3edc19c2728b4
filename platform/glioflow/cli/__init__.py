"""The command line: one module for each group of verbs in `--help`; a verb parses, calls the API and prints."""

import sys
from collections.abc import Sequence

# Each module adds its verbs to the application.
from glioflow.cli import analysis, data, demo, evaluation, registry, serving, training  # noqa: F401
from glioflow.cli.app import app
from glioflow.cli.output import one_line_errors
from glioflow.cluster import silence
from glioflow.errors import UserError

__all__ = ["app", "check_arguments", "main"]


def check_arguments(words: Sequence[str]) -> None:
    """Refuse an argument without text, which would mean the current folder: mostly a variable that is not set.

    Raises:
        UserError: That names the option.
    """
    for before, word in zip(("", *words), words, strict=False):
        if word == "" or (word.startswith("--") and word.endswith("=") and word.count("=") == 1):
            name = word.rstrip("=") or (before if before.startswith("-") else "an argument")
            raise UserError(f"{name} must not be empty", "", hint="give a value, or leave it out")


def main() -> None:
    """Run the command line."""
    with one_line_errors():
        silence()
        check_arguments(sys.argv[1:])
    app()
