"""A challenger on live traffic: its share, its agreement with the champion, and when it must step back."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation import dice_per_case
from glioflow.serving.settings import Trial
from glioflow.tracking import Tracking
from glioflow.tracking.datasets import live_dataset
from glioflow.tracking.run import Opening, open_run

EXPERIMENT = "shadow"


@dataclass(frozen=True)
class Comparison:
    """A study answered by both: Dice between the two masks, and the time of each."""

    dice: float
    champion_ms: float
    challenger_ms: float


class Watch:
    """The last comparisons between one champion and one challenger."""

    def __init__(self, champion: str, challenger: str, trial: Trial, say: Callable[..., None]) -> None:
        """Start without comparisons; call `say(event, **facts)` when the challenger steps back."""
        self.champion, self.challenger, self.trial, self._say = champion, challenger, trial, say
        self.stepped_back: str | None = None
        self._dice: deque[float] = deque(maxlen=trial.window)
        self._failed: deque[bool] = deque(maxlen=trial.window)

    def goes_to(self, chance: float, share: float) -> bool:
        """Say whether a study with this random number in [0, 1) is in a share of the traffic."""
        return self.stepped_back is None and chance < share

    def compared(self, comparison: Comparison) -> None:
        """Count a comparison."""
        self._failed.append(False)
        self._dice.append(comparison.dice)
        mean = sum(self._dice) / len(self._dice)
        if len(self._dice) == self.trial.window and mean < self.trial.min_dice:
            self._step_back(f"mean Dice {mean:.3f} to the champion, below {self.trial.min_dice}")

    def failed(self) -> None:
        """Count a failure of the challenger."""
        self._failed.append(True)
        if sum(self._failed) > self.trial.max_errors:
            self._step_back(f"{sum(self._failed)} failures, more than {self.trial.max_errors}")

    def _step_back(self, reason: str) -> None:
        if self.stepped_back is None:
            self.stepped_back = reason
            self._say("stepped_back", champion=self.champion, challenger=self.challenger, reason=reason)


class Diary:
    """Writes comparisons to MLflow in its own thread, one run per pair; drops records that MLflow refuses.

    A pair's run ends when another pair begins, when its challenger is removed, or when the diary is closed. A run
    that a killed process left open is closed when the next one begins, once its lease has ended.
    """

    def __init__(self) -> None:
        """Start no thread before the first entry."""
        self._entries: queue.Queue[_Entry | None] = queue.Queue(maxsize=1000)
        self._thread: threading.Thread | None = None

    def write(self, champion: str, challenger: str, numbers: dict[str, float]) -> None:
        """Log numbers about a pair to its run."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="diary", daemon=True)
            self._thread.start()
        with contextlib.suppress(queue.Full):
            self._entries.put_nowait(_Entry((champion, challenger), numbers))

    def end(self) -> None:
        """End the run of the pair: its trial is over."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._entries.put_nowait(_Entry(None, {}))

    def close(self, *, patience_s: float = 10) -> None:
        """Write all entries, end the pair's run and the thread, waiting at most `patience_s`."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._entries.put(None, timeout=patience_s)
            self._thread.join(patience_s)
            self._thread = None

    def _work(self) -> None:
        entry = self._entries.get()
        while entry is not None:
            try:
                entry = self._follow(entry)
            except Exception:  # the store may be unreachable; no answer waits for it
                entry = self._entries.get()

    def _follow(self, entry: "_Entry | None") -> "_Entry | None":
        """Write one pair's entries into its run; return the first entry of another pair."""
        if entry is None or entry.pair is None:
            return self._entries.get()
        (champion, challenger), step = entry.pair, 0
        opening = Opening(
            kind="shadow",
            experiment=EXPERIMENT,
            name=f"{challenger.replace('/', '-')}-beside-{champion.replace('/', '-')}",
            tags={"champion": champion, "challenger": challenger},
            datasets=(live_dataset(champion.partition("/")[0], champion=champion, challenger=challenger),),
        )
        pair = entry.pair
        with open_run(Tracking(), opening, patience_s=0) as run:
            while entry is not None and entry.pair == pair:
                run.log_metrics(entry.numbers, step=step)
                step, entry = step + 1, self._entries.get()
        return entry


@dataclass(frozen=True)
class _Entry:
    """Numbers about a champion and a challenger; without a pair, a trial is over."""

    pair: tuple[str, str] | None
    numbers: dict[str, float]


def agreement(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the Dice coefficient between two masks' tumor, 1 if both are empty."""
    return dice_per_case(one > 0, other > 0)
