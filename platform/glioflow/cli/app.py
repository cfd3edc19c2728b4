"""The application, to which every module of verbs adds its own, and the stages by which `--help` groups them."""

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

# In the order of the work.
DATA, TRAINING, EVALUATION = "Data", "Train and search", "Evaluate"
REGISTRY, SERVING, ANALYSIS, START = "Registry", "Serve and predict", "Analysis", "Start here"
STAGES = (START, DATA, TRAINING, EVALUATION, REGISTRY, SERVING, ANALYSIS)

Verb = TypeVar("Verb", bound=Callable[..., None])


class StagedGroup(TyperGroup):
    """A group of verbs whose help lists them by stage."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs stage by stage, each with one line."""
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        limit = formatter.width - 6 - max(len(name) for name, _ in verbs)
        for stage in STAGES:
            rows = [
                (name, verb.get_short_help_str(limit))
                for name, verb in verbs
                if verb is not None and getattr(verb, "rich_help_panel", None) == stage
            ]
            if rows:
                with formatter.section(stage):
                    formatter.write_dl(rows)


app = typer.Typer(
    name="glioflow",
    cls=StagedGroup,
    help="Honest, patient-level brain tumor segmentation on Ray and MLflow. Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def verb(stage: str) -> Callable[[Verb], Verb]:
    """Return a decorator that adds a function to the application as a verb of a stage."""
    return app.command(rich_help_panel=stage)


def verb_group(name: str, stage: str, help: str) -> typer.Typer:
    """Return a group of verbs below `name`."""
    group = typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, rich_help_panel=stage)
    return group
