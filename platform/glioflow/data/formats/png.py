"""PNG images, read in two steps: the header, with bounds and without a decoder, and then the pixels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats import tiff
from glioflow.data.formats.record import reason
from glioflow.errors import TooLarge, UserError

_PNG = b"\x89PNG\r\n\x1a\n"


def is_png(path: Path) -> bool:
    """Return whether a file is a PNG, by its name."""
    return path.suffix.lower() == ".png"


def read_png_header(path: Path) -> tiff.Page:
    """Return what a PNG header states about the pixels, without decoding them.

    Raises:
        UserError: If it does not begin like a PNG.
        TooLarge: If a side is over the limit.
    """
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or not head.startswith(_PNG) or head[12:16] != b"IHDR":
        raise UserError("the PNG file cannot be read", "no header", file=path)
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if max(width, height) > tiff.MAX_SIDE_PX:
        raise TooLarge(f"an image must have at most {tiff.MAX_SIDE_PX} pixels on each side", (width, height), file=path)
    return tiff.Page(width, height, {2: 3, 3: 3, 4: 2, 6: 4}.get(head[25], 1), head[24])


def read_png(path: Path) -> NDArray[np.generic]:
    """Read a PNG, (H, W) or (H, W, C); raises `UserError` if it is damaged."""
    from PIL import Image

    header = read_png_header(path)
    try:
        if header.bits == 16 and header.samples > 1:
            pixels = _read_deep_color(path)
            return pixels[..., 0] if header.samples == 2 else pixels
        with Image.open(path, formats=["PNG"]) as image:
            if image.size != (header.width, header.height):
                raise ValueError("two headers of different sizes")
            palette = image.mode in ("P", "PA")
            pixels = np.asarray(image.convert("RGB") if palette else image)
            gray = image.mode == "LA" or (palette and bool((pixels == pixels[..., :1]).all()))
            return pixels[..., 0] if gray else pixels
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the decoder
        raise UserError("the PNG file cannot be read", reason(error), file=path) from error


def _read_deep_color(path: Path) -> NDArray[np.generic]:
    """Read color or opacity of 16 bits, of which Pillow keeps 8; return 8 bits only if nothing is lost."""
    import cv2

    decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError("cut short or damaged")
    pixels = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB))
    return pixels if (pixels % 257).any() else (pixels // 257).astype(np.uint8)
