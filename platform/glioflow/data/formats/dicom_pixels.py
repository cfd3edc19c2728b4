"""Checks of compressed DICOM pixels: a decoder is installed, and their size is that of the header."""

import io
from pathlib import Path
from typing import Any

from glioflow.data.formats.record import reason
from glioflow.errors import TooLarge, UserError

# A byte of run lengths unpacks to at most 64 bytes, and the decoder unpacks a frame before it checks the size.
_MAX_RLE_BYTES = 2**23
# Fragments of all frames of a file: a thousand frames of a megabyte in pieces of 16 KiB have as many.
_MOST_FRAGMENTS = 2**16
_FRAGMENT = b"\xfe\xff\x00\xe0"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_12_BIT = "1.2.840.10008.1.2.4.51"
_SOF55 = 0xF7
_RLE = "1.2.840.10008.1.2.5"


def check_pixels(dataset: Any, file: Path) -> None:
    """Refuse pixels without an installed decoder, and streams of another size than in the header, before decoding.

    Raises:
        UserError: With the transfer syntax, or the size of the stream.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not _can_decode(dataset, syntax):
        rule = "DICOM pixels of this transfer syntax cannot be decoded"
        raise UserError(rule, f"{syntax.name} ({syntax})", file=file, hint=_how_to_decode(syntax))
    if not syntax.is_encapsulated or "PixelData" not in dataset:
        return
    from pydicom.encaps import generate_frames

    stated = (int(dataset.Columns), int(dataset.Rows))
    if (count := dataset.PixelData.count(_FRAGMENT)) > _MOST_FRAGMENTS:
        rule = f"compressed DICOM pixels must have at most {_MOST_FRAGMENTS} fragments"
        raise TooLarge(rule, count, file=file)
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        # The decoder prefers these offsets, where a header has them: they may lead to other streams.
        offsets = [dataset.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
        extended = (offsets[0], offsets[1]) if all(offsets) else None
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames, extended_offsets=extended):
            if syntax == _RLE:
                if len(frame) > _MAX_RLE_BYTES:
                    raise TooLarge(
                        f"a run-length encoded frame must have at most {_MAX_RLE_BYTES} bytes", len(frame), file=file
                    )
            elif (size := _size_of(frame, syntax)) != stated:
                raise UserError(
                    "compressed DICOM pixels must have the size in their header", f"{size}, not {stated}", file=file
                )
    except UserError:
        raise
    except Exception as error:  # a damaged stream can fail anywhere inside the decoder
        raise UserError("the compressed DICOM pixels cannot be read", reason(error), file=file) from error


def _can_decode(dataset: Any, syntax: Any) -> bool:
    from pydicom.pixels import get_decoder

    if syntax == _JPEG_12_BIT and dataset.get("BitsStored") != 8:
        return False  # pydicom claims to decode these, and then refuses every frame
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _how_to_decode(syntax: Any) -> str:
    """Return what makes pixels readable: another transfer syntax, or a decoder that pydicom would use."""
    from pydicom.pixels import get_decoder

    hint = "convert them to an uncompressed one, such as with `gdcmconv --raw IN OUT` of GDCM"
    try:
        missing = get_decoder(syntax).missing_dependencies
    except NotImplementedError:
        return hint
    named = next((each.partition(" requires ")[2] for each in missing if "pylibjpeg" in each), "")
    return f"{hint}, or install {named}" if named and syntax != _JPEG_12_BIT else hint


def _size_of(frame: bytes, syntax: str) -> tuple[int, int]:
    """Return the columns and rows that a JPEG stream states, without decoding it."""
    if syntax in _JPEG_LS:
        return _size_of_jpeg_ls(frame)
    from PIL import Image

    with Image.open(io.BytesIO(frame), formats=["JPEG", "JPEG2000"]) as image:
        return image.size


def _size_of_jpeg_ls(stream: bytes) -> tuple[int, int]:
    """Return columns and rows in the frame header (SOF55) of a JPEG-LS stream.

    Raises:
        ValueError: If the stream is not a sequence of marker segments.
        IndexError: If it ends before its frame header.

    Source: ITU-T T.87, annex C: markers and segments as in T.81, annex B; SOF55 holds P (1 byte), Y and X (2 each).
    """
    if not stream.startswith(b"\xff\xd8"):
        raise ValueError("a JPEG-LS stream must begin with SOI")
    start = 2
    while True:
        if stream[start] != 0xFF:
            raise ValueError("a JPEG-LS stream must have a marker where a segment ends")
        marker = stream[start + 1]
        if marker == 0xFF:  # a marker may follow any number of fill bytes
            start += 1
            continue
        header = stream[start + 2 : start + 9]
        if len(header) < 7:
            raise IndexError("the stream ends before its frame header")
        if marker == _SOF55:
            rows, columns = int.from_bytes(header[3:5], "big"), int.from_bytes(header[5:7], "big")
            return columns, rows
        start += 2 + int.from_bytes(header[:2], "big")
