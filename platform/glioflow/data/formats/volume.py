"""Volumes on their grids: conversion of file axes to (S, H, W), and comparison of the grids of two volumes."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Grid
from glioflow.errors import UserError

_CORNERS = tuple(itertools.product((0, 1), repeat=3))


@dataclass(frozen=True)
class Volume:
    """The volume in a file: `data` (S, H, W), its grid in the file, and the distance between neighbors.

    `oriented` is whether the file states its position in the patient, `measured` whether it states the distances.
    """

    data: NDArray[np.generic]
    grid: Grid
    spacing_mm: tuple[float, float, float]
    oriented: bool = True
    measured: bool = True


def orient(affine: NDArray[np.float64], path: Path) -> Grid:
    """Return the grid that turns a file's axes into (S, H, W): upward, toward posterior, toward the patient's left.

    Args:
        affine: (4, 4) from the file array's indices to RAS millimeters.
        path: The file, for errors.

    Raises:
        UserError: If the affine is not finite or not invertible.
    """
    import nibabel

    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError("the affine must be finite and invertible", file=path)
    orientation = nibabel.io_orientation(affine)
    toward = {int(axis): (index, bool(sign > 0)) for index, (axis, sign) in enumerate(orientation)}
    (s, up), (h, anterior), (w, right) = toward[2], toward[1], toward[0]
    return Grid(axes=(s, h, w), flips=(not up, anterior, right), affine=affine)


def spacing_of(grid: Grid) -> tuple[float, float, float]:
    """Return the distance between neighbors along S, H, W in millimeters, for a grid with an affine.

    For a sheared grid, the distance along S is that between slices, so that the product is the volume of a voxel.
    """
    assert grid.affine is not None
    steps = np.linalg.norm(grid.affine[:3, :3], axis=0)
    s, h, w = (float(steps[axis]) for axis in grid.axes)
    volume = abs(float(np.linalg.det(grid.affine[:3, :3])))
    return (s if np.isclose(s * h * w, volume, rtol=1e-5) else volume / (h * w)), h, w


def same_grid(one: Volume, other: Volume) -> bool:
    """Return whether two volumes have the same shape, and corners less than a tenth of their smallest spacing apart.

    If a volume does not state its spacing, only the shapes are compared.
    """
    if one.data.shape != other.data.shape or not (one.measured and other.measured):
        return one.data.shape == other.data.shape
    apart = np.linalg.norm(corners(one) - corners(other), axis=1).max()
    return bool(apart <= 0.1 * min(one.spacing_mm))


def corners(volume: Volume) -> NDArray[np.float64]:
    """Return the centers of the eight outermost voxels, (8, 3) in millimeters, in the order of S, H, W.

    The result is the same for files that store a grid from different corners.
    """
    assert volume.grid.affine is not None
    ends = np.zeros((8, 3))
    for axis, flipped, side, at_far_end in zip(
        volume.grid.axes, volume.grid.flips, volume.data.shape, zip(*_CORNERS, strict=True), strict=True
    ):
        ends[:, axis] = [(side - 1) * (last != flipped) for last in at_far_end]
    return np.asarray(ends @ volume.grid.affine[:3, :3].T + volume.grid.affine[:3, 3])


def paste(volume: Volume, onto: Volume) -> Volume | None:
    """Return a volume padded with 0 to the larger grid that contains its own; None if it does not contain it.

    Slicer stores a segmentation as the box around its segments.
    """
    if volume.grid.affine is None or onto.grid.affine is None:
        return None
    inner = volume.grid.to_file(volume.data)
    whole = np.zeros(onto.grid.to_file(onto.data).shape, inner.dtype)
    relative = np.linalg.inv(onto.grid.affine) @ volume.grid.affine
    offset = np.rint(relative[:3, 3]).astype(int)
    if not np.allclose(relative[:3, :3], np.eye(3), atol=1e-3) or not np.allclose(relative[:3, 3], offset, atol=0.05):
        return None
    if (offset < 0).any() or (offset + inner.shape > whole.shape).any():
        return None
    whole[tuple(slice(start, start + side) for start, side in zip(offset, inner.shape, strict=True))] = inner
    return Volume(onto.grid.from_file(whole), onto.grid, onto.spacing_mm)
