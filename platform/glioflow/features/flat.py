"""Shape of the tumor in one slice: area, position, spread, outline."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import perimeter_crofton

from glioflow.evaluation.boxes import bounding_box
from glioflow.features.ellipsoid import row_ends

Values = dict[str, float | int | None]


def spread_of_body(body: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and population covariance of the coordinates of a body's voxels, from its sums along the axes.

    Args:
        body: At least one voxel set; two or three axes.

    Returns:
        (D,) and (D, D), in voxels, D the number of axes.
    """
    axes = range(body.ndim)
    planes = {
        (i, j): body.sum(axis=tuple(k for k in axes if k not in (i, j)), dtype=np.float64)
        for i in axes
        for j in axes[i + 1 :]
    }
    lines = [planes[0, 1].sum(axis=1), *(planes[0, j].sum(axis=0) for j in axes[1:])]
    total = lines[0].sum()
    center = np.array([np.arange(len(line)) @ line / total for line in lines])
    offsets = [np.arange(len(line)) - mean for line, mean in zip(lines, center, strict=True)]
    covariance = np.diag([offset**2 @ line / total for offset, line in zip(offsets, lines, strict=True)])
    for (i, j), plane in planes.items():
        covariance[i, j] = covariance[j, i] = offsets[i] @ plane @ offsets[j] / total
    return center, covariance


def principal_std(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviations along the principal axes, largest first."""
    return np.asarray(np.sqrt(np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None)), dtype=np.float64)


def hull_area(shape: NDArray[np.bool_]) -> float:
    """Return the area in pixels of the convex hull of a flat shape's pixel corners."""
    return float(cv2.contourArea(cv2.convexHull(row_ends(shape))))


def measure_slice(shape: NDArray[np.bool_], *, pixel_mm2: float | None = None) -> Values:
    """Measure all tumor pixels of one slice together.

    Args:
        shape: At least one pixel set, (H, W).
        pixel_mm2: Area of one pixel; None if the spacing is unknown, which makes `area_mm2` None.

    Returns:
        `area_px`, `area_mm2`; `centroid_row_px`, `centroid_column_px`; `coordinate_std_row_px`, `..._column_px` and,
        along the principal axes, `..._major_px`, `..._minor_px`; the half-open box `box_row_start_px`,
        `box_row_stop_px`, `box_column_start_px`, `box_column_stop_px`; `eccentricity` in [0, 1) of the ellipse with the
        same second moments (each pixel a square); `solidity` in (0, 1], area over the hull of the pixels' corners;
        `perimeter_px` (Crofton, four directions); `compactness`, 4 pi area / perimeter^2, which is 1 for a large disk;
        `num_components`, 8-connected.
    """
    rows, columns = bounding_box(shape)
    box = shape[rows, columns]
    area = int(np.count_nonzero(box))
    inner, covariance = spread_of_body(box)
    centroid = inner + np.array([rows.start, columns.start])
    major, minor = principal_std(covariance)
    axes = principal_std(covariance + np.eye(2) / 12)
    perimeter = float(perimeter_crofton(np.pad(box, 1), directions=4))
    return {
        "area_px": area,
        "area_mm2": None if pixel_mm2 is None else area * pixel_mm2,
        "centroid_row_px": float(centroid[0]),
        "centroid_column_px": float(centroid[1]),
        "coordinate_std_row_px": float(np.sqrt(covariance[0, 0])),
        "coordinate_std_column_px": float(np.sqrt(covariance[1, 1])),
        "coordinate_std_major_px": float(major),
        "coordinate_std_minor_px": float(minor),
        "box_row_start_px": rows.start,
        "box_row_stop_px": rows.stop,
        "box_column_start_px": columns.start,
        "box_column_stop_px": columns.stop,
        "eccentricity": float(np.sqrt(max(0.0, 1 - (axes[1] / axes[0]) ** 2))),
        "solidity": min(1.0, area / hull_area(box)),
        "perimeter_px": perimeter,
        "compactness": 4 * np.pi * area / perimeter**2,
        "num_components": int(ndimage.label(box, np.ones((3, 3)))[1]),
    }
