"""Drift: the distance of a study's intensities from those of the training cohort, by a few statistics per channel."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Mean and standard deviation of each statistic over the training cases, by channel and name.
InputStatistics = dict[str, dict[str, tuple[float, float]]]
# Share of a channel's contrast (its standard deviation in a usual training case) below which no difference is large:
# some statistics hardly vary within a cohort, such as the median of scans that are mostly background.
_LEAST_SPREAD = 0.1


def summarize_input(image: NDArray[np.floating[Any]], channels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation, median and 99th percentile of each channel of a prepared image (S, h, w, C)."""
    sample = np.asarray(image[:, ::4, ::4], np.float32)
    summary = {}
    for k, name in enumerate(channels):
        values = sample[..., k].ravel()
        median, high = np.percentile(values, [50, 99])
        summary[name] = {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "p50": float(median),
            "p99": float(high),
        }
    return summary


def fit_input_statistics(images: Iterable[NDArray[np.floating[Any]]], channels: Sequence[str]) -> InputStatistics:
    """Return mean and standard deviation of the statistics from `summarize_input` over the training cases."""
    summaries = [summarize_input(image, channels) for image in images]
    return {
        name: {key: _mean_and_deviation([summary[name][key] for summary in summaries]) for key in summaries[0][name]}
        for name in (channels if summaries else ())
    }


def measure_drift(
    summary: Mapping[str, Mapping[str, float]], statistics: Mapping[str, Mapping[str, tuple[float, float]]]
) -> dict[str, float]:
    """Return, for each channel, the largest distance of a statistic from its training mean, in standard deviations."""
    drift = {}
    for name, known in statistics.items():
        if name in summary and known:
            least = max(1e-3, _LEAST_SPREAD * known.get("std", (0.0, 0.0))[0])
            drift[name] = max(
                abs(summary[name][key] - mean) / max(spread, least) for key, (mean, spread) in known.items()
            )
    return drift


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))
