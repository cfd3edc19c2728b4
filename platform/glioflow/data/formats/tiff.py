"""TIFF images, read in two steps: the directories, with bounds and without a decoder, and then the pixels.

Source of the layout: TIFF 6.0 (Adobe 1992), section 2; BigTIFF: the libtiff specification of 2011.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats.record import reason
from glioflow.errors import TooLarge, UserError

MAX_SIDE_PX = 4096
MAX_PAGES = 2000
_MAX_ENTRIES, _MAX_TAG_BYTES = 256, 2**21  # of one page: number of tags, and total size of their values
_WIDTH, _LENGTH, _BITS, _SAMPLES = 256, 257, 258, 277
_EXIF, _GPS, _STRIPS = 34665, 34853, (273, 279, 324, 325)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_DEFLATE = ("DEFLATE", "ADOBE_DEFLATE")
_ASSOCIATED = 1  # ExtraSamples: opacity, premultiplied into the colors
_PACKINGS = ("NONE", "PACKBITS", "LZW", *_DEFLATE)


@dataclass(frozen=True)
class Page:
    """The header of one image in a file: pixels, samples per pixel, and bits per sample."""

    width: int
    height: int
    samples: int
    bits: int

    @property
    def num_values(self) -> int:
        """Of all pixels and samples."""
        return self.width * self.height * self.samples

    @property
    def num_bytes(self) -> int:
        """Of all values, once they are decoded."""
        return self.num_values * max(1, self.bits // 8)


def read_layout(path: Path) -> tuple[Page, ...]:
    """Return the layout of a TIFF; reads a bounded part of it and decodes nothing.

    Raises:
        UserError: If it is damaged, or states more tags or strips than an image of its size can have.
        TooLarge: If an image or their number is over the limits.
    """
    try:
        with path.open("rb") as file:
            pages = tuple(_walk(file, path))
        if not pages:
            raise ValueError("a file without an image")
        return pages
    except UserError:
        raise
    except (struct.error, OverflowError, ValueError, OSError) as error:
        raise UserError("the TIFF file cannot be read", reason(error), file=path) from error


def read_pages(path: Path, *, most: int = MAX_PAGES) -> list[NDArray[np.generic]]:
    """Read all images of a TIFF, completely or not at all.

    Args:
        path: The file.
        most: Largest number of images.

    Raises:
        UserError: If the file is missing, damaged, truncated, compressed in a way that could unpack to more than its
            size, not gray or RGB, or holds more than `most` images.
        TooLarge: As `read_layout`.
    """
    import tifffile

    try:
        layout = read_layout(path)
        if len(layout) > most:
            rule = "a TIFF slice must hold one image" if most == 1 else f"a TIFF must hold at most {most} images"
            raise UserError(rule, f"{len(layout)} images", file=path)
        with tifffile.TiffFile(path) as file:
            return [_decode(file.pages[index], index, path, stated) for index, stated in enumerate(layout)]
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the decoder
        raise UserError("the TIFF file cannot be read", reason(error), file=path) from error


def _decode(page: Any, index: int, path: Path, stated: Page) -> NDArray[np.generic]:
    if page.nbytes > stated.num_bytes:
        rule = "a TIFF must state the size of an image once"
        raise UserError(rule, f"{stated.num_bytes} and {page.nbytes} bytes", file=path)
    if not all(0 < side <= MAX_SIDE_PX for side in page.shape):
        raise TooLarge(f"an image must have at most {MAX_SIDE_PX} pixels on each side", page.shape, file=path)
    name = page.compression.name
    if name not in _PACKINGS:
        choices = ["none", "packbits", "lzw", "deflate"]
        raise UserError("a TIFF must be uncompressed or losslessly packed", name, choices, file=path)
    if "PhotometricInterpretation" in page.tags and page.photometric.name not in ("MINISBLACK", "RGB"):
        hint = "store it with bright values for bright tissue, gray or RGB"
        raise UserError("a TIFF must be gray (MinIsBlack) or RGB", page.photometric.name, file=path, hint=hint)
    if "Orientation" in page.tags and page.tags["Orientation"].value != 1:
        hint = "store its rows from the top and its columns from the left"
        raise UserError(
            "a TIFF must begin at its top left", f"orientation {page.tags['Orientation'].value}", file=path, hint=hint
        )
    apart = int(page.planarconfig) == 2 and page.samplesperpixel > 1
    if name == "LZW":
        if apart:
            hint = "store it with the samples of a pixel together"
            raise UserError("a TIFF packed by LZW must not hold its samples in planes", file=path, hint=hint)
        return _decode_lzw(page, index, path)
    if name in _DEFLATE:
        _check_deflated(page, path)
    pixels = np.asarray(page.asarray(maxworkers=1))
    if _ASSOCIATED in page.extrasamples and not apart:
        _check_opaque(pixels, path)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1)) if apart else pixels


def _decode_lzw(page: Any, index: int, path: Path) -> NDArray[np.generic]:
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if not index else _multi(path, index)
    if pixels is None or pixels.shape != page.shape or pixels.dtype != page.dtype:
        raise UserError("the TIFF file cannot be read", "damaged LZW data", file=path)
    if pixels.ndim == 3 and pixels.shape[-1] == 4:  # OpenCV premultiplies colors by opacity
        _check_opaque(pixels, path)
    ordered = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]] if pixels.ndim == 3 else pixels  # OpenCV uses BGR
    return np.ascontiguousarray(ordered)


def _check_opaque(pixels: NDArray[np.generic], path: Path) -> None:
    """Refuse colors that were multiplied by an opacity: they are not the original values."""
    full = 1 if pixels.dtype.kind == "f" else np.iinfo(str(pixels.dtype)).max
    if (pixels[..., -1] != full).any():
        raise UserError("a TIFF must be opaque", "an opacity", file=path, hint="store it without an alpha channel")


def _multi(path: Path, index: int) -> Any:
    import cv2

    whole, pages = cv2.imreadmulti(str(path), index, 1, flags=cv2.IMREAD_UNCHANGED)
    return pages[0] if whole and pages else None


def _check_deflated(page: Any, path: Path) -> None:
    """Refuse data that the decoder would unpack without a limit, before unpacking it."""
    with path.open("rb") as file:
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(start)
            unpacked = zlib.decompressobj().decompress(file.read(count), page.nbytes + 1)
            if len(unpacked) > page.nbytes:
                raise UserError("a TIFF must unpack to the size that it states", file=path)


def _walk(file: IO[bytes], path: Path) -> Iterator[Page]:
    """Yield the pages in the order of their directories."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    kind = struct.unpack(f"{order}H", head[2:4])[0] if order else 0
    if kind not in (42, 43):
        raise ValueError("a file that does not begin as a TIFF does")
    form = _Form(order, "H", "I") if kind == 42 else _Form(order, "Q", "Q")
    (offset,) = struct.unpack_from(order + form.pointer, head, 4 if kind == 42 else 8)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ValueError("its images form a circle")
        seen.add(offset)
        if len(seen) > MAX_PAGES:
            raise TooLarge(f"a TIFF must hold at most {MAX_PAGES} images", file=path)
        page, offset = _read_directory(file, offset, form, path)
        yield page


def _read_directory(file: IO[bytes], offset: int, form: "_Form", path: Path) -> tuple[Page, int]:
    tags, after = _read_entries(file, offset, form)
    held = sum(entry.num_bytes for entry in tags.values())
    for key in (_EXIF, _GPS):  # the decoder reads these directories, too
        if key in tags:
            inner, _ = _read_entries(file, _first(file, tags[key], form), form)
            held += sum(entry.num_bytes for entry in inner.values())
    numbers = {key: _first(file, tags[key], form) for key in (_WIDTH, _LENGTH, _SAMPLES, _BITS) if key in tags}
    page = Page(numbers.get(_WIDTH, 0), numbers.get(_LENGTH, 0), numbers.get(_SAMPLES, 1), numbers.get(_BITS, 1))
    if not (page.width and page.height):
        raise ValueError("an image without pixels")
    if max(page.width, page.height) > MAX_SIDE_PX:
        sides = (page.height, page.width)
        raise TooLarge(f"an image must have at most {MAX_SIDE_PX} pixels on each side", sides, file=path)
    if not (1 <= page.samples <= 4 and page.bits in (1, 2, 4, 8, 16, 32, 64)):
        layout = f"{page.samples} samples of {page.bits} bits"
        raise UserError("a TIFF must be gray (MinIsBlack) or RGB", layout, file=path)
    strips = max((tags[key].count for key in _STRIPS if key in tags), default=0)
    if strips > MAX_SIDE_PX * page.samples or held > _MAX_TAG_BYTES:
        rule = "a TIFF must not state more strips and tags than its image needs"
        raise UserError(rule, f"{strips} strips, {held} bytes of tags", file=path)
    return page, after


def _first(file: IO[bytes], entry: "_Entry", form: "_Form") -> int:
    """Return the first integer of a tag."""
    letter = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(entry.kind)
    if letter is None:
        raise ValueError(f"a number of type {entry.kind}")
    raw = entry.raw
    if entry.num_bytes > len(raw):
        file.seek(struct.unpack(form.order + form.pointer, raw)[0])
        raw = file.read(8)
    return int(struct.unpack_from(form.order + letter, raw)[0])


def _read_entries(file: IO[bytes], offset: int, form: "_Form") -> tuple[dict[int, "_Entry"], int]:
    """Return the tags of a directory, and the offset of the next directory; 0 after the last."""
    file.seek(offset)
    (count,) = struct.unpack(form.order + form.counter, file.read(struct.calcsize(form.order + form.counter)))
    if count > _MAX_ENTRIES:
        raise ValueError(f"an image with {count} tags")
    width = struct.calcsize(form.order + form.pointer)
    tags = {}
    for _ in range(count):
        tag, kind, number = struct.unpack(f"{form.order}HH{form.pointer}", file.read(4 + width))
        tags[tag] = _Entry(kind, number, file.read(width))
    after = file.read(width)
    return tags, struct.unpack(form.order + form.pointer, after)[0] if len(after) == width else 0


@dataclass(frozen=True)
class _Form:
    """The number formats of a file: byte order, count of tags, and offsets."""

    order: str
    counter: str
    pointer: str


@dataclass(frozen=True)
class _Entry:
    """One tag: the type and number of its values, and the values if they fit, else their offset."""

    kind: int
    count: int
    raw: bytes

    @property
    def num_bytes(self) -> int:
        return _SIZES.get(self.kind, 8) * self.count


def check_alike(pages: Sequence[Page], path: Path) -> None:
    """Refuse images of different sizes in one file; raises `UserError`."""
    if len(set(pages)) > 1:
        raise UserError("all images of a TIFF stack must have the same size", f"{len(set(pages))} sizes", file=path)
