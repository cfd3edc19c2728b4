"""The table of a search's trials while it runs."""

import time
from dataclasses import dataclass, field


@dataclass
class Row:
    """One trial in the table.

    Attributes:
        name: Number of the trial.
        chosen: The trial's parameters, shortened.
        epochs: Epochs of the whole trial, over its folds.
        state: `running`, `finished`, `stopped` or `failed`.
        epoch: Number of finished epochs.
        dice: `val/dice` of the last epoch, before a threshold is chosen; None before the first.
        dice_mean: `val/dice_mean` of the bundle; None before the trial is finished.
        seconds: Seconds since it began.
    """

    name: str
    chosen: str
    epochs: int
    state: str = "running"
    epoch: int = 0
    dice: float | None = None
    dice_mean: float | None = None
    seconds: float = 0.0


@dataclass
class Board:
    """The present state of a search's trials.

    Attributes:
        num_trials: Number of trials of the search, including those of earlier processes.
        epochs: Epochs of the experiment, over all folds.
        before: Number of trials that ended in earlier processes.
        best: Best `val/dice_mean` of a finished trial, or None.
        rows: Rows of this process, by Tune's id, in the order they began.
        began: Start of this process's search, from time.monotonic().
        budget_s: Seconds from then on after which no trial begins; None if there is no such limit.
    """

    num_trials: int
    epochs: int
    before: int = 0
    best: float | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    budget_s: float | None = None

    @property
    def ended(self) -> int:
        """How many trials ended, those of earlier processes too."""
        return self.before + sum(row.state != "running" for row in self.rows.values())

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the speed until now; None before the first trial ends."""
        ended = [row.seconds for row in self.rows.values() if row.state != "running"]
        if not ended:
            return None
        spent = time.monotonic() - self.began
        left = spent / len(ended) * (self.num_trials - self.ended)
        # The trial that begins last takes as long as the longest one.
        return left if self.budget_s is None else min(left, max(0.0, self.budget_s - spent) + max(ended))
