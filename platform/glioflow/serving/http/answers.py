"""Which mask format a request may ask for."""

from typing import get_args

from glioflow.bundle.encoded_mask import MaskFormat
from glioflow.data.case import Case
from glioflow.data.formats.writing import native_format
from glioflow.errors import UserError


def check_format(name: str | None, case: Case) -> MaskFormat:
    """Return the mask format of a request, by default `rle`; `png` is for one slice, `dicom-seg` for DICOM.

    Raises:
        UserError: If it is unknown, or does not go with the study.
    """
    if name is None:
        return "rle"
    if name not in get_args(MaskFormat):
        raise UserError("unknown mask format", repr(name), get_args(MaskFormat))
    if name == "png" and case.shape[0] > 1:
        raise UserError(
            "a png holds one slice; ask for another mask format", f"{case.shape[0]} slices", ["rle", "tiff"]
        )
    if name == "dicom-seg" and native_format(case) != "dicom-seg":
        raise UserError("dicom-seg needs a study read from DICOM", native_format(case), ["rle", "tiff", "nifti"])
    return name  # type: ignore[return-value]
