"""All metrics of one patient's segmentation. Independent of cohorts and networks; undefined metrics are None."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation.boxes import bounding_box
from glioflow.evaluation.lesions import detect_lesions
from glioflow.evaluation.surface import inplane_surface_scores, surface_scores

BoolVolume = NDArray[np.bool_]
Metrics = dict[str, float | None]


def dice_per_case(prediction: BoolVolume, reference: BoolVolume) -> float:
    """Dice coefficient of one case, over the whole volume.

    Args:
        prediction: Thresholded mask in the reference's geometry, (S, H, W).
        reference: Ground truth, same shape.

    Returns:
        Value in [0, 1]; 1.0 if both are empty (`summarize` counts these cases as `num_empty_both`).

    Raises:
        ValueError: If the shapes differ.

    Source: Dice 1945; empty-case convention as in the BraTS evaluation.
    """
    _check_shapes(prediction, reference)
    return dice_of_counts(count(prediction & reference), count(prediction) + count(reference))


def dice_of_counts(both: float, total: float) -> float:
    """Return the Dice coefficient from `both`, the voxels in both masks, and `total`, the sum of their voxels."""
    return 2 * both / total if total else 1.0


def iou_per_case(prediction: BoolVolume, reference: BoolVolume) -> float:
    """Return the intersection over union of two masks of the same shape; 1.0 if both are empty."""
    return iou_of_counts(count(prediction & reference), count(prediction | reference))


def iou_of_counts(both: float, either: float) -> float:
    """Return the intersection over union from the numbers of voxels in both masks and in either; 1.0 if both are 0."""
    return both / either if either else 1.0


def evaluate_case(
    prediction: BoolVolume,
    reference: BoolVolume,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    probability: NDArray[np.floating[Any]] | None = None,
    tolerance: float = 1.0,
) -> Metrics:
    """Measure one patient in the original geometry.

    Args:
        prediction: (S, H, W), post-processed.
        reference: (S, H, W).
        spacing_mm: Along S, H, W. None: the distance between slices is unknown, so surfaces are compared slice by slice
            (`hd95_inplane_px`) and volumes are counted in voxels.
        probability: (S, H, W) in [0, 1]; without it slices are not ranked.
        tolerance: Tolerance of the surface Dice, in mm or px; part of its name.

    Returns:
        Overlap: `dice`, `iou` (both empty: 1), `precision`, `sensitivity` (None over nothing), `specificity`,
        `accuracy`; the counts `num_true_positive` and so on. Surfaces: `hd95` and `nsd`, and the same under the full
        names `hd95_mm`, `nsd_1mm` or `hd95_inplane_px`, `nsd_inplane_1px`; `hd95_inplane_px` uses the slices where
        both have tumor; `num_one_sided_slices` counts those where only one has. Volumes: `volume_*`. Lesions: see
        `detect_lesions`. Slices: see `evaluate_slices`. `empty_prediction` and `empty_reference` are 1 or 0.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_shapes(prediction, reference)
    prediction, reference = prediction.astype(bool, copy=False), reference.astype(bool, copy=False)
    box = bounding_box(prediction | reference)
    return {
        **_overlap(prediction, reference),
        **_surfaces(prediction, reference, spacing_mm, tolerance),
        **_volumes(prediction, reference, spacing_mm),
        **detect_lesions(prediction[box], reference[box]),
        **evaluate_slices(prediction, reference, probability=probability),
        "empty_prediction": float(not prediction.any()),
        "empty_reference": float(not reference.any()),
    }


def overlap_metrics(*, tp: float, fp: float, fn: float, tn: float) -> Metrics:
    """Return the metrics that follow from the four counts; Dice and IoU are 1 where both masks are empty."""
    return {
        "dice": dice_of_counts(tp, 2 * tp + fp + fn),
        "iou": iou_of_counts(tp, tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
    }


def count(mask: NDArray[Any]) -> int:
    """Return the number of nonzero entries."""
    return int(np.count_nonzero(mask))


def ratio(part: float, whole: float) -> float | None:
    """Return part / whole; None if the whole is 0."""
    return part / whole if whole else None


def evaluate_slices(
    prediction: BoolVolume, reference: BoolVolume, *, probability: NDArray[np.floating[Any]] | None = None
) -> Metrics:
    """Measure each slice individually, separately for slices with and without tumor.

    Args:
        prediction: (S, H, W).
        reference: (S, H, W).
        probability: (S, H, W); the score of a slice is its highest probability.

    Returns:
        `dice_tumor_slices`, `iou_tumor_slices`: mean over the slices with tumor. `iou_tumor_free_slices`: mean over the
        others, where a slice counts 1 without prediction and 0 with one. `slice_sensitivity`: fraction of the tumor
        slices with a prediction. `false_positive_slice_rate`: fraction of the tumor-free slices with one. The counts of
        both. `slice_auroc`, and `study_score`, the highest probability of all slices.
    """
    axes = (1, 2)
    both = np.count_nonzero(prediction & reference, axis=axes)
    either = np.count_nonzero(prediction | reference, axis=axes)
    tumor, predicted = np.asarray(reference.any(axis=axes)), np.asarray(prediction.any(axis=axes))
    iou = both[tumor] / either[tumor]
    false_positives = count(predicted & ~tumor)
    rate = ratio(false_positives, count(~tumor))
    metrics: Metrics = {
        "num_slices": float(len(tumor)),
        "num_tumor_slices": float(count(tumor)),
        "num_tumor_slices_found": float(count(predicted & tumor)),
        "num_false_positive_slices": float(false_positives),
        "dice_tumor_slices": float(np.mean(2 * iou / (1 + iou))) if tumor.any() else None,
        "iou_tumor_slices": float(np.mean(iou)) if tumor.any() else None,
        "iou_tumor_free_slices": None if rate is None else 1 - rate,
        "slice_sensitivity": ratio(count(predicted & tumor), count(tumor)),
        "false_positive_slice_rate": rate,
    }
    if probability is not None:
        scores = probability.max(axis=axes)
        metrics["slice_auroc"] = auroc(scores, tumor)
        metrics["study_score"] = float(scores.max())
    return metrics


def auroc(scores: NDArray[np.floating[Any]], truths: NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve, ties counted half; None if all truths are equal.

    Source: Mann and Whitney 1947.
    """
    from scipy.stats import rankdata

    positives = count(truths)
    negatives = len(truths) - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(scores)[truths].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def _check_shapes(prediction: BoolVolume, reference: BoolVolume) -> None:
    if prediction.shape != reference.shape:
        rule = "prediction and reference must have the same shape"
        raise ValueError(f"{rule}; got {prediction.shape} and {reference.shape}")


def _overlap(prediction: BoolVolume, reference: BoolVolume) -> Metrics:
    tp = count(prediction & reference)
    fp, fn = count(prediction) - tp, count(reference) - tp
    tn = prediction.size - tp - fp - fn
    names = ("num_true_positive", "num_false_positive", "num_false_negative", "num_true_negative")
    return overlap_metrics(tp=tp, fp=fp, fn=fn, tn=tn) | dict(zip(names, map(float, (tp, fp, fn, tn)), strict=True))


def _surfaces(
    prediction: BoolVolume, reference: BoolVolume, spacing_mm: tuple[float, ...] | None, tolerance: float
) -> Metrics:
    if spacing_mm is None:
        flat = inplane_surface_scores(prediction, reference, tolerance_px=tolerance)
        hd95, nsd, sided = flat.hd95, flat.nsd, {"num_one_sided_slices": float(flat.one_sided)}
        names = ("hd95_inplane_px", f"nsd_inplane_{tolerance:g}px")
    else:
        solid = surface_scores(prediction, reference, spacing=spacing_mm, tolerance=tolerance)
        hd95, nsd, sided = solid.hd95, solid.nsd, {}
        names = ("hd95_mm", f"nsd_{tolerance:g}mm")
    return {"hd95": hd95, "nsd": nsd, names[0]: hd95, names[1]: nsd, **sided}


def _volumes(prediction: BoolVolume, reference: BoolVolume, spacing_mm: tuple[float, ...] | None) -> Metrics:
    unit, size = ("px", 1.0) if spacing_mm is None else ("mm3", float(np.prod(spacing_mm)))
    predicted, true = (count(mask) * size for mask in (prediction, reference))
    return {
        f"volume_prediction_{unit}": predicted,
        f"volume_reference_{unit}": true,
        f"volume_error_{unit}": predicted - true,
        "volume_error_relative": ratio(predicted - true, true),
    }
