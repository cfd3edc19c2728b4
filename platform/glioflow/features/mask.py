"""Shape features of a tumor's mask by name, with the reasons for undefined ones. Independent of cohorts and files."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.errors import UserError
from glioflow.features.names import BOX, LARGEST, MILLIMETERS, POSITION, SOLID, SPREAD

Spacing = tuple[float, float, float]

NO_TUMOR = "the mask is empty"
NO_SPACING = "needs the spacing of all three axes, which is unknown"
NO_PROBABILITY = "needs the probability map"
NO_BRAIN = "needs the brain, which was not found, or no image was given to find it in"


class MaskFeatures(BaseModel):
    """Shape features of one mask.

    Attributes:
        volume: Features of the whole tumor; None where undefined.
        slices: The same for every slice with tumor, ascending, with its index under `slice`.
        undefined: Reason why a feature has no value, by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume: dict[str, float | None]
    slices: list[dict[str, float | int | None]]
    undefined: dict[str, str]


class RegionFeatures(BaseModel):
    """Shape features of each region of a labeled mask.

    Attributes:
        regions: Features by region.
        ratios: Volume of a region over that of a larger one, e.g. `et_to_wt`; None if the larger one is empty.
        undefined: Reason why a ratio has no value, by its name.
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
        spacing_mm: Distance of neighbors along S, H, W; None leaves features in millimeters undefined.
        probability: (S, H, W) in [0, 1], for `probability_std`, its standard deviation over the whole slice or volume.
        brain: (S, H, W), for its position there: `data.brain_mask.locate_brain` of the image. `side` is -1 toward
            lower columns and 1 toward higher ones: an array does not state which is the patient's left.

    Returns:
        Features with their units in the names; boxes are half-open; centroids and `coordinate_std` in array indices.

    Raises:
        UserError: If an array is not three-dimensional, the shapes differ or a spacing is not positive.
    """
    from glioflow.features import tumor
    from glioflow.features.flat import measure_slice

    _check(mask, spacing_mm, probability, brain)
    mask = mask if mask.dtype == np.bool_ else mask != 0
    undefined = {"area_mm2": NO_SPACING} if spacing_mm is None else {}
    volume: dict[str, float | None] = {"volume_px": float(np.count_nonzero(mask))}
    volume["volume_mm3"] = None if spacing_mm is None else volume["volume_px"] * float(np.prod(spacing_mm))  # type: ignore[operator]
    doubt = None if probability is None else tumor.deviations(probability)
    volume["probability_std"] = None if doubt is None else doubt[-1]
    if probability is None:
        undefined["probability_std"] = NO_PROBABILITY
    indices = [int(s) for s in np.flatnonzero(mask.any(axis=(1, 2)))]
    volume["num_slices_with_tumor"] = float(len(indices))
    if not indices:
        volume["num_components"] = 0.0
        missing = dict.fromkeys((*LARGEST, *BOX, *SPREAD, *POSITION, *SOLID, "asd", "mf", "bevr"), NO_TUMOR)
    else:
        values = tumor.measure_volume(mask, spacing_mm=spacing_mm)
        values |= dict.fromkeys(POSITION) if brain is None else tumor.locate_in_brain(mask, brain, values)
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
            for each pair in which one contains the other.

    Raises:
        UserError: As in `measure_mask`, or if the mask holds a label that is in no region.
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
    if name in POSITION:
        return NO_BRAIN if brain is None else "the brain mask is empty or one column wide"
    if name in MILLIMETERS and spacing_mm is None:
        return NO_SPACING
    if name in ("asd", "mf"):
        return "the outline is too ragged to be followed"
    return "a single voxel has no axes"
