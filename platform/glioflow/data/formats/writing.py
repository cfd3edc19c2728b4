"""Writing of masks, in the geometry and the file format of their study."""

import gzip
import io
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.atomic import new_folder, write_bytes
from glioflow.data.case import Case
from glioflow.data.formats import lgg
from glioflow.data.formats.dicom_files import is_dicom
from glioflow.errors import UserError, unknown_name

# File name endings by format; for several slices, `tiff` makes a folder with one file each.
ENDINGS = {"tiff": "_mask.tif", "png": "_mask.png", "nifti": "_mask.nii.gz", "dicom-seg": "_mask.dcm"}


def word_of(channel: str) -> str:
    """Return a channel's name in a form that is safe in file names."""
    return re.sub(r"[^a-z0-9]+", "", channel.lower()) or "image"


def native_format(case: Case) -> str:
    """Return the format of the files of a case: NIfTI for any volumes; TIFF if it has no files."""
    if case.grid.affine is not None:
        return "dicom-seg" if case.files and is_dicom(case.files[0]) else "nifti"
    pictures = bool(case.files) and all(file.name.lower().endswith(".png") for file in case.files)
    return "png" if pictures and case.shape[0] == 1 else "tiff"


def write_mask(
    mask: NDArray[np.uint8], case: Case, out: Path, format: str, *, labels: dict[int, str] | None = None
) -> Path:
    """Write a mask of `case` into the folder `out`, completely or not at all.

    Args:
        mask: Labels (S, H, W) in the geometry of the case.
        case: The segmented case; its grid restores the axes and the position of its files.
        out: Folder to write into; made if it does not exist.
        format: `tiff` (0 and 255, a folder of `<case>_<n>_mask.tif` as in the LGG cohort), `png` (one slice only),
            `nifti` (labels, with the axes and affine of the input) or `dicom-seg` (for a case read from DICOM).
        labels: Name of each label, for the segments of `dicom-seg`; None names label 1 tumor.

    Returns:
        The file written, or the folder of slices.

    Raises:
        UserError: If mask and case differ in shape, or the format does not suit the case.
    """
    if format not in ENDINGS:
        raise unknown_name("mask format", format, ENDINGS)
    if mask.shape != case.shape:
        raise UserError("a mask must have the shape of its case", f"{mask.shape} for {case.shape}")
    path = out / f"{case.id}{ENDINGS[format]}"
    if format == "tiff":
        return _write_tiff(mask, case, out)
    if format == "png":
        write_bytes(path, encode_png(mask))
    elif format == "nifti":
        write_bytes(path, encode_nifti(mask, case))
    else:
        from glioflow.data.formats.dicom_seg import encode_dicom_seg

        write_bytes(path, encode_dicom_seg(mask, case, labels or {1: "tumor"}))
    return path


def write_slices(mask: NDArray[np.uint8], case: Case, target: Path) -> Path:
    """Write a mask (S, H, W) as a new folder `target` of `<case>_<n>_mask.tif`, completely or not at all.

    Raises:
        UserError: If `target` exists.
    """
    if target.exists():
        raise UserError(f"{target} exists; a mask of several slices needs a new folder", target, hint="give another")
    with new_folder(target) as folder:
        for number, plane in zip(case.slice_numbers, mask, strict=True):
            write_bytes(folder / f"{case.id}_{number}{ENDINGS['tiff']}", encode_tiff(plane))
    return target


def write_image(case: Case, out: Path) -> list[Path]:
    """Write the image of a case that was not read from files: 8-bit slices as TIFF, else each channel as NIfTI.

    Raises:
        UserError: If NIfTI is needed but the spacing is unknown.
    """
    import nibabel
    import tifffile

    if case.spacing_mm is None:
        if case.image.dtype != np.uint8 or case.channels not in (lgg.CHANNELS, ("flair",)):
            rule = (
                "an array without spacing_mm must have 8-bit slices with the channels pre, flair, post, or flair alone"
            )
            raise UserError(rule, f"{case.image.dtype} with {', '.join(case.channels)}", hint="give spacing_mm")
        paths = [out / f"{case.id}_{number}.tif" for number in case.slice_numbers]
        for path, plane in zip(paths, case.image, strict=True):
            tifffile.imwrite(path, plane[..., 0] if plane.shape[-1] == 1 else plane)
        return paths
    s, h, w = case.spacing_mm
    paths = [out / f"{case.id}_{channel}.nii.gz" for channel in case.channels]
    for k, path in enumerate(paths):
        volume = np.asarray(np.transpose(case.image[..., k], (2, 1, 0)), np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-w, -h, s, 1.0])), path)
    return paths


def encode_tiff(plane: NDArray[np.uint8]) -> bytes:
    """Return one slice of a mask (H, W) as a TIFF of 0 and 255."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, _black_white(plane), photometric="minisblack", metadata=None, software="")
    return buffer.getvalue()


def encode_png(mask: NDArray[np.uint8]) -> bytes:
    """Return a mask of one slice, (1, H, W), as a PNG of 0 and 255; raises `UserError` if it has more slices."""
    import cv2

    if mask.shape[0] != 1:
        hint = "write tiff, nifti or dicom-seg"
        raise UserError("a mask written as png must have one slice", f"{mask.shape[0]} slices", hint=hint)
    _, data = cv2.imencode(".png", _black_white(mask[0]))
    return bytes(data)


def encode_nifti(mask: NDArray[np.uint8], case: Case) -> bytes:
    """Return a mask as compressed NIfTI with the affine and axis order of the files of the case.

    A case without an affine (plain slices) gets the axes left, posterior, superior and its spacing, or 1 mm if the
    spacing is unknown.
    """
    import nibabel

    if case.grid.affine is not None:
        volume, affine = case.grid.to_file(mask), case.grid.affine
    else:
        s, h, w = case.spacing_mm or (1.0, 1.0, 1.0)
        volume, affine = np.transpose(mask, (2, 1, 0)), np.diag([-w, -h, s, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume, np.uint8), affine)
    image.header.set_xyzt_units("mm", "sec")
    # The scanner code for both forms, as in the inputs; viewers read one or the other.
    image.set_qform(affine, 1, strip_shears=True)
    image.set_sform(affine, 1)
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _write_tiff(mask: NDArray[np.uint8], case: Case, out: Path) -> Path:
    if case.shape[0] == 1:
        path = out / f"{case.id}_{case.slice_numbers[0]}{ENDINGS['tiff']}"
        write_bytes(path, encode_tiff(mask[0]))
        return path
    return write_slices(mask, case, out / case.id)


def _black_white(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(plane > 0, 255, 0).astype(np.uint8)
