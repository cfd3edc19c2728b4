"""DICOM files: which they are, and reading them one by one."""

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from glioflow.data.formats.dicom_headers import fill_gaps
from glioflow.data.formats.dicom_series import split_acquisitions
from glioflow.data.formats.dicom_stack import settle_headers
from glioflow.data.formats.record import reason
from glioflow.data.formats.tree import files_below
from glioflow.errors import UserError

# The SOP classes of segmentations, binary and as a label map; the meta information of a file begins with its class.
_SEGMENTATIONS = (b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.66.7")


_DIRECTORY = b"1.2.840.10008.1.3.10"


_DEFLATED = "1.2.840.10008.1.2.1.99"


def dicom_files(path: Path) -> Iterable[Path]:
    """Yield the DICOM files below `path`; see `files_below`."""
    return files_below(path, is_dicom)


def is_dicom(path: Path) -> bool:
    """Return whether a file has the prefix DICM after its preamble, and is not a DICOMDIR, which lists other files.

    Does not read pipes and devices, which may never end.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size < 132:
            return False
        with path.open("rb") as file:
            head = file.read(1024)
        return head[128:132] == b"DICM" and _DIRECTORY not in head
    except OSError:
        return False


def is_segmentation(path: Path) -> bool:
    """Return whether a DICOM file is a segmentation (SEG), by its first bytes."""
    with path.open("rb") as file:
        head = file.read(1024)
    return any(uid in head for uid in _SEGMENTATIONS)


def first_series(files: Sequence[Path]) -> list[Path]:
    """Return the files that belong to the same series and acquisition as the first."""
    headers = [(file, load(file, pixels=False)) for file in files]
    own = [pair for pair in headers if pair[1].get("SeriesInstanceUID") == headers[0][1].get("SeriesInstanceUID")]
    parts = [[file for file, _ in part] for part in split_acquisitions(own)]
    return next(part for part in parts if files[0] in part)


def load_series(files: Iterable[Path]) -> list[Any]:
    """Read all data sets of one series with their pixels; raises `UserError` if one is damaged."""
    datasets = [load(file, pixels=True) for file in files]
    settle_headers(datasets)
    return datasets


def load(path: Path, *, pixels: bool) -> Any:
    """Read the data set of a file, with or without its pixels; raises `UserError` if it is damaged."""
    import pydicom

    try:
        # Deflated files can unpack to any size before a single element is known.
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
            hint = "convert it to an uncompressed transfer syntax"
            raise UserError("the deflated transfer syntax of DICOM is not supported", file=path, hint=hint)
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
        fill_gaps(dataset, path.name)
        return dataset
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the decoder
        raise UserError("the DICOM file cannot be read", reason(error), file=path) from error
