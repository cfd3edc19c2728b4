"""The share of patients still followed, and the weights of observed events that compensate for censoring."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glioflow.survival.outcome import Outcome

Array = NDArray[np.float64]


def censoring_weights(outcome: Outcome) -> Array:
    """Return (N,) weights of observed events that compensate for censoring: event / P(still followed just before it).

    Source: inverse probability of censoring weighting; the censoring distribution by Kaplan and Meier.
    """
    followed = followed_before(outcome, outcome.days)
    return np.where(outcome.event, 1 / np.maximum(followed, 1e-12), 0.0)


def followed_before(outcome: Outcome, days: Array) -> Array:
    """Return the probability of still being followed just before each of `days`, by Kaplan and Meier."""
    return _followed(outcome, days, side="left")


def followed_until(outcome: Outcome, days: Array) -> Array:
    """Return the probability of still being followed after each of `days`, by Kaplan and Meier."""
    return _followed(outcome, days, side="right")


def _followed(outcome: Outcome, days: Array, *, side: Literal["left", "right"]) -> Array:
    """Estimate the censoring distribution; patients who die on a day are not at risk of censoring that day."""
    times = np.unique(outcome.days)
    at_risk = len(outcome.days) - np.searchsorted(np.sort(outcome.days), times, side="left")
    died, lost = (
        np.array([np.count_nonzero(kind & (outcome.days == time)) for time in times])
        for kind in (outcome.event, ~outcome.event)
    )
    left = np.maximum(at_risk - died, 1)
    steps = np.concatenate([[1.0], np.cumprod(1 - lost / left)])
    return np.asarray(steps[np.searchsorted(times, days, side=side)], dtype=np.float64)
