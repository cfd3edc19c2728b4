"""Check that the slices of a DICOM series form one stack, within the rounding of text in headers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError

# Headers hold numbers with about six digits, and some scanners round the same number differently in each slice.
_ROUNDING = 1e-4
# Largest distance of a slice from the line of the stack: in pixels, or as a share of the slice distance (two may
# each be off by a hundredth, in opposite directions); and largest shear of the whole stack, in pixels.
_BESIDE_PX, _BESIDE, _LEANING_PX = 0.1, 0.0202, 0.5


def settle_headers(datasets: Sequence[Any]) -> None:
    """Give all slices the orientation and pixel spacing of the first if they differ only by rounding.

    For a single slice without a distance to the next one, the thickness is used.
    """
    if len(datasets) == 1 and not datasets[0].get("SpacingBetweenSlices") and datasets[0].get("SliceThickness"):
        datasets[0].SpacingBetweenSlices = datasets[0].SliceThickness
    for name in ("ImageOrientationPatient", "PixelSpacing"):
        values = [dataset.get(name) for dataset in datasets]
        first = values[0]
        if first is None:
            continue
        for dataset, value in zip(datasets[1:], values[1:], strict=True):
            if value is not None and value != first and np.allclose(value, first, rtol=_ROUNDING, atol=_ROUNDING / 10):
                setattr(dataset, name, first)


def is_multiframe(datasets: Sequence[Any]) -> bool:
    """Return whether a series is one file with several frames."""
    return len(datasets) == 1 and int(datasets[0].get("NumberOfFrames") or 1) > 1


def check_frames(dataset: Any, file: Path) -> None:
    """Refuse a file whose frames are several stacks: planes in two directions, or two frames at one position.

    Raises:
        UserError: With their number.
    """
    planes = [plane for plane in _planes([dataset]) if plane is not None]
    directions = {tuple(np.round(np.asarray(orientation, np.float64), 2)) for _, orientation, _ in planes}
    places = Counter(tuple(np.round(np.asarray(position, np.float64), 2)) for position, _, _ in planes)
    shown = [f"{len(directions)} directions"] if len(directions) > 1 else []
    if (most := max(places.values(), default=1)) > 1:
        shown.append(f"{most} frames at one position")
    if shown:
        rule = "a multi-frame DICOM file must hold one stack of slices"
        hint = "split it into one series for each stack, echo or phase, as dcm2niix does"
        raise UserError(rule, " and ".join(shown), file=file, hint=hint)


def check_stack(datasets: Sequence[Any], file: Path) -> None:
    """Refuse a stack that is sheared or has a shifted slice: its voxels would have wrong positions.

    Args:
        datasets: The slices of a series, or one data set with many frames.
        file: File that the error names.

    Raises:
        UserError: With the distance in mm. A missing position is accepted: reading the volume reports it.
    """
    planes = list(_planes(datasets))
    if len(planes) < 2 or any(plane is None for plane in planes):
        return
    positions = np.array([plane[0] for plane in planes if plane is not None], np.float64)
    _, orientation, spacing = planes[0] or ((), (), ())
    rows, columns = np.array(orientation[:3], np.float64), np.array(orientation[3:], np.float64)
    normal = np.cross(rows, columns)
    along = positions @ normal
    order = np.argsort(along)
    across = positions[order] @ np.stack([rows, columns], axis=1)
    across -= across[0]
    part = (along[order] - along[order[0]]) / max(float(np.ptp(along)), 1e-9)
    beside, leaning = _longest(across - part[:, None] * across[-1]), _longest(across[-1:])
    pixel, distance = float(min(spacing)), float(np.ptp(along)) / (len(planes) - 1)
    if beside > max(_BESIDE_PX * pixel, _BESIDE * distance):
        rule = "a DICOM series must be a complete stack of parallel, evenly spaced slices, one above the other"
        raise UserError(rule, f"a slice {beside:.3g} mm beside the others", file=file)
    if leaning > _LEANING_PX * pixel:
        rule = "the slices of a DICOM series must lie one straight above the other"
        hint = "resample the series to a grid without a tilt"
        raise UserError(rule, f"a stack that leans by {leaning:.3g} mm", file=file, hint=hint)


def _longest(vectors: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(vectors, axis=-1).max(initial=0))


def _planes(datasets: Sequence[Any]) -> Iterator[tuple[Any, Any, Any] | None]:
    """Yield position, orientation and pixel spacing of each slice or frame; None for each that is not stated."""
    for dataset in datasets:
        frames = dataset.get("PerFrameFunctionalGroupsSequence")
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
        for groups in ([frame, shared] for frame in frames) if frames else [None]:
            position, orientation, spacing = (
                _stated(dataset, groups, name, group)
                for name, group in (
                    ("ImagePositionPatient", "PlanePositionSequence"),
                    ("ImageOrientationPatient", "PlaneOrientationSequence"),
                    ("PixelSpacing", "PixelMeasuresSequence"),
                )
            )
            complete = position is not None and orientation is not None and spacing is not None
            yield (position, orientation, spacing) if complete else None


def _stated(dataset: Any, groups: Sequence[Any] | None, name: str, group: str) -> Any:
    if groups is None:
        return dataset.get(name)
    return next((each[group][0].get(name) for each in groups if each is not None and group in each), None)
