"""Telling people how each trial of a search ended."""

from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from glioflow.runs.searcher import METRIC

# Who listens to which search. Tune pickles its callbacks, and a listener may be an open terminal.
LISTENERS: dict[str, Callable[..., None]] = {}


class Announcer(Callback):  # type: ignore[misc]
    """Says one line per ended trial to the listener of its search."""

    def __init__(self, search: str, num_trials: int) -> None:
        self.search, self.num_trials = search, num_trials
        self.ended, self.best = 0, 0.0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say what a finished or stopped trial reached."""
        last = trial.last_result or {}
        dice = float(last.get(METRIC, 0.0))
        self.best = max(self.best, dice)
        end = "finished" if last.get("finished") else f"stopped after epoch {last.get('epoch', 0)}"
        chosen = ", ".join(f"{key.split('.')[-1]} {_short(value)}" for key, value in trial.config.items())
        self._say(f"Dice {dice:.3f} (best {self.best:.3f}), {end}; {chosen}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial failed."""
        self._say("failed")

    def _say(self, text: str) -> None:
        self.ended += 1
        say = LISTENERS.get(self.search)
        if say is not None:
            say(f"trial {self.ended} of {self.num_trials}: {text}", self.ended / self.num_trials)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
