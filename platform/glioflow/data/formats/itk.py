"""MetaImage (`.mha`) and NRRD files with attached data, as BraTS 2013, nnU-Net and 3D Slicer write them.

No library is used: the parsers of ITK trust any size, open any file that a header names, and abort
the process if a list in a header is longer than they expect.

Sources: MetaIO's documentation of tags (Kitware); the definition of NRRD 5 (teem.sourceforge.net/nrrd/format.html).
"""

import contextlib
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats.record import reason
from glioflow.errors import TooLarge, UserError

_MOST_HEADER_BYTES = 2**20
_MHA_END, _NRRD_END = re.compile(rb"^ElementDataFile[^\n]*\n", re.MULTILINE), re.compile(rb"\r?\n\r?\n")
_META_TYPES = {
    **{"UCHAR": "u1", "CHAR": "i1", "USHORT": "u2", "SHORT": "i2", "UINT": "u4", "INT": "i4", "ULONG": "u4"},
    **{"LONG": "i4", "ULONG_LONG": "u8", "LONG_LONG": "i8", "FLOAT": "f4", "DOUBLE": "f8"},
}
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
    **{"float": "f4", "double": "f8"},
}
# Directions of the axes of a space, as signs of left, posterior and superior.
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps", "scanner-xyz", ""), (1, 1, 1)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1, -1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1, -1, 1)),
}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Layout:
    """The contents of a header: size along X, Y, Z, type of a voxel, compression, and the affine to LPS millimeters.

    `oriented` is whether it states the directions of the axes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    packed: bool
    affine: NDArray[np.float64]
    start: int
    oriented: bool


def is_itk(name: str) -> bool:
    """Return whether a file is MetaImage or NRRD with attached data, by its name."""
    return name.lower().endswith((".mha", ".nrrd"))


def read_itk(path: Path, *, most_voxels: int) -> tuple[NDArray[np.generic], NDArray[np.float64], bool]:
    """Read a volume.

    Args:
        path: The file.
        most_voxels: Largest number of voxels.

    Returns:
        Its voxels (X, Y, Z), the affine (4, 4) from their indices to RAS millimeters, and whether the header states
        the directions of the axes.

    Raises:
        UserError: If it is damaged, not a volume of one value per voxel, lacks a spacing, or has detached data.
        TooLarge: If it states more voxels than the limit.
    """
    layout = _read_layout(path)
    if math.prod(layout.shape) > most_voxels:
        raise TooLarge(f"a volume must have at most {most_voxels} voxels", f"shape {layout.shape}", file=path)
    size = math.prod(layout.shape) * layout.dtype.itemsize
    try:
        with path.open("rb") as file:
            file.seek(layout.start)
            content = _unpack(file.read(), size) if layout.packed else file.read(size)
    except (OSError, zlib.error) as error:
        raise UserError("the file cannot be read completely", reason(error), file=path) from None
    if len(content) < size:
        raise UserError("the file cannot be read completely", f"{len(content)} of {size} bytes", file=path)
    data = np.frombuffer(content, layout.dtype).reshape(layout.shape, order="F")
    return data.astype(layout.dtype.newbyteorder("="), copy=False), _LPS_TO_RAS @ layout.affine, layout.oriented


def segment_names(path: Path) -> dict[int, str]:
    """Return the names that 3D Slicer gave to the labels of a `.seg.nrrd`, by label; empty if it cannot be read."""
    head = b""
    with contextlib.suppress(OSError), path.open("rb") as file:  # the reader of its voxels says what is wrong
        while len(head) < _MOST_HEADER_BYTES and (line := file.readline(_MOST_HEADER_BYTES)).strip():
            head += line
    text = head.decode("utf-8", "replace")
    names, values = (
        dict(re.findall(rf"^Segment(\d+)_{key}:=(.*?)\r?$", text, re.MULTILINE)) for key in ("Name", "LabelValue")
    )
    return {int(values[key]): name.strip() for key, name in names.items() if values.get(key, "").isdecimal()}


def count_values(path: Path) -> tuple[int, int]:
    """Return the number of voxels and their bytes in a header; raises `UserError` as `read_itk` does."""
    layout = _read_layout(path)
    voxels = math.prod(layout.shape)
    return voxels, voxels * layout.dtype.itemsize


def _unpack(packed: bytes, size: int) -> bytes:
    """Return `size` bytes unpacked from zlib or gzip data, which must then end with its checksum."""
    unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip
    content = unpacker.decompress(packed, size) if size else b""
    rest = unpacker.decompress(unpacker.unconsumed_tail, 1)
    return content if unpacker.eof and not rest else b""


def _read_layout(path: Path) -> _Layout:
    try:
        with path.open("rb") as file:
            head = file.read(_MOST_HEADER_BYTES)
    except OSError as error:
        raise UserError("the file cannot be read", reason(error), file=path) from error
    meta = path.suffix.lower() == ".mha"
    end = (_MHA_END if meta else _NRRD_END).search(head)
    fields = _fields(head[: end.end()], "=" if meta else ":") if end else {}
    if end is None or ("objecttype" not in fields if meta else not head.startswith(b"NRRD000")):
        raise UserError("the file must begin with a MetaImage or NRRD header", file=path)
    elsewhere = fields["elementdatafile"] != "LOCAL" if meta else {"data file", "datafile"} & fields.keys()
    if elsewhere:
        raise UserError("the voxels must be in the file itself", "a header that names another file", file=path)
    _check_one_value(fields, path)
    try:
        return _layout_of_meta(fields, end.end()) if meta else _layout_of_nrrd(fields, end.end())
    except (KeyError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise UserError("the header of the file must describe a volume", what, file=path) from None


def _fields(head: bytes, mark: str) -> dict[str, str]:
    """Return the fields of a header by their names in lower case; a repeated name is ambiguous."""
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").splitlines():
        name, separator, value = line.partition(mark)
        if not separator or name.startswith("#") or (mark == ":" and value.startswith("=")):  # a comment, or a remark
            continue
        fields[name.strip().lower()] = "twice" if name.strip().lower() in fields else value.strip()
    return fields


def _check_one_value(fields: Mapping[str, str], path: Path) -> None:
    dimensions = fields.get("ndims") or fields.get("dimension", "3")
    layers = fields.get("elementnumberofchannels", "1")
    if dimensions == "3" and layers == "1":
        return
    hint = "in Slicer, export overlapping segments to one label map" if dimensions == "4" or layers != "1" else None
    shape = f"{dimensions[:20]} dimensions and {layers[:20]} values a voxel"
    raise UserError("a volume must have three dimensions and one value a voxel", shape, file=path, hint=hint)


def _layout_of_meta(fields: Mapping[str, str], start: int) -> _Layout:
    kind = fields["elementtype"].removeprefix("MET_")
    if kind not in _META_TYPES or not _is_true(fields.get("binarydata", "True")):
        raise ValueError(f"voxels of type {fields['elementtype'][:30]}")
    if "headersize" in fields:
        raise ValueError("voxels that do not follow the header")
    big = _is_true(fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "False")))
    turned = ("transformmatrix", "rotation", "orientation")
    directions = _numbers(fields, turned, 9, "1 0 0 0 1 0 0 0 1").reshape(3, 3)
    spacing = _numbers(fields, ("elementspacing", "elementsize"), 3, "")
    affine = _affine(directions.T * spacing, _numbers(fields, ("offset", "position", "origin"), 3, "0 0 0"))
    dtype = np.dtype((">" if big else "<") + _META_TYPES[kind])
    return _Layout(
        _sides(fields["dimsize"]),
        dtype,
        _is_true(fields.get("compresseddata", "False")),
        affine,
        start,
        bool(fields.keys() & turned),
    )


def _layout_of_nrrd(fields: Mapping[str, str], start: int) -> _Layout:
    kind, encoding = fields["type"].lower(), fields["encoding"].lower()
    if kind not in _NRRD_TYPES or encoding not in ("raw", "gzip", "gz"):
        raise ValueError(f"voxels of type {kind[:30]}, {encoding[:30]}: raw and gzip are read")
    if any(fields.get(name, "0") != "0" for name in ("byte skip", "byteskip", "line skip", "lineskip")):
        raise ValueError("voxels that do not follow the header")
    space = fields.get("space", "").lower()
    if space not in _SPACES:
        raise ValueError(f"the space {space[:40]}")
    vectors = re.sub(r"[(),]", " ", fields.get("space directions", ""))
    if vectors.strip():
        directions = _numbers({"": vectors}, ("",), 9, "").reshape(3, 3).T
    else:
        directions = np.diag(_numbers(fields, ("spacings",), 3, ""))
    origin = _numbers({"": re.sub(r"[(),]", " ", fields.get("space origin", "0 0 0"))}, ("",), 3, "")
    signs = np.array(_SPACES[space], np.float64)
    big = fields.get("endian", "little").lower() == "big"
    dtype = np.dtype((">" if big else "<") + _NRRD_TYPES[kind])
    affine = _affine(signs[:, None] * directions, signs * origin)
    return _Layout(_sides(fields["sizes"]), dtype, encoding != "raw", affine, start, bool(space and vectors.strip()))


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1")


def _sides(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,8}(?:\s+[1-9]\d{0,8}){2}", text):
        raise ValueError(f"the sides {text[:40]}")
    return tuple(int(side) for side in text.split())


def _numbers(fields: Mapping[str, str], names: tuple[str, ...], count: int, default: str) -> NDArray[np.float64]:
    """Return the numbers of the first field that is present."""
    text = next((fields[name] for name in names if name in fields), default)
    if not text:
        raise ValueError(f"no {names[0]}")
    numbers = np.array([float(each) for each in text.split()[: count + 1]], np.float64)
    if len(numbers) != count:
        raise ValueError(f"{len(text.split())} numbers for {count}")
    return numbers


def _affine(steps: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    return affine
