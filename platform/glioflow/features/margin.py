"""Irregularity of a flat shape's margin: Buda's two features of the boundary in one slice."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from skimage.measure import find_contours

Points = NDArray[np.float64]

# Longest outline that is followed, in sides of pixels: following takes 400 bytes for each, and no tumor has so many.
MAX_OUTLINE_SIDES = 2**18
NUM_BINS = 10
WINDOW = 0.1


def outline_sides(shape: NDArray[np.bool_]) -> int:
    """Return how many sides of a flat shape's pixels, (H, W), are on its outline, that of holes included."""
    padded = np.pad(shape, 1)
    return int(sum(np.count_nonzero(np.diff(padded, axis=axis)) for axis in (0, 1)))


def boundary_of(shape: NDArray[np.bool_]) -> Points:
    """Return the longest 0.5-level contour of a flat shape, its end point not repeated.

    Args:
        shape: At least one pixel set, (H, W).

    Returns:
        (N, 2) row and column in the pixels' coordinates (pixel centers at whole numbers).
    """
    contours = find_contours(np.pad(shape, 1).astype(np.float64), 0.5)
    return np.asarray(max(contours, key=len)[:-1] - 1.0, dtype=np.float64)


def _normalized_radii(boundary: Points, centroid: Points) -> NDArray[np.float64]:
    radii = np.linalg.norm(boundary - centroid, axis=1)
    return np.asarray(radii / radii.mean(), dtype=np.float64)


def angular_standard_deviation(boundary: Points, centroid: Points) -> float:
    """Return ASD: standard deviation of the normalized radius, averaged over ten equiangular bins (empty ones skipped).

    Args:
        boundary: (N, 2) row and column, in order.
        centroid: (2,) mean of the shape's pixels.

    Returns:
        Value >= 0, without unit; 0 for a circle.

    Source: Buda et al. 2019, as read in our domain notes.
    """
    radii = _normalized_radii(boundary, centroid)
    offsets = boundary - centroid
    angles = np.arctan2(offsets[:, 0], offsets[:, 1]) % (2 * np.pi)
    bins = np.minimum((NUM_BINS * angles / (2 * np.pi)).astype(int), NUM_BINS - 1)
    return float(np.mean([radii[bins == k].std() for k in np.unique(bins)]))


def margin_fluctuation(boundary: Points, centroid: Points) -> float:
    """Return MF: standard deviation of the normalized radius minus its moving average over a tenth of the boundary.

    Args:
        boundary: (N, 2) row and column, in order around the shape.
        centroid: (2,) mean of the shape's pixels.

    Returns:
        Value >= 0, without unit; 0 for a circle.

    Source: Buda et al. 2019, as read in our domain notes.
    """
    radii = _normalized_radii(boundary, centroid)
    length = max(1, round(WINDOW * len(radii)))
    length += length % 2 == 0
    return float(np.std(radii - uniform_filter1d(radii, length, mode="wrap")))
