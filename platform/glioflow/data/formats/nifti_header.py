"""Bounded checks of a NIfTI header before a library reads the file, and opening of the file by its content."""

import gzip
import logging
import math
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np

from glioflow.data.formats.counted_file import CountedFile, Steps
from glioflow.errors import TooLarge, UserError

MAX_VOXELS = 2**27
_MAX_HEADER_BYTES = 2**22
_BLOCK = 2**20
_MOST_VOLUMES = 2**15
_GZIP = b"\x1f\x8b"
# Steps of reading a packed file, whose header may hold a name that Python reads byte by byte, and its pieces, which
# some programs pack one by one: a gigabyte in pieces of 64 KiB takes a fifth of each.
_MOST_READS, _MOST_PIECES = 2**20, 2**16
_PIECE = _GZIP + b"\x08"


def read_header(path: Path, *, most: int = 1) -> Any:
    """Return the checked header of a NIfTI file: a volume of real numbers that fits in memory, close to the header.

    Args:
        path: The file.
        most: Largest number of volumes, along its fourth axis.

    Raises:
        UserError: If it is damaged, or not such a volume.
        TooLarge: If it states more than `MAX_VOXELS`.
        OSError: If the file cannot be read, or is compressed and damaged.
    """
    import nibabel

    with _opened(path) as file:
        head = file.read(544)
        size = {int.from_bytes(head[:4], order) for order in ("little", "big")}
        if 540 in size and len(head) >= 540:
            header = nibabel.Nifti2Header(head[:540], check=False)
        elif 348 in size and len(head) >= 348:
            header = nibabel.Nifti1Header(head[:348], check=False)
        else:
            raise UserError("a NIfTI file must begin with a NIfTI header", _beginning(head), file=path)
        _check_shape(header, path, most)
        if any(np.isinf(float(header[name])) for name in ("scl_slope", "scl_inter")):
            raise UserError("the scale of a NIfTI file must be finite", float(header["scl_slope"]), file=path)
        if float(header["vox_offset"]) > _MAX_HEADER_BYTES:
            offset = f"byte {float(header['vox_offset']):.0f}"
            raise UserError(
                f"the voxels must begin within the first {_MAX_HEADER_BYTES // 2**20} MiB", offset, file=path
            )
        _check_extensions(file, head, int(header["vox_offset"]), header, path)
    return header


def open_volume(path: Path) -> Any:
    """Return nibabel's image of a file with a checked header; its bytes, not its name, show whether it is compressed.

    A compressed file is read to its end to verify its checksum: a library stops at the last voxel.
    """
    import nibabel

    # It writes a line for each invalid code and reads the file as if the code were 0, which a case's warnings report.
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)
    if not is_packed(path) and not path.name.lower().endswith(".gz"):
        return nibabel.load(path)
    header = read_header(path, most=_MOST_VOLUMES)
    kind = nibabel.Nifti2Image if int(header["sizeof_hdr"]) == 540 else nibabel.Nifti1Image
    size = int(header["vox_offset"]) + num_values(header) * int(header.get_data_dtype().itemsize)
    with _opened(path) as file:
        content = file.read(size)
        if len(file.read(_MAX_HEADER_BYTES + 1)) > _MAX_HEADER_BYTES:
            raise UserError("a NIfTI file must end where its voxels do", file=path)
    return kind.from_bytes(content)


def is_packed(path: Path) -> bool:
    """Return whether a file begins with the bytes of gzip."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def num_values(header: Any) -> int:
    """Return the number of values in a header."""
    return math.prod(int(side) for side in header.get_data_shape())


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], _Unpacked(path)) if is_packed(path) else path.open("rb")


class _Unpacked(gzip.GzipFile):
    """A packed file that cannot keep Python busy with headers, which it reads in small steps."""

    def __init__(self, path: Path) -> None:
        rule = "a packed file must not hold more headers than voxels need"
        with path.open("rb") as file:
            pieces = sum(block.count(_PIECE) for block in iter(lambda: file.read(_BLOCK), b""))
        if pieces > _MOST_PIECES:
            raise UserError(rule, f"{pieces} packed pieces", file=path)
        self._packed = CountedFile(path, Steps(_MOST_READS, rule))
        super().__init__(fileobj=self._packed, mode="rb")

    def close(self) -> None:
        super().close()
        self._packed.close()


def _beginning(head: bytes) -> str:
    """Return the first bytes of a file for an error: text shows a page or a pointer in place of the file."""
    text = head[:40].decode("ascii", errors="replace").replace("\n", " ")
    return repr(text) if text and text.isprintable() and "\ufffd" not in text else "other bytes" if head else "no bytes"


def _check_shape(header: Any, path: Path, most: int) -> None:
    shape = tuple(int(side) for side in header.get_data_shape())
    if (
        len(shape) < 2
        or any(side > most for side in shape[3:4])
        or any(side != 1 for side in shape[4:])
        or min(shape) < 1
    ):
        rule = "a volume must have three dimensions, a slice two"
        hint = None if len(shape) < 4 else "name the volumes of a fourth one in channel_names of dataset.json"
        raise UserError(rule, f"shape {shape}", file=path, hint=hint)
    if num_values(header) > MAX_VOXELS:
        raise TooLarge(f"a volume must have at most {MAX_VOXELS} voxels", f"shape {shape}", file=path)
    if header.get_data_dtype().kind not in "iuf" or header.get_data_dtype().itemsize > 8:
        raise UserError("voxels must be real numbers", header.get_data_dtype(), file=path)


def _check_extensions(file: IO[bytes], head: bytes, end: int, header: Any, path: Path) -> None:
    """Refuse extensions that are longer than the space before the voxels: a library would read all of it."""
    start = int(header["sizeof_hdr"]) + 4
    if len(head) < start or not head[start - 4]:
        return
    order: Literal["little", "big"] = "little" if header.endianness == "<" else "big"
    block = head[start:] + file.read(max(0, end - len(head)))
    at = 0
    while start + at + 8 <= end and at + 8 <= len(block):
        size = int.from_bytes(block[at : at + 4], order, signed=True)
        if size < 8 or start + at + size > end:
            raise UserError("the extensions of a NIfTI header must end before its voxels", f"{size} bytes", file=path)
        at += size


def millimeters(header: Any, path: Path) -> float:
    """Return the header's unit of space in millimeters; an unstated unit is a millimeter."""
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        raise UserError("the header must state a known unit of space", int(header["xyzt_units"]), file=path) from None
    return {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)


def check_spacing(header: Any, path: Path) -> None:
    """Refuse a header whose affine depends on an unstated spacing, for which nibabel assumes 1 mm."""
    spacing = [float(step) for step in header["pixdim"][1:4]]
    if int(header["sform_code"]) > 0 or all(
        step != 0 for step, side in zip(spacing, header.get_data_shape(), strict=False) if side > 1
    ):
        return
    shown = " x ".join(f"{step:g}" for step in spacing)
    raise UserError("the header must state the spacing, in pixdim or by an affine", shown, file=path)


def is_oriented(header: Any) -> bool:
    """Return whether a header states the position of the volume: if both codes are 0, only its spacing is valid."""
    return bool(int(header["qform_code"]) or int(header["sform_code"]))
