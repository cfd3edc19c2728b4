"""The driver's work while the trials of a search run: reports, closing of their runs, counting of their cost."""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ray.tune import Callback

from glioflow import cluster
from glioflow.progress import Say
from glioflow.reports.numbers import short
from glioflow.runs.search.board import Board, Row
from glioflow.runs.search.searcher import METRIC, NUMBER, TrialReport
from glioflow.runs.search.trial import CHECKPOINT, GROUP, drop_checkpoint
from glioflow.tracking import PATIENCE_S, Tracking
from glioflow.tracking.addresses import answers
from glioflow.tracking.run import REASON
from glioflow.tracking.spool import run_folder

PRUNED = "glioflow.pruned"
# This many trials in a row that fail in the same way end a search: the cause is not in the trials.
EQUAL_FAILURES = 5
# Time for Ray Train's controller to end with its trial: a living controller would book its workers again.
_GRACE_S = 15.0
# Interval between lines about epochs where there is no table.
_LINE_S = 5.0


@dataclass(frozen=True)
class Listener:
    """The receivers of a search's reports: lines of progress, the table, and MLflow.

    Attributes:
        say: Called with each line of progress.
        show: Called with the table of trials.
        tracking: Tracking in which runs are closed.
        run_of: Function of a trial's number and parameters that finds its run, or opens one if the trial died before
            that.
        give_up: Called with the reason why no more trials are to begin.
    """

    say: Say
    show: Callable[[Board], None] | None = None
    tracking: Tracking | None = None
    run_of: Callable[[str, Mapping[str, Any]], str] | None = None
    give_up: Callable[[str], None] | None = None


@dataclass
class _Closing:
    """A pending report to MLflow about a trial that ended, or `goes_on`; one that never reported is found by `row`."""

    run_id: str | None
    row: Row
    point: dict[str, Any]
    status: str | None
    tags: dict[str, str]
    cost: dict[str, float]
    goes_on: bool


# Listener by search. Tune pickles its callbacks, and a listener may be an open terminal.
LISTENERS: dict[str, Listener] = {}


class Announcer(Callback):  # type: ignore[misc]
    """Reports each ended trial in a line, updates the table, and closes runs that their own process cannot close."""

    def __init__(self, search: str, board: Board, *, workers: Mapping[str, float]) -> None:
        """Begin with a table.

        Args:
            search: Its name, under which a `Listener` may wait.
            board: The table.
            workers: `cpu` and `gpu` that a trial's workers take together.
        """
        self.search, self.board, self.workers = search, board, dict(workers)
        # Placement groups of ended trials and when they ended. Ray Train's own cleaner does not work if several
        # clusters share a machine or the dashboard is off, and a remaining group keeps its CPUs from later trials.
        self._groups: list[tuple[float, str]] = []
        self._waiting: list[_Closing] = []
        self._failures: list[str] = []
        self._last_line = float("-inf")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Enter it in the table."""
        self._row(trial).state = "running"
        self._show()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: TrialReport, **info: Any) -> None:
        """Enter an epoch, and report it to people who see no table, unless they just heard of another."""
        row, listener = self._enter(trial, result), LISTENERS.get(self.search)
        self._show()
        if listener is None or listener.show is not None or time.monotonic() - self._last_line < _LINE_S:
            return
        if row.dice is not None and not result.get("finished"):
            self._last_line = time.monotonic()
            text = f"trial {row.name}: epoch {row.epoch} of {self.board.epochs}, val/dice {row.dice:.3f}"
            listener.say(text, self.board.ended / self.board.num_trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say what a finished or stopped trial reached; close the run of a stopped one."""
        last = cast(TrialReport, trial.last_result or {})
        row = self._enter(trial, last)
        if last.get("failed"):
            row.state = "failed"
            if not last.get("open"):
                self._count_failure(str(last["failed"]))
            self._end(trial, row, "KILLED" if last.get("open") else None, {}, f"failed: {last['failed']}")
            return
        self._failures.clear()
        if last.get("finished"):
            row.state = "finished"
            text = (
                f"finished with val/dice_mean {row.dice_mean or 0:.3f}, best {self.board.best or 0:.3f}; {row.chosen}"
            )
            self._end(trial, row, None, {}, text)
        else:
            row.state = "stopped"
            text = f"stopped after epoch {row.epoch} with val/dice {row.dice or 0:.3f}; {row.chosen}"
            self._end(trial, row, "KILLED", {PRUNED: "true"}, text)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial failed for good, and why."""
        row, reason = self._row(trial), reason_of(trial)
        row.state = "failed"
        self._count_failure(reason)
        self._end(trial, row, "FAILED", {REASON: reason[:500]}, f"failed: {reason}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Release what a trial whose driver died had booked for its workers: it is begun again, and books anew."""
        self._ended_with(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Release what ended trials of several workers had booked."""
        self._release(time.monotonic() - _GRACE_S)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Release the last ones too, and send what waits."""
        self._release(float("inf"))
        listener = LISTENERS.get(self.search)
        if self._waiting and listener is not None and listener.tracking is not None:
            answers(listener.tracking.uri, patience_s=PATIENCE_S)
            self.deliver()

    def _release(self, ended_before: float) -> None:
        for ended, group in self._groups:
            if ended < ended_before:
                cluster.release_group(group)
        self._groups = [(ended, group) for ended, group in self._groups if ended >= ended_before]

    def _ended_with(self, trial: Any) -> None:
        group = (trial.last_result or {}).get(GROUP)
        if group:
            self._groups.append((time.monotonic(), group))

    def _row(self, trial: Any) -> Row:
        name = str(trial.config.get(NUMBER, trial.trial_id))
        epochs = int(trial.config.get("training.epochs", self.board.epochs))  # never searched on several folds
        return self.board.rows.setdefault(trial.trial_id, Row(name, chosen_in(trial.config), epochs))

    def _enter(self, trial: Any, result: TrialReport) -> Row:
        row = self._row(trial)
        row.seconds = float(result.get("time_total_s", row.seconds))
        if METRIC in result and not result.get("failed"):
            row.epoch = int(result["epoch"])
            if result.get("finished"):
                row.dice_mean = float(result[METRIC])
                self.board.best = max(row.dice_mean, self.board.best or 0.0)
            else:
                row.dice = float(result[METRIC])
        return row

    def _end(self, trial: Any, row: Row, status: str | None, tags: dict[str, str], text: str) -> None:
        hours = row.seconds / 3600
        cost = {f"cost/{name}_hours": hours * count for name, count in self.workers.items()}
        if row.state == "stopped" and row.epoch:
            left = (row.epochs - row.epoch) / row.epoch
            cost |= {f"{name}_saved": value * left for name, value in cost.items()}
        self._ended_with(trial)
        last = trial.last_result or {}
        point = {key: value for key, value in trial.config.items() if key != NUMBER}
        self._waiting.append(
            _Closing(last.get("run_id") or None, row, point, status, tags, cost, bool(last.get("open")))
        )
        self.deliver()
        listener = LISTENERS.get(self.search)
        if listener is not None:
            board = self.board
            listener.say(f"trial {board.ended} of {board.num_trials}: {text}", board.ended / board.num_trials)
        self._show()

    def _count_failure(self, reason: str) -> None:
        """Let no more trials begin where the last ones failed for one reason, whatever numbers and ids are in it."""
        alike = re.sub(r"\S*\d\S*", "#", reason)
        self._failures = [*self._failures, alike] if self._failures[-1:] == [alike] else [alike]
        listener = LISTENERS.get(self.search)
        if len(self._failures) == EQUAL_FAILURES and listener is not None and listener.give_up is not None:
            listener.give_up(f"{EQUAL_FAILURES} trials in a row failed alike: {reason}")

    def deliver(self) -> None:
        """Close runs in MLflow and log their cost; where it is away, with the next trial or when the search ends."""
        listener = LISTENERS.get(self.search)
        if listener is None or listener.tracking is None:
            return
        for closing in tuple(self._waiting):
            if not answers(listener.tracking.uri, patience_s=0):
                return
            with contextlib.suppress(Exception):  # it is unreachable, or the run was deleted: no reason to end a search
                _close(closing, listener, listener.tracking)
                self._waiting.remove(closing)

    def _show(self) -> None:
        listener = LISTENERS.get(self.search)
        if listener is not None and listener.show is not None:
            listener.show(self.board)


def _close(closing: _Closing, listener: Listener, tracking: Tracking) -> None:
    if closing.run_id is None and listener.run_of is not None:
        closing.run_id = listener.run_of(closing.row.name, closing.point)
    if closing.run_id is None:
        return
    if not closing.goes_on:
        drop_checkpoint(run_folder(closing.run_id) / CHECKPOINT)
    tracking.log_metrics(closing.run_id, closing.cost)
    if closing.tags:
        tracking.set_tags(closing.run_id, closing.tags)
    if closing.status is not None:
        tracking.finish(closing.run_id, closing.status)


def chosen_in(config: Mapping[str, Any]) -> str:
    """Return a configuration in a few words: the end of each key, or all of it where the end does not tell enough."""
    ends = Counter(key.split(".")[-1] for key in config)
    labels = {key: key.split(".")[-1] for key in config}
    whole = {key for key, end in labels.items() if end == "name" or ends[end] > 1}
    return ", ".join(
        f"{key if key in whole else labels[key]} {short(value, 3)}" for key, value in config.items() if key != NUMBER
    )


def reason_of(trial: Any) -> str:
    """Return why Tune gave a trial up, in one line."""
    path = trial.error_file
    text = Path(path).read_text() if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its process ended"
