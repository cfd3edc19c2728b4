"""A corrected case on disk, in a format that a cohort's reader reads: TIFF slices as in LGG, else NIfTI."""

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glioflow import atomic
from glioflow.data.case import Case
from glioflow.data.formats import lgg
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import DECLARED
from glioflow.data.formats.writing import encode_nifti, encode_tiff, word_of
from glioflow.errors import RunFailed


def read_back(written: Path, key: str, case: Case, labels: Mapping[int, str]) -> None:
    """Read a written case back as a cohort, and refuse it if it differs from the original.

    Raises:
        RunFailed: If it differs.
    """
    with tempfile.TemporaryDirectory(dir=written.parent) as scratch:
        name = f"{key}_{1:08d}"
        copy = shutil.copytree(written, Path(scratch) / name, copy_function=os.link)
        for path in sorted(copy.iterdir()):
            path.rename(path.with_name(path.name.replace(key, name, 1)))
        if any(path.name.endswith(".nii.gz") for path in copy.iterdir()):
            declare(Path(scratch), labels)
        cohort = open_cohort(Path(scratch))
        again = cohort.read(cohort.cases[0].id)
    same = (
        again.mask is not None
        and case.mask is not None
        and np.array_equal(again.mask, case.mask)
        and again.image.shape == case.image.shape
    )
    if len(cohort.cases) != 1 or cohort.cases[0].patient != key or not same:
        raise RunFailed("a corrected mask did not come back from disk as it was sent")


def declare(cohort: Path, labels: Mapping[int, str]) -> None:
    """Write into a NIfTI cohort which files are masks and what their labels mean."""
    if not (cohort / DECLARED).exists():
        names = "".join(f"  {value}: {json.dumps(name)}\n" for value, name in labels.items())
        atomic.write_text(cohort / DECLARED, f'masks: ["*_mask.nii.gz"]\nlabels:\n{names}')


def write_case(case: Case, key: str, folder: Path, labels: Mapping[int, str]) -> str:
    """Write images and mask under the key, as TIFF slices like LGG or as NIfTI; return the case's cohort."""
    import tifffile

    assert case.mask is not None
    folder.mkdir(parents=True)
    plain = case.grid.affine is None and case.image.dtype == np.uint8 and case.channels == lgg.CHANNELS
    if plain and set(labels) == {1}:
        for number, plane, mask in zip(case.slice_numbers, case.image, case.mask, strict=True):
            tifffile.imwrite(folder / f"{key}_{number}.tif", plane, photometric="rgb", metadata=None, software="")
            (folder / f"{key}_{number}_mask.tif").write_bytes(encode_tiff(mask))
        return "lgg"
    for k, channel in enumerate(case.channels):
        (folder / f"{key}_{word_of(channel)}.nii.gz").write_bytes(_nifti(case, case.image[..., k]))
    (folder / f"{key}_mask.nii.gz").write_bytes(encode_nifti(case.mask, case))
    return "nifti" if set(labels) == {1} else "nifti-" + "-".join(map(str, sorted(labels)))


def _nifti(case: Case, volume: Any) -> bytes:
    import nibabel

    if case.grid.affine is not None:
        data, affine = case.grid.to_file(volume), case.grid.affine
    else:
        s, h, w = case.spacing_mm or (1.0, 1.0, 1.0)
        data, affine = np.transpose(volume, (2, 1, 0)), np.diag([-w, -h, s, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(data, np.float32), affine)
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)
