"""What can be measured of a tumor from its mask, by name. Knows no cohort and no file."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.errors import UserError
from glioflow.evaluation.boxes import bounding_box
from glioflow.features import margin, solid
from glioflow.features.ellipsoid import bounding_ellipsoid_volume_ratio, hull_points, hull_vertices
from glioflow.features.flat import measure_slice, principal_std, spread_of_body

Spacing = tuple[float, float, float]

NO_TUMOR = "the mask is empty"
NO_SPACING = "needs the spacing of all three axes, which is unknown"
NO_PROBABILITY = "needs the probability map"
NO_BRAIN = "needs the brain, which was not found, or no image was given to find it in"

_PLACE = (
    "side",
    "midline_distance_px",
    "midline_distance_fraction",
    "brain_fraction",
    "brain_slice_fraction",
    "brain_row_fraction",
    "brain_column_fraction",
)
_SPREAD = (
    "centroid_slice",
    "centroid_row_px",
    "centroid_column_px",
    "coordinate_std_slice",
    "coordinate_std_row_px",
    "coordinate_std_column_px",
    "coordinate_std_major_mm",
    "coordinate_std_middle_mm",
    "coordinate_std_minor_mm",
)
_BOX = tuple(f"box_{axis}_{end}" for axis in ("slice", "row", "column") for end in ("start", "stop"))
_LARGEST = ("largest_component_px", "largest_slice", "largest_slice_area_px")
_MILLIMETERS = (*(name for name in _SPREAD if name.endswith("_mm")), *solid.NAMES)


class MaskFeatures(BaseModel):
    """Shape features of one mask.

    Attributes:
        volume: Features of the whole tumor; None where undefined.
        slices: The same for every slice with tumor, ascending, with its index under `slice`.
        undefined: Why a feature has no value, by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume: dict[str, float | None]
    slices: list[dict[str, float | int | None]]
    undefined: dict[str, str]


class RegionFeatures(BaseModel):
    """Shape features of each region of a labeled mask.

    Attributes:
        regions: Features by region.
        ratios: Volume of a region over that of a larger one, e.g. `et_to_wt`; None where the larger one is empty.
        undefined: Why a ratio has no value, by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: dict[str, MaskFeatures]
    ratios: dict[str, float | None]
    undefined: dict[str, str]


def measure_mask(
    mask: NDArray[np.bool_],
    *,
    spacing_mm: Spacing | None = None,
    probability: NDArray[np.floating] | None = None,
    brain: NDArray[np.bool_] | None = None,
) -> MaskFeatures:
    """Measure a tumor's mask, per slice and as a volume.

    All tumor voxels count together, except for `asd`, `mf` and `bevr`, which Buda et al. define on the largest
    26-connected component: `asd` and `mf` on the largest 8-connected part of its slice of largest area.

    Args:
        mask: (S, H, W); any value but 0 is tumor.
        spacing_mm: Distance of neighbors along S, H, W; None leaves what needs millimeters undefined.
        probability: (S, H, W) in [0, 1], for `probability_std`, its standard deviation over the whole slice or volume.
        brain: (S, H, W), for its position there: `data.brain_mask.locate_brain` of the image. `side` is -1 toward
            lower columns and 1 toward higher ones: which of them is the patient's left is not known to an array.

    Returns:
        Features with their units in the names; boxes are half-open; centroids and `coordinate_std` in array indices.

    Raises:
        UserError: If an array is not three-dimensional, the shapes differ or a spacing is not positive.
    """
    _check(mask, spacing_mm, probability, brain)
    mask = mask if mask.dtype == np.bool_ else mask != 0
    undefined = {"area_mm2": NO_SPACING} if spacing_mm is None else {}
    volume: dict[str, float | None] = {"volume_px": float(np.count_nonzero(mask))}
    volume["volume_mm3"] = None if spacing_mm is None else volume["volume_px"] * float(np.prod(spacing_mm))  # type: ignore[operator]
    doubt = None if probability is None else _deviations(probability)
    volume["probability_std"] = None if doubt is None else doubt[-1]
    if probability is None:
        undefined["probability_std"] = NO_PROBABILITY
    indices = [int(s) for s in np.flatnonzero(mask.any(axis=(1, 2)))]
    volume["num_slices_with_tumor"] = float(len(indices))
    if not indices:
        volume["num_components"] = 0.0
        missing = dict.fromkeys((*_LARGEST, *_BOX, *_SPREAD, *_PLACE, *solid.NAMES, "asd", "mf", "bevr"), NO_TUMOR)
    else:
        values = _measure_volume(mask, spacing_mm=spacing_mm)
        values |= dict.fromkeys(_PLACE) if brain is None else _place(mask, brain, values)
        missing = {name: _reason(name, spacing_mm, brain) for name, value in values.items() if value is None}
        volume |= values
    if spacing_mm is None:
        missing["volume_mm3"] = NO_SPACING
    volume |= dict.fromkeys(missing)
    pixel_mm2 = None if spacing_mm is None else spacing_mm[1] * spacing_mm[2]
    slices = [
        {
            "slice": s,
            **measure_slice(mask[s], pixel_mm2=pixel_mm2),
            "probability_std": None if doubt is None else doubt[s],
        }
        for s in indices
    ]
    return MaskFeatures(volume=volume, slices=slices, undefined=undefined | missing)


def measure_regions(
    labels: NDArray[np.integer],
    *,
    spacing_mm: Spacing | None = None,
    brain: NDArray[np.bool_] | None = None,
    regions: Mapping[str, tuple[int, ...]],
) -> RegionFeatures:
    """Measure each region of a labeled mask, and the ratios of their volumes.

    Args:
        labels: (S, H, W), 0 is background.
        spacing_mm: As in `measure_mask`.
        brain: As in `measure_mask`.
        regions: The labels that make up each region, the largest region first; see `label_schemes`. There is a ratio
            for each pair of which one lies in the other.

    Raises:
        UserError: As in `measure_mask`, or if the mask holds a label that no region has.
    """
    known = sorted({value for values in regions.values() for value in values})
    if unknown := sorted({int(value) for value in np.unique(labels)} - {0, *known}):
        raise UserError(
            f"a mask with the regions {', '.join(regions)} must hold only the labels {known}", f"labels {unknown[:8]}"
        )
    measured = {
        name: measure_mask(np.isin(labels, values), spacing_mm=spacing_mm, brain=brain)
        for name, values in regions.items()
    }
    names = list(regions)
    pairs = [
        (inner, outer)
        for i, outer in enumerate(names)
        for inner in names[i + 1 :]
        if set(regions[inner]) <= set(regions[outer])
    ]
    ratios: dict[str, float | None] = {}
    undefined: dict[str, str] = {}
    for inner, outer in pairs:
        name = f"{inner}_to_{outer}".lower()
        part, whole = measured[inner].volume["volume_px"], measured[outer].volume["volume_px"]
        ratios[name] = part / whole if part is not None and whole else None
        if not whole:
            undefined[name] = f"{outer} is empty"
    return RegionFeatures(regions=measured, ratios=ratios, undefined=undefined)


def _check(mask: NDArray[np.generic], spacing_mm: Spacing | None, *others: NDArray[np.generic] | None) -> None:
    if mask.ndim != 3:
        raise UserError("a mask must have three axes: slices, rows, columns", f"shape {mask.shape}")
    for other in others:
        if other is not None and other.shape != mask.shape:
            raise UserError(f"probability and brain must have the mask's shape {mask.shape}", other.shape)
    if spacing_mm is not None and not (len(spacing_mm) == 3 and all(np.isfinite(spacing_mm)) and min(spacing_mm) > 0):
        raise UserError("spacing_mm must be three positive numbers: along slices, rows, columns", spacing_mm)


def _reason(name: str, spacing_mm: Spacing | None, brain: NDArray[np.bool_] | None) -> str:
    if name in _PLACE:
        return NO_BRAIN if brain is None else "the brain mask is empty or one column wide"
    if name in _MILLIMETERS and spacing_mm is None:
        return NO_SPACING
    return "a single voxel has no axes"


def _measure_volume(mask: NDArray[np.bool_], *, spacing_mm: Spacing | None) -> dict[str, float | None]:
    from scipy import ndimage

    box = bounding_box(mask)
    body = mask[box]
    inner, covariance = spread_of_body(body)
    center = inner + np.array([extent.start for extent in box])
    components, number = ndimage.label(body, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    largest = body if number == 1 else components == sizes.argmax() + 1
    whole_areas = np.array([np.count_nonzero(one) for one in body])
    areas = whole_areas if number == 1 else np.array([np.count_nonzero(one) for one in largest])
    values: dict[str, float | None] = {"num_components": float(number), "largest_component_px": float(sizes.max())}
    values["largest_slice"] = float(whole_areas.argmax() + box[0].start)
    values["largest_slice_area_px"] = float(whole_areas.max())
    values |= dict(zip(_BOX, (float(end) for extent in box for end in (extent.start, extent.stop)), strict=True))
    spread: list[float | None] = [*map(float, center), *map(float, np.sqrt(np.diag(covariance))), None, None, None]
    if spacing_mm is not None:
        spread[-3:] = map(float, principal_std(covariance * np.outer(spacing_mm, spacing_mm)))
    values |= dict(zip(_SPREAD, spread, strict=True))
    vertices = hull_vertices(hull_points(body))
    bevr = bounding_ellipsoid_volume_ratio(largest, vertices if number == 1 else None)
    values |= _margin(largest[areas.argmax()]) | {"bevr": bevr}
    if spacing_mm is None:
        return values | dict.fromkeys(solid.NAMES)
    return values | solid.measure_body(body, covariance, vertices, spacing_mm=spacing_mm)


def _margin(shape: NDArray[np.bool_]) -> dict[str, float | None]:
    from scipy import ndimage

    parts, _ = ndimage.label(shape, np.ones((3, 3)))
    part = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    boundary, centroid = margin.boundary_of(part), np.argwhere(part).mean(axis=0)
    return {
        "asd": margin.angular_standard_deviation(boundary, centroid),
        "mf": margin.margin_fluctuation(boundary, centroid),
    }


def _deviations(probability: NDArray[np.floating]) -> list[float]:
    """Return the standard deviation of every slice and, last, of the volume."""
    import cv2

    pairs = [cv2.meanStdDev(np.ascontiguousarray(plane, np.float32)) for plane in probability]
    means, deviations = (np.array([pair[k].item() for pair in pairs]) for k in (0, 1))
    return [*deviations.tolist(), float(np.sqrt(np.mean(deviations**2) + np.var(means)))]


def _place(
    mask: NDArray[np.bool_], brain: NDArray[np.bool_], values: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Where the centroid lies in the brain; the midline is the column of the brain's own centroid."""
    brain = brain if brain.dtype == np.bool_ else brain != 0
    columns = brain.sum(axis=(0, 1))
    if np.count_nonzero(columns) < 2:
        return dict.fromkeys(_PLACE)
    center = [values["centroid_slice"], values["centroid_row_px"], values["centroid_column_px"]]
    box = bounding_box(brain)
    length = [max(extent.stop - 1 - extent.start, 1) for extent in box]
    offset = float(center[2] or 0.0) - float(np.average(np.arange(len(columns)), weights=columns))
    fractions = [(float(c or 0.0) - extent.start) / n for c, extent, n in zip(center, box, length, strict=True)]
    inside = float(np.count_nonzero(mask & brain)) / float(columns.sum())
    return dict(
        zip(_PLACE, [float(np.sign(offset)), offset, offset / (length[2] / 2), inside, *fractions], strict=True)
    )
