"""How the command line speaks: people on stderr, programs on stdout, mistakes in one line."""

import json
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from glioflow import atomic
from glioflow.cluster.storage import home
from glioflow.errors import (
    COMMAND_LINE,
    DOOR,
    DiskFull,
    RunFailed,
    StoreFailed,
    UserError,
    causes_of,
    first_line,
    is_disk_full,
    space_of,
    unusable_path,
)
from glioflow.progress import FIRST_S, Say, waiting
from glioflow.reports.tables import cell_text

if TYPE_CHECKING:
    from rich.console import Console

    from glioflow.api.results import Result


def console() -> "Console":
    """Return the console that people read, on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


# Libraries whose errors come from the tracking store; neither is imported for this.
_STORE = ("mlflow", "sqlalchemy")
# Where `answer` writes within `one_line_errors`, which keeps stdout from everybody else.
_STDOUT: ContextVar[TextIO | None] = ContextVar("stdout", default=None)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn our errors into one line and an exit code: 2 for a user's mistake, 1 for a failed run, 130 when stopped.

    What libraries print goes to stderr: Ray prints lines of its own (`(raylet) ...`) to stdout whenever it likes, and
    stdout is for programs.
    """
    reset = _STDOUT.set(sys.stdout)
    door = os.environ.get(DOOR)
    os.environ[DOOR] = COMMAND_LINE
    try:
        with redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        stop("interrupted", 130)
    except Exception as error:
        full = _full_disk(error)
        if full is not None:
            detail = f": {error}" if isinstance(error, RunFailed) else ""
            stop(f"failed: {full}{detail}", 1)
        if isinstance(error, UserError):
            stop(f"error: {error}", 2)
        if isinstance(error, RunFailed):
            stop(f"failed: {error}", 1)
        if isinstance(error, StoreFailed):
            stop(f"failed: {error}; continue once it works again", 1)
        if (mistake := unusable_path(error)) is not None:
            stop(f"error: {mistake}", 2)
        if type(error).__module__.partition(".")[0] in _STORE:
            stop(f"failed: the tracking store stopped answering, or refused a call: {first_line(error)}; try again", 1)
        raise
    finally:
        _STDOUT.reset(reset)
        if door is None:
            del os.environ[DOOR]
        else:
            os.environ[DOOR] = door


def _full_disk(error: Exception) -> DiskFull | None:
    """Return where the disk is full, if that is what an error comes from.

    Ray tells of some errors in words alone. Whatever failed while nothing can be written failed for that.
    """
    if isinstance(error, UserError) and not is_disk_full(error):
        return None
    known = next((each for each in causes_of(error) if isinstance(each, DiskFull)), None)
    if known is not None:
        return known
    folders = [Path(tempfile.gettempdir())]
    with suppress(UserError):  # a home that cannot be
        folders.append(home())
    folders.sort(key=lambda folder: space_of(folder)[1])
    if is_disk_full(error):
        return DiskFull(folders[0])
    return next((DiskFull(folder) for folder in folders if not atomic.has_space(folder)), None)


def stop(line: str, code: int) -> NoReturn:
    """Print one line to stderr and end with an exit code."""
    # A name may hold what would move a terminal's cursor.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(line.split()))
    print(shown, file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def _loading(title: str, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Say so if nothing else is said in the first 2 s of a block, and then as `waiting` does; give what ends this."""
    timer = threading.Timer(FIRST_S, say, [f"{title}: loading"])
    timer.daemon = True
    timer.start()
    with waiting(f"the first step of {title}", lambda text, part=None: say(text)) as over:

        def end() -> None:
            timer.cancel()
            over()

        try:
            yield end
        finally:
            end()


@contextmanager
def progress(title: str) -> Iterator[Say]:
    """Give a function `say(text, part)`: prints the text and, on a terminal, moves a bar to `part` in [0, 1]."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    out = console()
    if not out.is_terminal:

        def print_one(text: str) -> None:
            out.print(text, soft_wrap=True, markup=False)

        with _loading(title, print_one) as loaded:

            def say(text: str, part: float | None = None) -> None:
                if text or part is None:
                    loaded()
                    print_one(text)

            yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as bars:
        bar = bars.add_task(title, total=None)

        def say_with_bar(text: str, part: float | None = None) -> None:
            if text or part is None:
                out.print(text, soft_wrap=True, markup=False)
            if part is not None:
                bars.update(bar, total=1.0, completed=part)

        yield say_with_bar


def answer(payload: Mapping[str, Any], as_json: bool, show: Callable[[], None] | None = None) -> None:
    """End a verb: one JSON line on stdout for programs, or `show()` for people."""
    if as_json:
        print(json.dumps(_without_nan(payload), allow_nan=False), file=_STDOUT.get(), flush=True)
    elif show is not None:
        show()
    else:
        table("", ["", ""], [[key, cell_text(value)] for key, value in payload.items()])


def _without_nan(value: Any) -> Any:
    """Return `value` with null for the numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_line(text: str) -> None:
    """Print one line for people."""
    console().print(text, soft_wrap=True, markup=False)


def print_text(text: str) -> None:
    """Print a text, such as a file's content, on stdout."""
    print(text, end="", file=_STDOUT.get(), flush=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people, below its title."""
    from rich import box
    from rich.table import Column, Table

    columns = [Column(name, overflow="fold") for name in head]  # a long name is never cut
    drawn = Table(*columns, box=box.SIMPLE, show_header=any(head))
    for row in rows:
        drawn.add_row(*(cell_text(value) for value in row))
    if title:
        print_line(title)  # a title of the table itself would be wrapped to the width of the table
    console().print(drawn)


def print_result(result: "Result", as_json: bool) -> None:
    """End a verb with what the API returned: one JSON line on stdout for programs, or its tables for people."""

    def show() -> None:
        for each in result.tables():
            if each.rows:
                table(each.title, each.head, each.rows)
            elif each.title:
                print_line(each.title)
        for note in result.notes():
            print_line(note)

    answer(result.to_json(), as_json, show)
