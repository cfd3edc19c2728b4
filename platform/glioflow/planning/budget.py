"""How a budget of hours is shared out: from what a short training cost to lengths, folds and the time of a search.

The unit is one training. A cross-validation is as many as it has folds, a final model is one more unless the folds are
the final model, see `is_ensemble`, and a search gets the time of `SEARCH_WORTH` of them on every slot. How many steps a
training may have follows from what is left.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from glioflow.planning.rules import ENOUGH, FEWEST_STEPS

# A search of fewer trainings than these, on each slot, compares too little.
SEARCH_WORTH = 2
# Parts of the budget: kept for what takes longer than measured, and of a training, the most for its validations.
RESERVE, VALIDATING = 0.05, 0.25
FEWEST_FOLDS = 3
# With fewer folds each network trains on too few of the patients: a fold tests, one chooses, the others train.
ENSEMBLE_FOLDS = 5
_EPOCHS = (8, 6, 4, 3, 2, 1)


@dataclass(frozen=True)
class Costs:
    """What trainings take on this machine, in seconds.

    Attributes:
        step_s: One step, loading included.
        other_s: All of a short training but its steps: start, one validation, the scores of its test patients.
    """

    step_s: float
    other_s: float

    @property
    def validation_s(self) -> float:
        """One more validation: at most half of the rest, since as many test patients are scored by more metrics."""
        return self.other_s / 2

    def training_s(self, epochs: int, steps_per_epoch: int) -> float:
        """Return the seconds of a training."""
        return self.other_s + (epochs - 1) * self.validation_s + epochs * steps_per_epoch * self.step_s

    def with_training(self, seconds: float, epochs: int, steps_per_epoch: int) -> "Costs":
        """Return the costs of steps as a training shows them that took so many seconds, the rest being as before."""
        stepping = seconds - self.training_s(epochs, 0)
        return Costs(max(stepping / (epochs * steps_per_epoch), self.step_s / 2), self.other_s)


@dataclass(frozen=True)
class Shares:
    """How what is left of a budget is spent.

    Attributes:
        epochs: Of each training.
        steps_per_epoch: Of each training.
        folds: Of the cross-validation; 0 where there is none left to do.
        search_s: Seconds of the search, 0 for none.
        trials: The most that can end within them.
    """

    epochs: int
    steps_per_epoch: int
    folds: int
    search_s: float = 0.0
    trials: int = 0


def is_ensemble(folds: int, *, hold_out: bool) -> bool:
    """Return whether the final model is the ensemble of a cross-validation's folds: as many as nnU-Net averages.

    Args:
        folds: Of the cross-validation.
        hold_out: Whether the test patients, who judge the final model, are in none of them.
    """
    return hold_out and folds >= ENSEMBLE_FOLDS


def share_out(
    costs: Costs, left_s: float, *, folds: int, slots: int, search: bool, hold_out: bool = False
) -> Shares | None:
    """Return how to spend what is left of a budget; None where not even the shortest trainings fit.

    Where it is short, the search goes first, then folds beyond three.

    Args:
        costs: Of trainings.
        left_s: Seconds.
        folds: Of the cross-validation.
        slots: Trainings that run side by side.
        search: Whether a search is to come.
        hold_out: Whether the test patients are left out of the folds.
    """
    available = spendable(costs, left_s)
    ways = [(search, folds), (False, folds), (False, min(folds, FEWEST_FOLDS))]
    for searching, many in ways:
        ending = math.ceil(many / slots) + (not is_ensemble(many, hold_out=hold_out))
        length = _length(costs, available / (ending + SEARCH_WORTH * searching))
        if length is None:
            continue
        training = costs.training_s(*length)
        if not searching:
            return Shares(*length, folds=many)
        search_s = available - ending * training
        # The cheapest trial stops after its first epoch.
        shortest = costs.other_s + length[1] * costs.step_s
        return Shares(*length, folds=many, search_s=search_s, trials=max(2, int(slots * search_s / shortest)))
    return None


def fold_patients(patients: Mapping[str, int], folds: int) -> tuple[int, bool]:
    """Return how many folds the patients of a split carry, and whether its test patients can be left out of them.

    Args:
        patients: How many are in `train`, `val` and `test`.
        folds: As many as are wanted.
    """
    others = patients["train"] + patients["val"]
    hold_out = others >= FEWEST_FOLDS
    return min(folds, others if hold_out else others + patients["test"]), hold_out


def least_seconds(costs: Costs, *, slots: int) -> float:
    """Return the seconds below which nothing fits: the shortest trainings, three folds, no search."""
    trainings = math.ceil(FEWEST_FOLDS / slots) + 1
    # To the next second, so that this much is enough.
    return math.ceil((trainings * costs.training_s(1, FEWEST_STEPS) + _closing(costs)) / (1 - RESERVE)) + 1


def spendable(costs: Costs, left_s: float) -> float:
    """Return what is left for trainings, without the reserve, and without registering, gate and report."""
    return left_s * (1 - RESERVE) - _closing(costs)


def _closing(costs: Costs) -> float:
    return 2 * costs.other_s  # the gate scores the test patients as a training does; as much for all else


def _length(costs: Costs, seconds: float) -> tuple[int, int] | None:
    """Return epochs and steps of each of a training that fits into so many seconds; None where none does."""
    for epochs in _EPOCHS:
        validating = (epochs - 1) * costs.validation_s
        if validating > VALIDATING * seconds:
            continue
        steps = min(ENOUGH, int((seconds - costs.training_s(epochs, 0)) / costs.step_s))
        if steps >= FEWEST_STEPS:
            return epochs, steps // epochs
    return None
