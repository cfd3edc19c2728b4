"""The pixels of one slice of the LGG set, or of its mask, from TIFF or PNG."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats import png, tiff
from glioflow.data.formats.png import is_png
from glioflow.errors import UserError

_CHANNELS = 3


def read_slice(path: Path) -> NDArray[np.uint8]:
    """Read one slice, (H, W, 3) uint8; raises `UserError` if the file is unreadable or not an RGB image."""
    pixels = read_pixels(path)
    if holds_8_bits(pixels):
        pixels = to_8_bits(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != _CHANNELS:
        rule = "a slice must be an 8-bit image with three channels"
        raise UserError(rule, f"shape {pixels.shape} and type {pixels.dtype}", file=path)
    return pixels.astype(np.uint8, copy=False)


def holds_8_bits(pixels: NDArray[np.generic]) -> bool:
    """Return whether an image of 16 bits holds 8, as programs store them that write 65535 for 255."""
    return pixels.dtype == np.uint16 and not (pixels % 257).any()


def to_8_bits(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return the 8 bits of an image for which `holds_8_bits` is true."""
    return (pixels // 257).astype(np.uint8)


def read_mask(path: Path, shape: tuple[int, ...], threshold: int | None = None) -> NDArray[np.uint8]:
    """Read one mask as (H, W) of 0 and 1; raises `UserError` if it is not binary or not of `shape`."""
    return to_binary(read_pixels(path), shape, path, threshold)


def to_binary(
    pixels: NDArray[np.generic], shape: tuple[int, ...], path: Path, threshold: int | None = None
) -> NDArray[np.uint8]:
    """Return a mask of 0 and 255 (or 1, or 65535) as 0 and 1; raises `UserError` as `read_mask` does.

    Args:
        pixels: (H, W), or (H, W, C) with equal channels.
        shape: (H, W) of the slice.
        path: The file, for errors.
        threshold: Value above which a pixel is tumor; None accepts only masks of two values.
    """
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4) and (pixels[..., :3] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.shape != shape:
        raise UserError("a mask must have the size of its slice", f"{pixels.shape}, not {shape}", file=path)
    if threshold is not None and pixels.max(initial=0) > 1:  # a mask of 0 and 1 is not blurred
        return np.asarray(pixels > threshold, np.uint8)  # type: ignore[operator]
    foreground = pixels != 0
    if foreground.any():
        values = pixels[foreground]
        if values.min() != values.max() or values[0] not in (1, 255, 65535):
            blurred = len(np.unique(pixels)) > 2
            hint = "if JPEG blurred it, write `mask_threshold: 127` into a file cohort.yaml beside the cases"
            shown = np.unique(pixels)[:5].tolist()
            rule = "a mask must hold only 0 and 255, or 0 and 1"
            raise UserError(rule, shown, file=path, hint=hint if blurred else None)
    return np.asarray(foreground, np.uint8)


def read_tiff(path: Path) -> NDArray[np.generic]:
    """Read the only image of a TIFF, completely or not at all.

    Raises:
        UserError: As `tiff.read_pages`, or if the file holds several images.
    """
    return tiff.read_pages(path, most=1)[0]


def read_pixels(path: Path) -> NDArray[np.generic]:
    """Read the only image of a TIFF or PNG; raises `UserError` as `read_tiff`."""
    return png.read_png(path) if is_png(path) else read_tiff(path)
