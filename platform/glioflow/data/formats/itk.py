"""MetaImage (`.mha`) and NRRD files, as BraTS 2013, nnU-Net and 3D Slicer write them, read through SimpleITK.

The header is read first, with bounds: SimpleITK would believe any size, and open any other file that a header names.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats.record import reason
from glioflow.errors import TooLarge, UserError

_MOST_HEADER_BYTES = 2**20
# What a header must not say: that its voxels are in another file.
_ELSEWHERE = re.compile(rb"^(?:data ?file\s*:|ElementDataFile\s*=(?!\s*LOCAL\s*$))", re.IGNORECASE | re.MULTILINE)
_SIDES = re.compile(rb"^(?:sizes\s*:|DimSize\s*=)\s*([\d ]+?)\s*$", re.IGNORECASE | re.MULTILINE)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def is_itk(name: str) -> bool:
    """Return whether a file is MetaImage or NRRD in one piece, by its name."""
    return name.lower().endswith((".mha", ".nrrd"))


def read_itk(path: Path, *, most_voxels: int) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read a volume.

    Args:
        path: The file.
        most_voxels: Limit of its voxels.

    Returns:
        Its voxels (X, Y, Z), and the affine (4, 4) from their indices to RAS millimeters.

    Raises:
        UserError: If it is damaged or no volume of one value a voxel, or its voxels are in another file.
        TooLarge: If it states more voxels than the limit.
    """
    import SimpleITK

    _check_header(path, most_voxels)
    try:
        image: Any = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError("the file cannot be read completely", _cause(error), file=path) from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        layers = image.GetNumberOfComponentsPerPixel()
        hint = "in Slicer, export overlapping segments to one label map" if layers > 1 else None
        found = f"{image.GetDimension()} dimensions and {layers} values a voxel"
        raise UserError("a volume must have three dimensions and one value a voxel", found, file=path, hint=hint)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.transpose(SimpleITK.GetArrayFromImage(image)), _LPS_TO_RAS @ affine


def _check_header(path: Path, most_voxels: int) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(_MOST_HEADER_BYTES)
    except OSError as error:
        raise UserError("the file cannot be read", reason(error), file=path) from error
    end = re.search(
        rb"^ElementDataFile[^\n]*\n" if path.suffix.lower() == ".mha" else rb"\r?\n\r?\n", head, re.MULTILINE
    )
    sides = _SIDES.search(head[: end.end()] if end else b"")
    if end is None or sides is None:
        raise UserError("the file must begin with a MetaImage or NRRD header", "another beginning", file=path)
    if _ELSEWHERE.search(head[: end.end()]):
        raise UserError("the voxels must be in the file itself", "a header that names another file", file=path)
    shape = tuple(int(side) for side in sides[1].split())
    if math.prod(shape) > most_voxels:
        raise TooLarge(f"a volume must have at most {most_voxels} voxels", f"shape {shape}", file=path)


def _cause(error: Exception) -> str:
    """Return the last line of ITK's error, which alone says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:120] if lines else type(error).__name__
