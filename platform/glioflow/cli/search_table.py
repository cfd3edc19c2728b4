"""The live table of a search's trials, for terminals; elsewhere its lines are enough."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from glioflow.cli.output import console, progress
from glioflow.reports.numbers import duration

# Trials shown: those at work and the last that ended.
_SHOWN = 12
_COLORS = {"running": "cyan", "finished": "green", "stopped": "yellow", "failed": "red"}


@contextmanager
def search_table() -> Iterator[tuple[Callable[..., None], Callable[[Any], None] | None]]:
    """Give `say(text, part)` and `show(board)`: the second is None where there is no terminal to draw a table on."""
    out = console()
    if not out.is_terminal:
        with progress("search") as say:
            yield say, None
        return
    with Live(console=out, transient=True, refresh_per_second=2) as live:

        def say_above(text: str, part: float | None = None) -> None:
            if text:
                out.print(text, soft_wrap=True, markup=False)

        yield say_above, lambda board: live.update(draw_table(board))


def draw_table(board: Any) -> RenderableType:
    """Return a search's trials, its best and the time left as rich draws them."""
    best = "-" if board.best is None else f"{board.best:.3f}"
    title = f"{board.ended} of {board.num_trials} trials, best val/dice_mean {best}, {_time(board.seconds_left)} left"
    head = ("trial", "state", "epoch", "val/dice", "val/dice_mean", "time", "parameters")
    table = Table(*head, title=title, box=box.SIMPLE)
    rows = sorted(board.rows.values(), key=lambda row: row.state == "running")
    for row in rows[-_SHOWN:]:
        dice = ["-" if value is None else f"{value:.3f}" for value in (row.dice, row.dice_mean)]
        state = f"[{_COLORS[row.state]}]{row.state}[/]"
        table.add_row(row.name, state, f"{row.epoch}/{row.epochs}", *dice, _time(row.seconds), row.chosen)
    return table


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else duration(seconds)
