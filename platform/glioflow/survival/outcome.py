"""The outcome of a task: its columns in the typed table, and whether it has enough patients and events."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError
from glioflow.survival.settings import SurvivalSettings, Task

if TYPE_CHECKING:
    import pandas as pd

Family = Literal["binary", "time", "days"]


@dataclass(frozen=True)
class TaskEntry:
    """The columns of a task's outcome in the table, and its description."""

    family: Family
    columns: tuple[str, ...]
    words: str


TASKS: dict[Task, TaskEntry] = {
    "overall_survival": TaskEntry("time", ("os_days", "os_event"), "overall survival"),
    "progression_free": TaskEntry("time", ("pfi_days", "pfi_event"), "progression-free interval"),
    "death01": TaskEntry("binary", ("death01",), "death as recorded, without times"),
    "brats_days": TaskEntry("days", ("os_days", "os_event"), "days of survival after gross total resection"),
}


@dataclass(frozen=True)
class Outcome:
    """The outcomes of N patients.

    Attributes:
        family: Kind of model for it.
        event: (N,) whether death (or progression) was observed.
        days: (N,) days to the event or to censoring; zeros for `binary`.
    """

    family: Family
    event: NDArray[np.bool_]
    days: NDArray[np.float64]

    def take(self, index: NDArray[np.int_]) -> "Outcome":
        """Return the outcome of some of the patients."""
        return Outcome(self.family, self.event[index], self.days[index])


def choose_task(table: "pd.DataFrame", settings: SurvivalSettings) -> Task:
    """Return the requested task; for `auto`, the first with enough patients and events in the table.

    Raises:
        UserError: If the table lacks the columns, or patients, or events; with the rule and the counts.
    """
    if settings.task != "auto":
        _check(table, settings.task, settings)
        return settings.task
    reasons = []
    for task in ("overall_survival", "progression_free", "death01"):
        try:
            _check(table, task, settings)
        except UserError as error:
            reasons.append(f"{task}: {error}")
        else:
            return task
    raise UserError(f"a survival stage needs one outcome that is known well enough ({' | '.join(reasons)})")


def take_outcome(table: "pd.DataFrame", task: Task) -> tuple["pd.DataFrame", Outcome]:
    """Return the rows whose outcome is known (for BraTS's days: after gross total resection only), and that outcome."""
    entry = TASKS[task]
    rows = table[_known(table, task)]
    event = rows[entry.columns[-1]].to_numpy(dtype=np.float64) == 1
    days = np.zeros(len(rows)) if entry.family == "binary" else rows[entry.columns[0]].to_numpy(dtype=np.float64)
    return rows, Outcome(entry.family, event, days)


def _known(table: "pd.DataFrame", task: Task) -> "pd.Series[bool]":
    known = table[list(TASKS[task].columns)].notna().all(axis=1)
    return known & (table["resection"] == "gtr") if task == "brats_days" else known


def _check(table: "pd.DataFrame", task: Task, settings: SurvivalSettings) -> None:
    if table.index.has_duplicates:
        raise UserError("a patient must have one row", table.index[table.index.duplicated()][0])
    entry = TASKS[task]
    needed = (*entry.columns, "resection") if entry.family == "days" else entry.columns
    missing = [name for name in needed if name not in table]
    if missing:
        raise UserError(f"{task} needs the columns {', '.join(needed)}", f"none named {', '.join(missing)}")
    rows, outcome = take_outcome(table, task)
    if len(rows) < settings.min_patients:
        raise UserError(f"{task} needs at least {settings.min_patients} patients with a known outcome", len(rows))
    events = int(outcome.event.sum())
    if events < settings.min_events:
        raise UserError(f"{task} needs at least {settings.min_events} events among {len(rows)} patients", events)
    if entry.family == "binary" and len(rows) - events < settings.min_events:
        rule = f"{task} needs at least {settings.min_events} patients without the event among {len(rows)}"
        raise UserError(rule, len(rows) - events)
