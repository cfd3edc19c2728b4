"""Masks in DICOM on the grid of their images: segmentations (SEG), and outlines of radiotherapy (RTSTRUCT)."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats.dicom_pixels import check_pixels
from glioflow.data.formats.nifti_header import MAX_VOXELS
from glioflow.data.formats.record import reason
from glioflow.data.formats.volume import Volume, same_grid
from glioflow.errors import TooLarge, UserError

OUTLINES = "RTSTRUCT"
# The axes of DICOM point to left and posterior, those of NIfTI and ours to right and anterior.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Largest difference of a segmentation's header from its study's, in voxels, before corners are compared.
_HEADER_ROUNDING = 0.05
# Largest distance of a contour from the middle of a slice, in slices: outlines are drawn on slices.
_BETWEEN_SLICES = 0.3


def names_in(dataset: Any) -> dict[int, str]:
    """Return the name of each outline by its number."""
    return {
        int(roi.ROINumber): str(roi.get("ROIName", "")).strip() for roi in dataset.get("StructureSetROISequence", ())
    }


def read_outlines(
    files: Sequence[Path], names: Sequence[str], image: Volume, frames: Collection[str], load: Callable[[Path], Any]
) -> NDArray[np.uint8]:
    """Return the named outlines as labels 1, 2 and so on, (S, H, W); later ones overwrite earlier ones.

    A pixel is inside a contour if its center is; two contours of one outline cancel each other, as for a hole.

    Args:
        files: RTSTRUCT files of the study.
        names: Names of the outlines, case-insensitive.
        image: Image on whose grid they are drawn.
        frames: Frames of reference that the images state; if empty, none are compared.
        load: Reads a file's header.

    Raises:
        UserError: If no file has an outline with these names, a contour is not on a slice of the images, or an
            outline is drawn in another frame of reference, as on a CT that is not registered to the images.
    """
    assert image.grid.affine is not None
    shape, to_index = image.grid.to_file(image.data).shape, np.linalg.inv(image.grid.affine)
    mask, known, drawn = np.zeros(shape, np.uint8), set[str](), False
    for file in files:
        dataset = load(file)
        named, contours = _read_contours(dataset, file)
        known |= set(named.values())
        for label, name in enumerate(names, start=1):
            wanted = {number for number, each in named.items() if each.casefold() == name.strip().casefold()}
            drawn |= bool(wanted)
            _check_frames(dataset, wanted, frames, name, file)
            inside = np.zeros(shape, bool)
            for points in (points for number, points in contours if number in wanted):
                _fill(inside, points @ to_index[:3, :3].T + to_index[:3, 3], name, file)
            mask[inside] = label
    if not drawn:
        rule = "the study must have an outline that cohort.yaml names"
        raise UserError(rule, ", ".join(names), sorted(known), file=files[0].parent)
    return np.ascontiguousarray(image.grid.from_file(mask), np.uint8)


def _check_frames(dataset: Any, wanted: Collection[int], frames: Collection[str], name: str, file: Path) -> None:
    stated = {
        str(roi.get("ReferencedFrameOfReferenceUID") or "")
        for roi in dataset.get("StructureSetROISequence", ())
        if int(roi.ROINumber) in wanted
    } - {""}
    if stated and frames and not stated & set(frames):
        rule = f"the outline {name} must be drawn in the images' frame of reference"
        hint = "give the images that it was drawn on, or outlines registered to these"
        raise UserError(rule, f"that of other images, {min(stated)}", file=file, hint=hint)


def _read_contours(dataset: Any, file: Path) -> tuple[dict[int, str], list[tuple[int, NDArray[np.float64]]]]:
    """Return the names of outlines, and each closed contour: its outline, and its corners (N, 3) in RAS millimeters."""
    try:
        closed = [
            (int(roi.ReferencedROINumber), np.asarray(contour.ContourData, np.float64).reshape(-1, 3) * (-1, -1, 1))
            for roi in dataset.get("ROIContourSequence", ())
            for contour in roi.get("ContourSequence", ())
            if contour.get("ContourGeometricType") == "CLOSED_PLANAR"
        ]
        names = names_in(dataset)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError("the outlines of a DICOM file cannot be read", reason(error), file=file) from error
    if not all(len(points) and np.isfinite(points).all() for _, points in closed):
        raise UserError("the points of a contour must have finite coordinates", file=file)
    return names, closed


def _fill(inside: NDArray[np.bool_], corners: NDArray[np.float64], name: str, file: Path) -> None:
    """Invert the pixels inside a contour, (N, 3) in indices of the array `inside`."""
    from skimage.draw import polygon2mask

    axis = int(np.ptp(corners, axis=0).argmin())
    plane, rest = round(float(np.median(corners[:, axis]))), [k for k in range(3) if k != axis]
    if abs(corners[:, axis] - plane).max() > _BETWEEN_SLICES or not 0 <= plane < inside.shape[axis]:
        shown = f"one at {float(np.median(corners[:, axis])):.2f} of {inside.shape[axis]} slices"
        raise UserError(f"the contours of {name} must be on slices of the images", shown, file=file)
    where: list[Any] = [slice(None)] * 3
    where[axis] = plane
    inside[tuple(where)] ^= polygon2mask([inside.shape[k] for k in rest], corners[:, rest])


def read_segmentation(path: Path, image: Volume, load: Callable[[Path], Any]) -> NDArray[np.uint8]:
    """Read a SEG object onto the grid of `image`, as the numbers of its segments.

    Args:
        path: The file.
        image: Image whose grid it must have.
        load: Reads a file with its pixels.

    Raises:
        UserError: If it is damaged or on another grid.
    """
    import highdicom

    assert image.grid.affine is not None
    file_shape = image.grid.to_file(image.data).shape
    dataset = load(path)
    check_pixels(dataset, path)
    rule = "a DICOM segmentation must lie on its study's grid"
    try:
        segmentation = highdicom.seg.Segmentation.from_dataset(dataset, copy=False)
        geometry = segmentation.get_volume_geometry()
        # The library fills the slices between two frames, however far apart they are.
        if geometry is not None and math.prod(geometry.spatial_shape) > MAX_VOXELS:
            raise TooLarge(rule, f"frames in a stack of {' x '.join(map(str, geometry.spatial_shape))}", file=path)
        volume = segmentation.get_volume(combine_segments=True, skip_overlap_checks=True)
        target = highdicom.VolumeGeometry(LPS_TO_RAS @ image.grid.affine, file_shape, "PATIENT")
        matched = volume.match_geometry(target, tol=_HEADER_ROUNDING)
    except UserError:
        raise
    except Exception as error:
        raise UserError(rule, reason(error), file=path) from error
    if outside := np.count_nonzero(volume.array) - np.count_nonzero(matched.array):
        hint = "give the whole series that was segmented"
        raise UserError(rule, f"{outside} voxels outside of it", file=path, hint=hint)
    grid = replace(image.grid, affine=LPS_TO_RAS @ np.asarray(matched.affine, np.float64))
    mask = Volume(grid.from_file(np.asarray(matched.array)), grid, image.spacing_mm)
    if not same_grid(mask, image):
        raise UserError(rule, file=path)
    return np.ascontiguousarray(mask.data, np.uint8)
