"""The mask formats that a request may ask for."""

from typing import get_args

from glioflow.bundle.encoded_mask import MaskFormat
from glioflow.data.case import Case
from glioflow.data.formats.writing import native_format
from glioflow.errors import UserError, unknown_name


def check_format(name: str | None, case: Case) -> MaskFormat:
    """Return the mask format of a request, by default `rle`; `png` is for one slice, `dicom-seg` for DICOM.

    Raises:
        UserError: If it is unknown, or does not go with the study.
    """
    if name is None:
        return "rle"
    if name not in get_args(MaskFormat):
        raise unknown_name("mask format", name, get_args(MaskFormat))
    if name == "png" and case.shape[0] > 1:
        raise UserError("a study must have one slice for a mask as png", f"{case.shape[0]} slices", ["rle", "tiff"])
    if name == "dicom-seg" and native_format(case) != "dicom-seg":
        rule = "dicom-seg needs a study that was read from DICOM"
        raise UserError(rule, native_format(case), ["rle", "tiff", "nifti"])
    return name  # type: ignore[return-value]
