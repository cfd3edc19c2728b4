"""Division of a budget of hours into training length, folds and search time, from the cost of a short training.

The unit is one training. A cross-validation counts one per fold, a final model one more unless the folds are
the final model (see `is_ensemble`), and a search gets the time of `SEARCH_WORTH` of them on every slot. The steps of a
training follow from the rest.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from glioflow.planning.rules import ENOUGH, FEWEST_STEPS

# A search with fewer trainings per slot compares too little, and one of shorter trainings compares beginnings. The
# number of steps is a convention.
SEARCH_WORTH, SEARCH_STEPS = 2, 400
# Fractions: of the budget, the reserve for overruns; of a training, the most for its validations.
RESERVE, VALIDATING = 0.05, 0.25
FEWEST_FOLDS = 3
# With fewer folds, each network trains on too few patients: one fold tests, one chooses, the others train.
ENSEMBLE_FOLDS = 5
# With fewer patients besides the test patients, the folds take these in as well (a convention).
FEWEST_BESIDE_TEST = 10
_EPOCHS = (8, 6, 4, 3, 2, 1)


@dataclass(frozen=True)
class Costs:
    """Costs of trainings on this machine, in seconds.

    Attributes:
        step_s: One step, loading included.
        other_s: A short training without its steps: start, one validation, the scores of its test patients.
    """

    step_s: float
    other_s: float

    @property
    def validation_s(self) -> float:
        """Cost of one more validation: at most half of `other_s`, since as many test patients get more metrics."""
        return self.other_s / 2

    def training_s(self, epochs: int, steps_per_epoch: int) -> float:
        """Return the seconds of a training."""
        return self.other_s + (epochs - 1) * self.validation_s + epochs * steps_per_epoch * self.step_s

    def with_step(self, seconds: float) -> "Costs":
        """Return the costs with another step time, at least half of this one, and the rest unchanged."""
        return Costs(max(seconds, self.step_s / 2), self.other_s)


@dataclass(frozen=True)
class Shares:
    """Use of the rest of a budget.

    Attributes:
        epochs: Epochs of each training.
        steps_per_epoch: Steps per epoch of each training.
        folds: Number of folds of the cross-validation; 0 if none is left to do.
        search_s: Seconds of the search, 0 for none.
        trials: The most that can finish in this time.
    """

    epochs: int
    steps_per_epoch: int
    folds: int
    search_s: float = 0.0
    trials: int = 0


def is_ensemble(folds: int, *, hold_out: bool) -> bool:
    """Return whether the final model is the ensemble of a cross-validation's folds: as many as nnU-Net averages.

    Args:
        folds: Number of folds of the cross-validation.
        hold_out: Whether the test patients, used to evaluate the final model, are in no fold.
    """
    return hold_out and folds >= ENSEMBLE_FOLDS


def share_out(
    costs: Costs, left_s: float, *, folds: int, slots: int, search: bool, hold_out: bool = False
) -> Shares | None:
    """Return how to spend the rest of a budget; None if not even the shortest trainings fit.

    If it is short, the search is dropped first, as soon as its trainings would be too short to compare, then folds
    beyond three.

    Args:
        costs: Measured costs of trainings.
        left_s: Seconds.
        folds: Number of folds of the cross-validation.
        slots: Trainings that run in parallel.
        search: Whether a search is to come.
        hold_out: Whether the test patients are left out of the folds.
    """
    available = spendable(costs, left_s)
    ways = [(search, folds), (False, folds), (False, min(folds, FEWEST_FOLDS))]
    for searching, many in ways:
        ending = math.ceil(many / slots) + (not is_ensemble(many, hold_out=hold_out))
        length = _length(costs, available / (ending + SEARCH_WORTH * searching))
        if length is None or (searching and math.prod(length) < SEARCH_STEPS):
            continue
        training = costs.training_s(*length)
        if not searching:
            return Shares(*length, folds=many)
        search_s = available - ending * training
        # The cheapest trial stops after one epoch.
        shortest = costs.other_s + length[1] * costs.step_s
        return Shares(*length, folds=many, search_s=search_s, trials=max(2, int(slots * search_s / shortest)))
    return None


def fold_patients(patients: Mapping[str, int], folds: int) -> tuple[int, bool]:
    """Return how many folds a split's patients allow, and whether its test patients can be left out of them.

    Args:
        patients: Numbers of patients in `train`, `val` and `test`.
        folds: Wanted number of folds.
    """
    others = patients["train"] + patients["val"]
    hold_out = others >= FEWEST_BESIDE_TEST
    return min(folds, others if hold_out else others + patients["test"]), hold_out


def least_seconds(costs: Costs, *, slots: int) -> float:
    """Return the seconds below which nothing fits: the shortest trainings, three folds, no search."""
    trainings = math.ceil(FEWEST_FOLDS / slots) + 1
    # Rounded up, so that this is enough.
    return math.ceil((trainings * costs.training_s(1, FEWEST_STEPS) + _closing(costs)) / (1 - RESERVE)) + 1


def spendable(costs: Costs, left_s: float) -> float:
    """Return the time left for trainings, without the reserve, registration, gate and report."""
    return left_s * (1 - RESERVE) - _closing(costs)


def _closing(costs: Costs) -> float:
    return 2 * costs.other_s  # half for the gate, which scores the test patients like a training; half for the rest


def _length(costs: Costs, seconds: float) -> tuple[int, int] | None:
    """Return the epochs and steps per epoch of a training that fits into a time; None if none fits."""
    for epochs in _EPOCHS:
        validating = (epochs - 1) * costs.validation_s
        if validating > VALIDATING * seconds:
            continue
        steps = min(ENOUGH, int((seconds - costs.training_s(epochs, 0)) / costs.step_s))
        if steps >= FEWEST_STEPS:
            return epochs, steps // epochs
    return None
