"""How a study's prepared image compares with the training cohort's: a few numbers per channel, and their distance."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Channel to name of a number to (mean, standard deviation) over the training cases.
InputStatistics = dict[str, dict[str, tuple[float, float]]]


def summarize_input(image: NDArray[np.floating[Any]], channels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return mean, deviation, median and 99th percentile of each channel of a prepared image (S, h, w, C)."""
    sample = np.asarray(image[:, ::4, ::4], np.float32)
    said = {}
    for k, name in enumerate(channels):
        values = sample[..., k].ravel()
        median, high = np.percentile(values, [50, 99])
        said[name] = {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "p50": float(median),
            "p99": float(high),
        }
    return said


def fit_input_statistics(images: Iterable[NDArray[np.floating[Any]]], channels: Sequence[str]) -> InputStatistics:
    """Return mean and deviation over the training cases of what `summarize_input` says of each."""
    found = [summarize_input(image, channels) for image in images]
    return {
        name: {key: _mean_and_deviation([said[name][key] for said in found]) for key in found[0][name]}
        for name in (channels if found else ())
    }


def measure_drift(
    summary: Mapping[str, Mapping[str, float]], statistics: Mapping[str, Mapping[str, tuple[float, float]]]
) -> dict[str, float]:
    """Return per channel how many deviations the farthest of its numbers lies from the training cases' mean."""
    return {
        name: max(abs(summary[name][key] - mean) / max(spread, 1e-3) for key, (mean, spread) in known.items())
        for name, known in statistics.items()
        if name in summary and known
    }


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))
