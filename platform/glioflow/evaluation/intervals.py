"""Confidence intervals of scores by bootstrap over patients."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
# Numbers drawn at a time: all resamples of a million patients would fill 30 GB.
_AT_ONCE = 2**22
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
        statistic: Statistic of the values.
        level: Confidence level.
        seed: Seed of the resampling.

    Source: Efron 1979.
    """
    sample = np.asarray(values, dtype=np.float64)
    rng, reduce = np.random.default_rng(seed), np.mean if statistic == "mean" else np.median
    rows = max(1, _AT_ONCE // len(sample))
    parts = [
        reduce(sample[rng.integers(len(sample), size=(min(rows, NUM_RESAMPLES - done), len(sample)))], axis=1)
        for done in range(0, NUM_RESAMPLES, rows)
    ]
    estimates = np.concatenate(parts)
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
