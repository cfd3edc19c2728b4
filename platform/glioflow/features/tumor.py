"""Features of a whole tumor: extent, spread, margin, position in the brain."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from glioflow.evaluation.boxes import bounding_box
from glioflow.features import margin, solid
from glioflow.features.ellipsoid import bounding_ellipsoid_volume_ratio, hull_points, hull_vertices
from glioflow.features.flat import principal_std, spread_of_body
from glioflow.features.names import BOX, POSITION, SOLID, SPREAD

Spacing = tuple[float, float, float]
Values = dict[str, float | None]


def measure_volume(mask: NDArray[np.bool_], *, spacing_mm: Spacing | None) -> Values:
    """Return all features of a tumor with at least one voxel, (S, H, W), that need neither image nor brain."""
    box = bounding_box(mask)
    body = mask[box]
    inner, covariance = spread_of_body(body)
    center = inner + np.array([extent.start for extent in box])
    components, number = ndimage.label(body, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    largest = body if number == 1 else components == sizes.argmax() + 1
    whole_areas = np.array([np.count_nonzero(one) for one in body])
    areas = whole_areas if number == 1 else np.array([np.count_nonzero(one) for one in largest])
    values: Values = {"num_components": float(number), "largest_component_px": float(sizes.max())}
    values["largest_slice"] = float(whole_areas.argmax() + box[0].start)
    values["largest_slice_area_px"] = float(whole_areas.max())
    values |= dict(zip(BOX, (float(end) for extent in box for end in (extent.start, extent.stop)), strict=True))
    spread: list[float | None] = [*map(float, center), *map(float, np.sqrt(np.diag(covariance))), None, None, None]
    if spacing_mm is not None:
        spread[-3:] = map(float, principal_std(covariance * np.outer(spacing_mm, spacing_mm)))
    values |= dict(zip(SPREAD, spread, strict=True))
    vertices = hull_vertices(hull_points(body))
    bevr = bounding_ellipsoid_volume_ratio(largest, vertices if number == 1 else None)
    values |= _margin(largest[areas.argmax()]) | {"bevr": bevr}
    if spacing_mm is None:
        return values | dict.fromkeys(SOLID)
    return values | solid.measure_body(body, covariance, vertices, spacing_mm=spacing_mm)


def _margin(shape: NDArray[np.bool_]) -> Values:
    parts, _ = ndimage.label(shape, np.ones((3, 3)))
    part = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    if margin.outline_sides(part) > margin.MAX_OUTLINE_SIDES:
        return {"asd": None, "mf": None}
    boundary, centroid = margin.boundary_of(part), np.argwhere(part).mean(axis=0)
    return {
        "asd": margin.angular_standard_deviation(boundary, centroid),
        "mf": margin.margin_fluctuation(boundary, centroid),
    }


def deviations(probability: NDArray[np.floating]) -> list[float]:
    """Return the standard deviation of every slice and, last, of the volume."""
    pairs = [cv2.meanStdDev(np.ascontiguousarray(plane, np.float32)) for plane in probability]
    means, deviations = (np.array([pair[k].item() for pair in pairs]) for k in (0, 1))
    return [*deviations.tolist(), float(np.sqrt(np.mean(deviations**2) + np.var(means)))]


def locate_in_brain(mask: NDArray[np.bool_], brain: NDArray[np.bool_], values: Mapping[str, float | None]) -> Values:
    """Return the position of the centroid in the brain; the midline is the column of the brain's centroid."""
    brain = brain if brain.dtype == np.bool_ else brain != 0
    columns = brain.sum(axis=(0, 1))
    if np.count_nonzero(columns) < 2:
        return dict.fromkeys(POSITION)
    center = [values["centroid_slice"], values["centroid_row_px"], values["centroid_column_px"]]
    box = bounding_box(brain)
    length = [max(extent.stop - 1 - extent.start, 1) for extent in box]
    offset = float(center[2] or 0.0) - float(np.average(np.arange(len(columns)), weights=columns))
    fractions = [(float(c or 0.0) - extent.start) / n for c, extent, n in zip(center, box, length, strict=True)]
    inside = float(np.count_nonzero(mask & brain)) / float(columns.sum())
    return dict(
        zip(POSITION, [float(np.sign(offset)), offset, offset / (length[2] / 2), inside, *fractions], strict=True)
    )
