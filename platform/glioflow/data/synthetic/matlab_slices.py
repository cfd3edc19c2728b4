"""Slices in MATLAB 7.3 files as Figshare has them, for tiny copies of that set."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats.figshare import GLIOMA

# MATLAB writes this text, the version and the byte order before HDF5's own header.
_HEADER_BYTES = 512
_HEADER = b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: Mon Apr 03 00:00:00 2017 HDF5 schema 1.00 ."


def write_matlab_slice(
    path: Path, person: str, image: NDArray[np.generic], mask: NDArray[np.generic], label: int = GLIOMA
) -> None:
    """Write a slice, (H, W), and its mask as `cjdata`."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=_HEADER_BYTES) as file:
        data = file.create_group("cjdata")
        data["label"] = np.array([[label]], np.float64)
        data["PID"] = np.array([[ord(letter)] for letter in person], np.uint16)
        data["image"] = image.T.astype(np.int16)
        data["tumorMask"] = mask.T.astype(np.uint8)
        data["tumorBorder"] = np.argwhere(mask.T).reshape(1, -1).astype(np.float64)
    with path.open("r+b") as file:
        file.write(_HEADER.ljust(124) + b"\0\2IM")
