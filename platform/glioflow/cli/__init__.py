"""The command line: one module for each group of verbs in `--help`; a verb parses, calls the API and prints."""

# Each module adds its verbs to the application.
from glioflow.cli import analysis, data, demo, evaluation, registry, serving, training  # noqa: F401
from glioflow.cli.app import app
from glioflow.cli.output import one_line_errors
from glioflow.cluster import silence

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    with one_line_errors():
        silence()
    app()
