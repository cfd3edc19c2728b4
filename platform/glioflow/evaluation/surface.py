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
    """HD95 in the unit of the spacing, and the normalized surface Dice in [0, 1]."""

    hd95: float
    nsd: float


def surface_scores(
    prediction: BoolVolume, reference: BoolVolume, *, spacing: tuple[float, ...], tolerance: float
) -> SurfaceScores:
    """Compare two surfaces.

    Args:
        prediction: Any number of axes.
        reference: Same shape.
        spacing: Distance of neighbors along each axis.
        tolerance: Up to which distance a surface voxel counts as right, in the spacing's unit.

    Returns:
        HD95, the larger of the two directed 95th percentiles; NSD, the part of both surfaces within the tolerance. Both
        empty: 0 and 1. One empty: the image's diagonal and 0.

    Source: Maier-Hein et al., Metrics Reloaded, 2024; empty rule of the BraTS evaluation (373.13 for 240x240x155).
    """
    if not prediction.any() and not reference.any():
        return SurfaceScores(0.0, 1.0)
    if not prediction.any() or not reference.any():
        diagonal = math.hypot(*(extent * step for extent, step in zip(prediction.shape, spacing, strict=True)))
        return SurfaceScores(diagonal, 0.0)
    there, back = _distances(surface_points(prediction), surface_points(reference), spacing)
    hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    within = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
    return SurfaceScores(hd95, float(within / (len(there) + len(back))))


def inplane_surface_scores(prediction: BoolVolume, reference: BoolVolume, *, tolerance_px: float) -> SurfaceScores:
    """Compare surfaces slice by slice, for volumes whose slice spacing nobody knows.

    Args:
        prediction: (S, H, W).
        reference: (S, H, W).
        tolerance_px: Of the NSD.

    Returns:
        Means of the slices' HD95 in pixels and NSD over the slices where either mask has tumor; a slice in which only
        one has it counts with the slice's diagonal and 0. Without any such slice: 0 and 1.
    """
    slices = np.flatnonzero((prediction | reference).any(axis=(1, 2)))
    if not slices.size:
        return SurfaceScores(0.0, 1.0)
    scores = [surface_scores(prediction[s], reference[s], spacing=(1.0, 1.0), tolerance=tolerance_px) for s in slices]
    hd95, nsd = ([getattr(score, name) for score in scores] for name in ("hd95", "nsd"))
    return SurfaceScores(float(np.mean(hd95)), float(np.mean(nsd)))


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
    """Return each point's distance to the nearest point of the other set, both ways."""
    from scipy.spatial import KDTree

    a, b = first * np.asarray(spacing), second * np.asarray(spacing)
    there: Distances = KDTree(b, balanced_tree=False).query(a)[0]
    back: Distances = KDTree(a, balanced_tree=False).query(b)[0]
    return there, back
