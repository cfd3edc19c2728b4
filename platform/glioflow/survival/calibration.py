"""Calibration of predicted probabilities against observed outcomes, with and without times."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from glioflow.survival.crossvalidation import kaplan_meier
from glioflow.survival.fitting import fit_cox
from glioflow.survival.outcome import Outcome
from glioflow.survival.settings import SurvivalSettings
from glioflow.survival.statistics import Prediction

Array = NDArray[np.float64]


def calibration(outcome: Outcome, probability: Array) -> dict[str, float]:
    """Return mean predicted minus observed share, and the outcome's slope on predicted log odds (ideal: 0, 1).

    The slope is NaN if it cannot be estimated: without differences, or if a threshold separates the outcomes, so that
    it has no maximum.
    """
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    odds = np.log(clipped / (1 - clipped))
    slope = float("nan")
    died, others = odds[outcome.event], odds[~outcome.event]
    if np.ptp(odds) > 1e-6 and died.min() < others.max() and died.max() > others.min():
        slope = float(LogisticRegression(C=np.inf).fit(odds[:, None], outcome.event).coef_[0, 0])
    return {"calibration_in_the_large": float(probability.mean() - outcome.event.mean()), "calibration_slope": slope}


def calibration_over_time(
    outcome: Outcome, prediction: Prediction, survival: Array, settings: SurvivalSettings, grid: Array
) -> dict[str, float]:
    """Return mean predicted minus observed share until each horizon, and the slope on the log hazard (ideal: 0, 1).

    The slope is NaN if it cannot be estimated: without differences, or if those who die are always the ones at the
    highest (or lowest) risk, so that it has no maximum.

    Source: van Houwelingen 2000, validation of a survival model by calibration.
    """
    horizons = np.array([day for day in settings.horizons_days if grid[0] <= day <= grid[-1]])
    observed = 1 - kaplan_meier(outcome, horizons) if len(horizons) else ()
    in_the_large = {
        f"calibration_in_the_large_{day:g}_days": float(np.mean([1 - np.interp(day, grid, row) for row in survival]))
        - share
        for day, share in zip(horizons, observed, strict=True)
    }
    middle = np.clip(survival[:, len(grid) // 2], 1e-6, 1 - 1e-6)
    hazard = np.log(-np.log(middle))
    slope = float("nan")
    if np.ptp(prediction.risk) > 0 and np.ptp(hazard) > 1e-6 and not _is_monotone(hazard, outcome):
        slope = fit_cox((hazard - hazard.mean())[:, None], outcome, 1e-6, 0).coefficients[0]
    return in_the_large | {"calibration_slope": slope}


def _is_monotone(hazard: Array, outcome: Outcome) -> bool:
    """Return whether each who dies has the highest risk of all who live until then, or each the lowest."""
    at_risk = [hazard[outcome.days >= day] for day in outcome.days[outcome.event]]
    died = hazard[outcome.event]
    highest = all(own >= each.max() for own, each in zip(died, at_risk, strict=True))
    return highest or all(own <= each.min() for own, each in zip(died, at_risk, strict=True))
