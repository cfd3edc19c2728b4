"""What is computed of a mask, beside plain ways to compute a part of it.

Run: python benchmarks/measures.py [--rounds 5]

features  `measure_mask` of an invented tumor with its probabilities, beside scikit-image's `regionprops_table` of the
          same mask (volume, box, centroid, axes, solidity), which has no margin, ellipsoid or spread.
metrics   `evaluate_case` of two invented masks, beside Dice and HD95 by distance transforms of the whole volume.

In turn, in one process; milliseconds of CPU, medians of rounds. Writes what it found to measures.md beside this file.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import first_lines
from numpy.typing import NDArray

from glioflow.evaluation.metrics import evaluate_case
from glioflow.features import measure_mask

SHAPES = ((1, 256, 256), (60, 256, 256), (155, 240, 240))
Mask = NDArray[np.bool_]


def blob(shape: tuple[int, ...], shift: int = 0) -> Mask:
    """Return an ellipsoid with a rough surface."""
    grid = np.indices(shape) - (np.array(shape) / 2 + [0, shift, -shift])[:, None, None, None]
    radii = np.array([max(1.0, shape[0] * 0.2), 40, 35])[:, None, None, None]
    return np.asarray(((grid / radii) ** 2).sum(axis=0) + 0.2 * np.random.default_rng(0).random(shape) <= 1)


def plain_features(mask: Mask) -> Any:
    """Measure with scikit-image."""
    from skimage.measure import regionprops_table

    plane = mask[0] if mask.shape[0] == 1 else mask
    names = ("area", "bbox", "centroid", "axis_major_length", "axis_minor_length", "solidity")
    return regionprops_table(plane.astype(np.uint8), properties=names)


def plain_metrics(found: Mask, true: Mask) -> tuple[float, float]:
    """Return Dice and HD95."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    edges = [mask & ~binary_erosion(mask) for mask in (found, true)]
    ways = [distance_transform_edt(~edge)[other] for edge, other in zip(edges, reversed(edges), strict=True)]
    dice = 2 * (found & true).sum() / (found.sum() + true.sum())
    return float(dice), float(max(np.percentile(way, 95) for way in ways))


def medians(ways: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the median milliseconds of CPU of each way, called in turn."""
    times: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way, found in zip(ways, times, strict=True):
            began = time.process_time()
            way()
            if number:
                found.append((time.process_time() - began) * 1000)
    return [statistics.median(found) for found in times]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    said = parser.parse_args()
    load, began = os.getloadavg()[0], time.monotonic()
    lines = [
        "| shape | features, ms of CPU | regionprops_table | metrics | Dice and HD95 alone |",
        "|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        true, found = blob(shape), blob(shape, 5)
        probability = true.astype(np.float32)
        values = medians(
            [
                lambda m=true, p=probability: measure_mask(m, spacing_mm=(1, 1, 1), probability=p),
                lambda m=true: plain_features(m),
                lambda f=found, t=true: evaluate_case(f, t, spacing_mm=(1, 1, 1)),
                lambda f=found, t=true: plain_metrics(f, t),
            ],
            said.rounds,
        )
        lines.append(f"| {' x '.join(map(str, shape))} | {' | '.join(f'{value:.1f}' for value in values)} |")
    text = "\n".join([*first_lines("Features and metrics", (time.monotonic() - began) / 60, load), *lines, ""])
    print(text)
    Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
