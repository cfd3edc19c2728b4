"""Confidence intervals of scores by bootstrap over patients."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
Interval = tuple[float, float]


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.floating[Any]],
    *,
    statistic: Literal["mean", "median"] = "mean",
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a mean or median over patients.

    Args:
        values: One for each patient; at least one.
        statistic: Of the values.
        level: Of confidence.
        seed: Of the resampling.

    Source: Efron 1979.
    """
    sample = np.asarray(values, dtype=np.float64)
    drawn = sample[np.random.default_rng(seed).integers(len(sample), size=(NUM_RESAMPLES, len(sample)))]
    estimates = np.mean(drawn, axis=1) if statistic == "mean" else np.median(drawn, axis=1)
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
