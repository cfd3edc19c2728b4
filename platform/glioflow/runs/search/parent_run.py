"""The run of a search, kept up to date while its trials run: progress, the best and the failed trials, figures."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import optuna

from glioflow.config import Experiment
from glioflow.progress import Say
from glioflow.reports.numbers import duration, short
from glioflow.runs.launch import Setting
from glioflow.runs.search.board import Board
from glioflow.runs.search.report import LABELS, draw
from glioflow.tracking import Tracking
from glioflow.tracking.addresses import answers
from glioflow.tracking.run import REASON, Run

# Interval between lines if there is no table, and between two drawings of the figures.
LINE_S, FIGURES_S = 30.0, 300.0
FIGURES = "search.html"
_BEST, _FAILED = 10, 5


@dataclass
class ParentRun:
    """The run of a search and its facts about the trials.

    Attributes:
        setting: Setting of the search.
        run: The search's run.
        study: Name and storage of the study; None for population-based training.
        link: Address of the run for people.
        board: Latest board of the trials.
    """

    setting: Setting
    run: Run
    study: tuple[str, str] | None
    link: str
    board: Board | None = None
    _logged_counts: tuple[int, int] = (-1, -1)
    _drawn: tuple[float, int] = (float("-inf"), 0)

    def see(self, board: Board) -> None:
        """Take the table of trials; what it says is written later."""
        self.board = board

    @contextmanager
    def followed(self, say: Say | None) -> Iterator[None]:
        """Keep the run up to date while a block runs, and say a line at once and now and then.

        Args:
            say: Called with the lines; None where people see a table.
        """
        ended = threading.Event()

        def follow() -> None:
            while True:
                if say is not None and self.board is not None:
                    say(self.line())
                with suppress(Exception):  # the store is unreachable: try again next time
                    self.update()
                if ended.wait(LINE_S if self.board is not None else 1):
                    return

        follower = threading.Thread(target=follow, name="parent run", daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()

    def update(self, *, last: bool = False) -> None:
        """Write progress, description and, now and then, figures; nothing where no trial began or ended since."""
        board = self.board
        if board is None or not answers(self.setting.tracking.uri, patience_s=0):
            return
        counts = (board.ended, len(board.rows))
        if counts != self._logged_counts or last:
            self._logged_counts = counts
            self.run.log_metrics(progress_metrics(board), step=board.ended)
            self.run.set_tags({"mlflow.note.content": self.describe(self._named_trials())})
        when, ended = self._drawn
        if self.study is not None and board.ended > ended and (last or time.monotonic() - when > FIGURES_S):
            self._drawn = (time.monotonic(), board.ended)
            if page := draw(optuna.load_study(study_name=self.study[0], storage=self.study[1]), self.settings):
                self.run.log_text(FIGURES, page)

    @property
    def settings(self) -> Any:
        """The search settings."""
        return self.setting.experiment.search

    def line(self) -> str:
        """Return in one line how far the search is, and its address if it has one that a browser opens."""
        assert self.board is not None
        link = self.link if self.link.startswith("http") else ""  # a command to type is said once, at the start
        return line(self.board, booking(self.setting.experiment), link)

    def _named_trials(self) -> list[Any]:
        """Ask MLflow for the best and the failed trials alone: a search may have thousands."""
        tracking, among = self.setting.tracking, (self.setting.experiment.name, self.run.run_id)
        return [
            *tracking.best_children(*among, "val/dice_mean", _BEST),
            *tracking.children_with(*among, REASON),
        ]

    def describe(self, trials: Sequence[Any]) -> str:
        """Return in Markdown how far the search is, its best trials, its Pareto front, and what failed and why."""
        parts = [] if self.board is None else [line(self.board, booking(self.setting.experiment))]
        parts.append(table_of_best(trials, list(self.settings.space), self._run_link))
        if len(self.settings.objectives) > 1 and self.study is not None:
            parts.append(self._front())
        # A trial that was tried again keeps its first reason.
        failed = [run for run in trials if run.data.tags.get(REASON) and run.info.status in ("FAILED", "KILLED")]
        reasons = [f"- {_number(run)}: {run.data.tags[REASON]}" for run in failed[:_FAILED]]
        if failed:
            more = f"\n- and {len(failed) - _FAILED} more" if len(failed) > _FAILED else ""
            parts.append("Failed trials:\n\n" + "\n".join(reasons) + more)
        return "\n\n".join(part for part in parts if part)

    def _front(self) -> str:
        assert self.study is not None
        best = optuna.load_study(study_name=self.study[0], storage=self.study[1]).best_trials
        head = ["trial", *(LABELS[each] for each in self.settings.objectives)]
        rows = [[str(trial.number), *(short(value, 4) for value in trial.values)] for trial in best]
        return "Pareto front:\n\n" + _markdown(head, rows) if rows else ""

    def _run_link(self, run: Any) -> str:
        return f"[{_number(run)}]({_page(run.info.experiment_id, run.info.run_id)})"


def link_to(tracking: Tracking, experiment: str, run_id: str) -> str:
    """Return where people see a run."""
    if tracking.uri.startswith("http"):
        return f"{tracking.shown.rstrip('/')}/{_page(tracking.experiment(experiment), run_id)}"
    return f"mlflow ui --backend-store-uri {tracking.shown}, experiment {experiment}"


def _page(experiment_id: str, run_id: str) -> str:
    """Return a run's address within MLflow's page, which would else show it among evaluations of language models."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def booking(experiment: Experiment) -> str:
    """Return what one trial books, for people: `2 CPUs and 1 GPU`."""
    training = experiment.training
    counts = {name: each * training.min_workers for name, each in training.resources_per_worker.items()}
    return " and ".join(f"{short(float(n))} {name}{'' if n == 1 else 's'}" for name, n in counts.items())


def line(board: Board, booked: str, link: str = "") -> str:
    """Return in one line how far a search is; where no trial runs yet, what the first one waits for."""
    failed, running = sum(row.state == "failed" for row in board.rows.values()), _running(board)
    goes_on = running > 0 or board.ended < board.num_trials
    parts = [
        "" if not goes_on else f"{running} running" if running else f"waiting for {booked}",
        f"{board.ended} of {board.num_trials} trials ended" + (f", {failed} failed" if failed else ""),
        "no best yet" if board.best is None else f"best val/dice_mean {board.best:.3f}",
        f"about {duration(board.seconds_left)} left" if goes_on and board.seconds_left is not None else "",
        link,
    ]
    return "; ".join(part for part in parts if part)


def progress_metrics(board: Board) -> dict[str, float | None]:
    """Return how far a search is, as metrics of its run."""
    return {
        "search/num_ended": float(board.ended),
        "search/num_running": float(_running(board)),
        "search/num_failed": float(sum(row.state == "failed" for row in board.rows.values())),
        "search/best_dice": board.best,
    }


def table_of_best(trials: Sequence[Any], keys: Sequence[str], link: Callable[[Any], str]) -> str:
    """Return in Markdown the best finished trials with the values of the searched keys; empty before the first."""
    finished = [run for run in trials if run.info.status == "FINISHED" and "val/dice_mean" in run.data.metrics]
    finished.sort(key=lambda run: -float(run.data.metrics["val/dice_mean"]))
    if not finished:
        return ""
    rows = [
        [link(run), f"{run.data.metrics['val/dice_mean']:.3f}", *(_value(run.data.tags, key) for key in keys)]
        for run in finished[:_BEST]
    ]
    return "Best trials:\n\n" + _markdown(["trial", "val/dice_mean", *keys], rows)


def _value(tags: Mapping[str, str], key: str) -> str:
    text = tags.get(f"param.{key}")
    return "" if text is None else short(json.loads(text), 4)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in each) + " |" for each in lines)


def _running(board: Board) -> int:
    return sum(row.state == "running" for row in board.rows.values())


def _number(run: Any) -> str:
    return str(run.data.tags.get("trial_id", run.info.run_id))
