"""The tumor in a predicted mask: where it is, and the volume of each region with its conformal interval."""

from collections.abc import Mapping
from typing import Literal, TypedDict

import numpy as np

from glioflow.bundle.encoded_mask import legend_of
from glioflow.bundle.format import Description
from glioflow.data.case import Case
from glioflow.evaluation import Segmentation, VolumeInterval

Unit = Literal["mm3", "px"]


class TumorVolume(TypedDict):
    """The tumor's volume with its conformal interval.

    Keys:
        value: Volume in `unit`.
        unit: `mm3` if the spacing is known, else `px`.
        interval: [low, high]; None if the bundle has none in this unit or it has too few patients.
        level: Level of the interval, in (0, 1); None if the bundle has none.
        no_interval: Why there is no interval; None if there is one.
    """

    value: float
    unit: Unit
    interval: list[float] | None
    level: float | None
    no_interval: str | None


class RegionVolume(TypedDict):
    """The volume of a region.

    Keys:
        volume_px: In voxels.
        volume_mm3: In cubic millimeters; None if the spacing is unknown.
        interval: In the unit and at the level of the tumor's volume; None if the bundle has none.
        no_interval: Why there is no interval; None if there is one.
    """

    volume_px: int
    volume_mm3: float | None
    interval: list[float] | None
    no_interval: str | None


class Tumor(TypedDict):
    """The presence and location of a tumor.

    Keys:
        detected: Whether any voxel is predicted as tumor.
        probability: The highest of all voxels, in [0, 1].
        slices: Numbers of the slices with tumor, from the files' names.
        positions: The same slices counted from 0 in the order of the study.
        positions_mm: Distance of each from the first slice of the study; None if the spacing is unknown.
        volume: Its volume.
        regions: Volume of each of the model's outputs, such as WT, TC and ET, or of its one tumor.
    """

    detected: bool
    probability: float
    slices: list[int]
    positions: list[int]
    positions_mm: list[float] | None
    volume: TumorVolume
    regions: dict[str, RegionVolume]


def find_tumor(segmentation: Segmentation, case: Case, description: Description) -> Tumor:
    """Return where the tumor of a segmented study is and how large each region is."""
    slices = np.flatnonzero(segmentation.labels.any(axis=(1, 2)))
    highest = min(1.0, float(segmentation.tumor_probability.max(initial=0.0)))
    counts = np.bincount(segmentation.labels.ravel(), minlength=256)
    voxel = None if case.spacing_mm is None else float(np.prod(case.spacing_mm))
    regions = {name: int(counts[values].sum()) for name, values in legend_of(description).regions.items()}
    return {
        "detected": bool(slices.size),
        "probability": highest,
        "slices": [case.slice_numbers[index] for index in slices],
        "positions": slices.tolist(),
        "positions_mm": None if case.spacing_mm is None else (slices * case.spacing_mm[0]).tolist(),
        "volume": _measure_tumor(int(counts[1:].sum()), voxel, description.volume_interval),
        "regions": _measure_regions(regions, voxel, description.volume_interval),
    }


def _measure_tumor(count: int, voxel: float | None, fitted: VolumeInterval | None) -> TumorVolume:
    value, unit = _in_unit(count, voxel)
    interval, why = _interval(value, unit, fitted)
    level = None if fitted is None else fitted.level
    return {"value": value, "unit": unit, "interval": interval, "level": level, "no_interval": why}


def _measure_regions(
    counts: Mapping[str, int], voxel: float | None, fitted: VolumeInterval | None
) -> dict[str, RegionVolume]:
    measured: dict[str, RegionVolume] = {}
    for name, count in counts.items():
        interval, why = _interval(*_in_unit(count, voxel), fitted, None if len(counts) == 1 else name)
        measured[name] = {
            "volume_px": count,
            "volume_mm3": None if voxel is None else count * voxel,
            "interval": interval,
            "no_interval": why,
        }
    return measured


def _in_unit(count: int, voxel: float | None) -> tuple[float, Unit]:
    return (float(count), "px") if voxel is None else (count * voxel, "mm3")


def _interval(
    value: float, unit: Unit, fitted: VolumeInterval | None, region: str | None = None
) -> tuple[list[float] | None, str | None]:
    """Return the interval of a volume, or why there is none; no region means the whole tumor."""
    if fitted is None:
        return None, "this model has none; `glioflow register RUN --crossval RUN` adds that of a cross-validation"
    if fitted.unit != unit:
        units = (
            "mm³, and this study's spacing is unknown" if fitted.unit == "mm3" else "voxels, and this study's is in mm³"
        )
        return None, f"the model's interval is in {units}"
    if not fitted.available:
        return None, f"{len(fitted.residuals)} cross-validated patients are too few for a {fitted.level:.0%} interval"
    if region is not None and region not in fitted.regions:
        return None, "the model's cross-validation fitted an interval of the whole tumor only"
    ends = fitted.interval([value], region=region)
    return None if ends is None else list(ends), None
