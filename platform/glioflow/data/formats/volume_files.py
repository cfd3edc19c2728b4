"""Reading of a volume from one NIfTI, MetaImage, NRRD or picture file, on (S, H, W) axes, as an image or labels."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.formats.file_roles import DECLARED
from glioflow.data.formats.itk import is_itk, read_itk
from glioflow.data.formats.nifti_header import (
    MAX_VOXELS,
    check_spacing,
    is_oriented,
    millimeters,
    open_volume,
    read_header,
)
from glioflow.data.formats.nnunet import is_picture, read_picture
from glioflow.data.formats.record import reason
from glioflow.data.formats.volume import Volume, orient, same_grid, spacing_of
from glioflow.errors import UserError
from glioflow.label_schemes import schemes_that_hold

MAX_CHANNELS = 16
# Largest distance of a label from an integer: a scale factor can turn 1 into 1.0000153.
NEARLY_WHOLE = 1e-3


def read_volume(path: Path) -> Volume:
    """Read one file with its axes as (S, H, W): upward, toward posterior, toward the patient's left.

    Raises:
        UserError: If it is damaged or truncated, not a volume or slice, larger than `MAX_VOXELS`, without a usable
            affine, or holds NaN or infinity.
    """
    (volume,) = _read(path, most=1)
    return volume


def read_stack(path: Path, names: Sequence[str]) -> list[Volume]:
    """Read the volumes along the fourth axis of a file, one for each name; raises `UserError` as `read_volume`."""
    volumes = _read(path, most=MAX_CHANNELS)
    if len(volumes) != len(names):
        rule = f"dataset.json names {len(names)} channels, {', '.join(names)}, and a file must hold as many volumes"
        raise UserError(rule, len(volumes), file=path)
    return volumes


def _read(path: Path, *, most: int) -> list[Volume]:
    if is_picture(path.name):
        return _read_picture(path, most=most)
    if is_itk(path.name):
        data, affine, oriented = read_itk(path, most_voxels=MAX_VOXELS)
        return _volumes(data, affine, path, oriented=oriented)
    try:
        check_spacing(read_header(path, most=most), path)
        image = open_volume(path)
        data = np.asarray(image.dataobj)
        affine = np.diag([*[millimeters(image.header, path)] * 3, 1.0]) @ np.asarray(image.affine, np.float64)
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the decoder
        raise UserError("the NIfTI file cannot be read completely", reason(error), file=path) from error
    return _volumes(data, affine, path, oriented=is_oriented(image.header))


def _read_picture(path: Path, *, most: int) -> list[Volume]:
    """Read the channels of a picture, assuming slices upward, rows toward posterior and columns toward left."""
    data, spacing = read_picture(path, most_voxels=MAX_VOXELS)
    if data.shape[3] > most:
        raise UserError("an image must be gray, one file for each channel", "an image in color", file=path)
    s, h, w = spacing or (1.0, 1.0, 1.0)
    affine = np.array([[0, 0, -w, 0], [0, -h, 0, 0], [s, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    return [replace(each, measured=spacing is not None) for each in _volumes(data, affine, path, oriented=False)]


def _volumes(data: NDArray[Any], affine: NDArray[np.float64], path: Path, *, oriented: bool) -> list[Volume]:
    """Return the volumes along the fourth axis of a file's array; raises `UserError` as `read_volume`."""
    data = data.reshape((*data.shape, 1, 1)[:4])  # a single slice has two axes
    if data.dtype == np.float64:
        with np.errstate(over="ignore"):  # infinity is refused below
            data = data.astype(np.float32)
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise UserError("an image must hold finite numbers", "NaN or infinity", file=path)
    grid = orient(affine, path)
    spacing = spacing_of(grid)
    return [Volume(grid.from_file(data[..., k]), grid, spacing, oriented) for k in range(data.shape[3])]


def read_labels(path: Path, labels: Collection[int]) -> Volume:
    """Read the mask in a NIfTI file as uint8; raises `UserError` as `read_volume`, or if it holds another label."""
    volume = read_volume(path)
    values = np.unique(labeled := _whole_labels(volume, path))
    if not np.isin(values, [0, *labels]).all():
        rule = f"the labels of a mask must be among {[0, *sorted(labels)]}"
        fitting = schemes_that_hold([int(value) for value in values[:256]])
        hint = f"write `scheme: NAME` into {DECLARED} if they are those of {' or '.join(fitting)}"
        if not 0 <= values[0] <= values[-1] < 256:
            hint = "store it with labels from 0 to 255"
        elif not fitting:
            held = [int(value) for value in values[:8] if value]
            names = [f"{value}: part{k}" for k, value in enumerate(held, 1)] if len(held) > 1 else [f"{held[0]}: tumor"]
            hint = f"write what they mean into {DECLARED}, such as `labels: {{{', '.join(names)}}}`"
        raise UserError(rule, values[:8].astype(int).tolist(), file=path, hint=hint)
    return replace(volume, data=np.ascontiguousarray(labeled, np.uint8))


def read_mask_of(case: Case, path: Path, labels: Collection[int]) -> NDArray[np.uint8]:
    """Read the mask of a case, which must lie on its grid; raises `UserError` as `read_labels`."""
    volume = read_labels(path, labels)
    if case.grid.affine is None or case.spacing_mm is None:
        hint = "give a mask for each slice, named <name>_mask.tif or <name>_mask.png"
        raise UserError("a NIfTI mask needs a study that is a volume", f"slices in {case.id}", file=path, hint=hint)
    if not same_grid(volume, Volume(case.image[..., 0], case.grid, case.spacing_mm)):
        raise UserError("a mask must lie on the grid of its images", "another grid", file=path)
    return np.asarray(volume.data, np.uint8)


def _whole_labels(volume: Volume, path: Path) -> NDArray[np.generic]:
    """Return the values of a mask, rounded if it has a scale factor and all are nearly integers."""
    data = volume.data
    if data.dtype.kind != "f":
        return data
    values = np.asarray(data, np.float32)
    whole = np.rint(values)
    if (far := float(np.abs(values - whole).max(initial=0))) > NEARLY_WHOLE:
        raise UserError("the labels of a mask must be whole numbers", f"values up to {far:g} beside one", file=path)
    return whole
