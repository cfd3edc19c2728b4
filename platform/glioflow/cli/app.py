"""The application, to which every module of verbs adds its own, and the stages by which `--help` groups them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from glioflow.cli.output import stop
from glioflow.validation import rule_of
from glioflow.version import __version__

# In the order of the work.
DATA, TRAINING, EVALUATION = "Data", "Train and search", "Evaluate"
REGISTRY, SERVING, ANALYSIS, START = "Registry", "Serve and predict", "Analysis", "Start here"
STAGES = (START, DATA, TRAINING, EVALUATION, REGISTRY, SERVING, ANALYSIS)

Verb = TypeVar("Verb", bound=Callable[..., None])


# Longer than any sentence: click would cut what a verb does in the middle.
_SENTENCE = 200


# What an option takes, in place of typer's names of Python's types.
_WORDS = {"str": "TEXT", "path": "PATH", "int": "NUMBER", "float": "NUMBER"}


class PlainCommand(TyperCommand):
    """A verb whose help has plain words: `--out PATH` for typer's `--out <path>`, `STUDY` for `STUDY <list[Path]>`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, without the braces around what is required."""
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, each of which describes its type in plain words."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            is_argument = param.param_type_name == "argument"
            kind = re.sub(r"\W|list|range", "", param.display_type(ctx)).lower()
            shown = None if is_argument else param.metavar or _WORDS.get(kind, kind.upper())
            param.display_type_rich = lambda ctx, shown=shown: shown
        return params


class PlainTyper(typer.Typer):
    """Verbs with plain help."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Verb], Verb]:
        """Return a decorator that adds a function as a verb."""
        return super().command(name, **{"cls": PlainCommand, **options})


@contextmanager
def _one_line_usage_errors() -> Iterator[None]:
    """End with one line where words are no call of a verb; typer would print the usage, too."""
    try:
        yield
    except typer.TyperException as raised:
        error: Any = raised  # typer makes its classes of usage errors public only in part
        if getattr(error, "exit_code", None) != 2 or error.format_message().startswith(
            "Usage"
        ):  # a group prints its help
            raise
        errors = getattr(error.__cause__, "errors", None)  # pydantic's, which takes long to import
        if isinstance(error, typer.BadParameter) and errors is not None:
            problem = errors()[0]
            error.message = f"{rule_of(problem) or error.message}; got {problem['input']}"
        message, path = error.format_message().rstrip("."), "glioflow" if error.ctx is None else error.ctx.command_path
        stop(f"error: {message}{'' if message.endswith('?') else '.'} See `{path} --help`.", 2)


class StagedGroup(TyperGroup):
    """A group of verbs whose help lists them by stage, if they have one."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the words before a verb; a mistake in them ends with one line."""
        with _one_line_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; a mistake in its words ends with one line, which shows the value that was given."""
        with _one_line_usage_errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs stage by stage, each with its whole first sentence."""
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows: dict[str, list[tuple[str, str]]] = {stage: [] for stage in (*STAGES, "Commands")}
        for name, verb in verbs:
            if verb is not None:
                stage = getattr(verb, "rich_help_panel", None)
                rows[stage if stage in STAGES else "Commands"].append((name, verb.get_short_help_str(_SENTENCE)))
        for title, listed in rows.items():
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed)


app = PlainTyper(
    name="glioflow",
    cls=StagedGroup,
    help="Train, evaluate, promote and serve networks that segment brain tumors in MRI, with every score by patient. "
    "Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"glioflow {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def verb(stage: str) -> Callable[[Verb], Verb]:
    """Return a decorator that adds a function to the application as a verb of a stage."""
    return app.command(rich_help_panel=stage)


def verb_group(name: str, stage: str, help: str) -> typer.Typer:
    """Return a group of verbs below `name`."""
    group = PlainTyper(cls=StagedGroup, help=help, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, rich_help_panel=stage)
    return group
