"""Distances between the surfaces of two masks: HD95 and normalized surface Dice, in 3D or slice by slice.

A surface voxel is a voxel of the mask with a face neighbor outside; the outside of the image counts as outside.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation.boxes import bounding_box

BoolVolume = NDArray[np.bool_]
Distances = NDArray[np.float64]


@dataclass(frozen=True)
class SurfaceScores:
    """HD95 in the unit of the spacing, and the normalized surface Dice (NSD) in [0, 1]."""

    hd95: float
    nsd: float


def surface_scores(
    prediction: BoolVolume, reference: BoolVolume, *, spacing: tuple[float, ...], tolerance: float
) -> SurfaceScores:
    """Compare two surfaces.

    Args:
        prediction: A mask with any number of axes.
        reference: A mask of the same shape.
        spacing: Distance between neighbors along each axis.
        tolerance: Distance up to which a surface voxel counts as correct, in the unit of the spacing.

    Returns:
        HD95, the larger of the two directed 95th percentiles; NSD, the fraction of both surfaces within the tolerance.
        If both are empty: 0 and 1. If one is empty: the diagonal of the image and 0.

    Source: Maier-Hein et al., Metrics Reloaded, 2024; empty rule of the BraTS evaluation (373.13 for 240x240x155).
    """
    if not prediction.any() and not reference.any():
        return SurfaceScores(0.0, 1.0)
    if not prediction.any() or not reference.any():
        diagonal = math.hypot(*(extent * step for extent, step in zip(prediction.shape, spacing, strict=True)))
        return SurfaceScores(diagonal, 0.0)
    there, back = _distances(surface_points(prediction), surface_points(reference), spacing)
    hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    # A distance equal to the tolerance must count in any orientation, regardless of rounding of its root.
    reach = tolerance * (1 + 1e-6)
    within = np.count_nonzero(there <= reach) + np.count_nonzero(back <= reach)
    return SurfaceScores(hd95, float(within / (len(there) + len(back))))


@dataclass(frozen=True)
class InplaneScores:
    """HD95 in pixels, None if no slice has tumor in both masks; NSD; and the number of slices with tumor in one."""

    hd95: float | None
    nsd: float
    one_sided: int


def inplane_surface_scores(prediction: BoolVolume, reference: BoolVolume, *, tolerance_px: float) -> InplaneScores:
    """Compare surfaces slice by slice, for volumes whose distance between slices is unknown.

    Args:
        prediction: (S, H, W).
        reference: (S, H, W).
        tolerance_px: Tolerance of the NSD.

    Returns:
        The mean HD95 over the slices where both masks have tumor, and the mean NSD over those where either has;
        there, a slice with tumor in only one mask counts 0. Without any tumor: 0 and 1.
    """
    predicted, true = prediction.any(axis=(1, 2)), reference.any(axis=(1, 2))
    either, both = int(np.count_nonzero(predicted | true)), np.flatnonzero(predicted & true)
    if not either:
        return InplaneScores(0.0, 1.0, 0)
    scores = [surface_scores(prediction[s], reference[s], spacing=(1.0, 1.0), tolerance=tolerance_px) for s in both]
    hd95 = float(np.mean([score.hd95 for score in scores])) if scores else None
    return InplaneScores(hd95, sum(score.nsd for score in scores) / either, either - len(both))


def surface_points(mask: BoolVolume) -> NDArray[np.intp]:
    """Return the indices of the mask's surface voxels, (N, axes)."""
    box = bounding_box(mask)
    padded = np.pad(mask[box], 1)
    core = tuple(slice(1, -1) for _ in box)
    inner = padded[core].copy()
    for axis in range(mask.ndim):
        for shifted in (slice(None, -2), slice(2, None)):
            inner &= padded[(*core[:axis], shifted, *core[axis + 1 :])]
    points: NDArray[np.intp] = np.argwhere(padded[core] & ~inner) + np.array([part.start for part in box])
    return points


def _distances(
    first: NDArray[np.intp], second: NDArray[np.intp], spacing: tuple[float, ...]
) -> tuple[Distances, Distances]:
    """Return the distance of each point of either set to the nearest point of the other."""
    from scipy.spatial import KDTree

    a, b = first * np.asarray(spacing), second * np.asarray(spacing)
    there: Distances = KDTree(b, balanced_tree=False).query(a)[0]
    back: Distances = KDTree(a, balanced_tree=False).query(b)[0]
    return there, back
