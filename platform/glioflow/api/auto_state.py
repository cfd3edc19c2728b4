"""The progress of an `auto`: one file in the home, from which it continues after an interruption.

If the home is an object store, the folder is copied there with each change of the file, and fetched to continue.
"""

import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.clock import now_ms
from glioflow.cluster.remote_home import address_of, fetch, list_shared, share
from glioflow.cluster.storage import home
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.digests import digest_cases
from glioflow.data.prepared.manifest import fingerprint_of
from glioflow.errors import StoreFailed, UserError, option

_FORMAT = 1
# How often the time spent is written down during a stage.
_KEEP_S = 30.0


# What a stage came to: JSON, as the file of the state keeps it for the stages after it and for the report.
Outcome = dict[str, Any]


@dataclass
class AutoState:
    """What an `auto` was asked for, and what became of its stages.

    Attributes:
        folder: Folder of its file and of everything else that it writes.
        cohort: Absolute path of the cohort.
        hours: The budget.
        since_ms: When it began, in Unix time: runs of MLflow before that are not its own.
        before_s: Seconds that earlier processes spent.
        stages: Result of each finished stage, with its `seconds`.
    """

    folder: Path
    cohort: str
    hours: float
    since_ms: int = field(default_factory=now_ms)
    before_s: float = 0.0
    stages: dict[str, Outcome] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _kept: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """Its name, which is that of its experiment and of its model."""
        return self.folder.name

    @property
    def spent_s(self) -> float:
        """Seconds of work until now, those of earlier processes too."""
        return self.before_s + time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left; below 0 where it is overdrawn."""
        return 3600 * self.hours - self.spent_s

    def note(self, stage: str, outcome: Outcome, seconds: float) -> None:
        """Keep what a stage came to, so that it is not done again."""
        self.stages[stage] = {**_without_nan(outcome), "seconds": round(seconds, 1)}
        self.keep()

    def keep(self, *, every_s: float = 0.0) -> None:
        """Write the file, unless it was written less than `every_s` ago."""
        with self._lock:
            if time.monotonic() - self._kept < every_s:
                return
            self._kept = time.monotonic()
            values = {"format": _FORMAT, "cohort": self.cohort, "hours": self.hours}
            values |= {"since_ms": self.since_ms, "spent_s": round(self.spent_s, 1), "stages": self.stages}
            atomic.write_json(_file(self.folder), values)
            share(self.folder)

    def keep_now_and_then(self) -> None:
        """Write down the time that was spent, where that was last done a while ago, unless its store is away."""
        with suppress(StoreFailed):
            self.keep(every_s=_KEEP_S)


def begin_state(name: str, cohort: Path, hours: float) -> AutoState:
    """Return the state of a new `auto`.

    Raises:
        UserError: If there is one of this name, or a search of the name that its own would have.
    """
    folder = home() / "auto" / name
    if _file(folder).name in list_shared(folder):
        hint = f"continue with {option('resume', name)}, or choose another {option('name')}"
        raise UserError(f"an auto named {name} exists already", name, hint=hint)
    if (search := search_of(name)) in list_shared(home() / "searches"):
        rule = f"an auto named {name} begins the search {search}, which exists already"
        raise UserError(rule, hint=f"choose another {option('name')}")
    return AutoState(folder, str(cohort), hours)


def read_state(name: str, cohort: Path, hours: float | None) -> AutoState:
    """Return the state of an `auto` to continue, with a new budget if one is given, and the place of its cohort now.

    Raises:
        UserError: If there is none of this name, its cohort has other files than when it was planned for, or its file
            is no state.
    """
    folder = home() / "auto" / name
    if _file(folder).name not in list_shared(folder):
        autos = home() / "auto"
        begun = [each for each in list_shared(autos) if _file(autos).name in list_shared(autos / each)]
        hint = (
            None if begun else f"no auto was begun in {address_of(home())}; leave out {option('resume')} to begin one"
        )
        raise UserError(f"{option('resume')} must name an earlier auto", name, begun or None, hint=hint)
    fetch(folder)
    try:
        values = atomic.read_json(_file(folder))
        if values["format"] != _FORMAT:
            raise ValueError(values["format"])
        kept = (values[key] for key in ("since_ms", "spent_s", "stages"))
        state = AutoState(folder, values["cohort"], hours or values["hours"], *kept)
    except (ValueError, KeyError, TypeError):
        hint = f"begin a new one under another {option('name')}"
        raise UserError("the state of the auto is damaged", file=_file(folder), hint=hint) from None
    known, moved = state.stages.get("check", {}).get("fingerprint"), state.cohort != str(cohort)
    if moved and (known is None or known != fingerprint_at(cohort)):
        others = "" if known is None else ", and this one has other files"
        raise UserError(f"auto {name} began with the cohort {state.cohort}{others}", cohort, hint="give that cohort")
    if not moved and known is not None and "report" not in state.stages and known != fingerprint_at(cohort):
        if "plan" in state.stages:  # other files are split otherwise: who was chosen on could become who tests
            hint = f"restore them, or begin a new one under another {option('name')}"
            raise UserError(f"the files of the cohort changed since auto {name} began", cohort, hint=hint)
        state.stages.clear()  # checked again
    state.cohort = str(cohort)
    return state


def fingerprint_at(cohort: Path) -> str:
    """Return the fingerprint of a cohort's files, which stays as it is when their folder moves."""
    return fingerprint_of(digest_cases(open_cohort(cohort), ()), ())


def search_of(name: str) -> str:
    """Return the name of the search that an `auto` begins."""
    return f"auto-{name}"


def _file(folder: Path) -> Path:
    return folder / "state.json"


def _without_nan(value: Any) -> Any:
    """Return a value of JSON with None for numbers that JSON does not know, and tuples as lists."""
    if isinstance(value, dict):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
