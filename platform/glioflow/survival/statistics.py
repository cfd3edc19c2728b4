"""Scores of predictions as sums over patients or pairs of them, so that resampling costs one matrix product."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioflow.survival.censoring import followed_before, followed_until
from glioflow.survival.outcome import Outcome

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predictions for N patients.

    Attributes:
        risk: (N,) higher is worse.
        probability: (N,) probability of death, for `binary`.
        survival: (N, T) survival on the evaluation's grid of days, for `time`.
        days: (N,) predicted days, for `days`.
    """

    risk: Array
    probability: Array | None = None
    survival: Array | None = None
    days: Array | None = None


@dataclass(frozen=True)
class Statistic:
    """A ratio of two sums over patients, (N,), or over pairs of patients, (N, N)."""

    numerator: Array
    denominator: Array

    def value(self, counts: Array) -> Array:
        """Return (B,) values for (B, N) counts of each patient; NaN where undefined."""
        above, below = (_total(part, counts) for part in (self.numerator, self.denominator))
        return np.asarray(np.divide(above, below, out=np.full(len(counts), np.nan), where=below > 0), dtype=np.float64)


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Return the statistic of several repeats: their sums averaged."""
    return Statistic(
        np.mean([one.numerator for one in statistics], axis=0), np.mean([one.denominator for one in statistics], axis=0)
    )


def concordance(outcome: Outcome, risk: Array) -> Statistic:
    """Return Harrell's C-index, or the area under the ROC curve without times. Ties in risk count half."""
    if outcome.family == "binary":
        comparable = outcome.event[:, None] & ~outcome.event[None, :]
    else:
        sooner = outcome.days[:, None] < outcome.days[None, :]
        tied = (outcome.days[:, None] == outcome.days[None, :]) & ~outcome.event[None, :]
        comparable = outcome.event[:, None] & (sooner | tied)
    return _ordered(comparable.astype(np.float64), risk)


def auc_at(outcome: Outcome, risk: Array, day: float) -> Statistic:
    """Return the cumulative/dynamic AUC at a day: events until then against event-free, weighted for censoring.

    Source: Uno et al. 2007.
    """
    cases = np.where(outcome.event & (outcome.days <= day), 1 / _followed(outcome, outcome.days), 0.0)
    return _ordered(cases[:, None] * (outcome.days > day)[None, :], risk)


def brier(outcome: Outcome, probability: Array) -> Statistic:
    """Mean squared error of a probability of death."""
    return _mean((probability - outcome.event) ** 2)


def integrated_brier(outcome: Outcome, survival: Array, grid: Array) -> Statistic:
    """Brier score of (N, T) survival averaged over the grid of days, weighted for censoring.

    Source: Graf et al. 1999.
    """
    gone = outcome.event[:, None] & (outcome.days[:, None] <= grid[None, :])
    there = outcome.days[:, None] > grid[None, :]
    weights_gone = 1 / _followed(outcome, outcome.days)[:, None]
    weights_there = 1 / _followed(outcome, grid, until=True)[None, :]
    loss = gone * weights_gone * survival**2 + there * weights_there * (1 - survival) ** 2
    return _mean(np.trapezoid(loss, grid, axis=1) / (grid[-1] - grid[0]))


def survival_classes(days: Array, days_per_month: float) -> NDArray[np.int_]:
    """Return (N,) BraTS's classes: 0 under 10 months, 1 from 10 to 15, 2 over 15."""
    return (days >= 10 * days_per_month).astype(int) + (days > 15 * days_per_month)


def class_accuracy(outcome: Outcome, days: Array, days_per_month: float) -> Statistic:
    """Share of observed deaths whose class is right; censored patients have no class."""
    right = survival_classes(days, days_per_month) == survival_classes(outcome.days, days_per_month)
    return Statistic((right & outcome.event).astype(np.float64), outcome.event.astype(np.float64))


def squared_error(outcome: Outcome, days: Array) -> Statistic:
    """Mean squared error in days^2 over observed deaths."""
    return Statistic(np.where(outcome.event, (days - outcome.days) ** 2, 0.0), outcome.event.astype(np.float64))


def accuracy(outcome: Outcome, probability: Array) -> Statistic:
    """Share of patients on the right side of one half."""
    return _mean(((probability > 0.5) == outcome.event).astype(np.float64))


def _followed(outcome: Outcome, days: Array, *, until: bool = False) -> Array:
    followed = followed_until if until else followed_before
    return np.maximum(followed(outcome, days), 1 / len(outcome.days))


def _mean(loss: Array) -> Statistic:
    return Statistic(loss, np.ones_like(loss))


def _ordered(weights: Array, risk: Array) -> Statistic:
    above = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    return Statistic(weights * above, weights)


def _total(part: Array, counts: Array) -> Array:
    return np.asarray(counts @ part if part.ndim == 1 else ((counts @ part) * counts).sum(axis=1), dtype=np.float64)
