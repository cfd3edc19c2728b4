"""Metrics of several masks of one patient: BraTS regions, or the classes of a multi-class task."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation.metrics import BoolVolume, Metrics, evaluate_case, iou_per_case
from glioflow.label_schemes import scheme_named

AVERAGED = ("dice", "iou", "hd95", "nsd")


def split_regions(labels: NDArray[np.integer[Any]], scheme: str) -> dict[str, BoolVolume]:
    """Return the regions that are scored on a data set.

    Args:
        labels: (S, H, W), with the data set's label values.
        scheme: Name in `label_schemes.SCHEMES`.

    Returns:
        By name, such as whole tumor `WT`, tumor core `TC`, enhancing tumor `ET`.
    """
    return {name: np.isin(labels, values) for name, values in scheme_named(scheme).regions.items()}


def evaluate_parts(
    predictions: Mapping[str, BoolVolume],
    references: Mapping[str, BoolVolume],
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    probabilities: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    tolerance: float = 1.0,
) -> Metrics:
    """Measure every part of one patient with `evaluate_case`.

    Args:
        predictions: By name, (S, H, W).
        references: By the same names, (S, H, W).
        spacing_mm: Along S, H, W, or None.
        probabilities: By name, (S, H, W).
        tolerance: Tolerance of the surface Dice.

    Returns:
        With one part, its metrics. With several parts: `dice_WT` and so on; `dice`, `iou`, `hd95`, `nsd` without a
        suffix are means over the parts, all others those of the union; `mean_iou` is over parts and background.
    """
    measured = {
        name: evaluate_case(
            predictions[name],
            reference,
            spacing_mm=spacing_mm,
            probability=None if probabilities is None else probabilities[name],
            tolerance=tolerance,
        )
        for name, reference in references.items()
    }
    if len(measured) == 1:
        return next(iter(measured.values()))
    predicted, true = (np.logical_or.reduce(list(parts.values())) for parts in (predictions, references))
    highest = None if probabilities is None else np.maximum.reduce(list(probabilities.values()))
    union = evaluate_case(predicted, true, spacing_mm=spacing_mm, probability=highest, tolerance=tolerance)
    means = {key: _mean(metrics[key] for metrics in measured.values()) for key in AVERAGED}
    mean_iou = _mean([iou_per_case(~predicted, ~true), *(metrics["iou"] for metrics in measured.values())])
    named = {f"{key}_{name}": value for name, metrics in measured.items() for key, value in metrics.items()}
    return {**union, **means, **named, "mean_iou": mean_iou}


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of a metric over the parts where it is defined; None if it is undefined in all."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
