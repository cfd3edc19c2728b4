"""Pictures that move through the slices of a case: animated PNG, truth outlined in blue, prediction in red."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation.boxes import bounding_box

MAX_FRAMES = 24
SIDE_PX = 360
FRAME_MS = 220
_GRAYS = 60
_TRUTH, _PREDICTION, _CURSOR, _TRACK = range(_GRAYS, _GRAYS + 4)
_COLORS = ((66, 153, 225), (245, 101, 101), (255, 255, 255), (26, 32, 44))


def film(image: NDArray[np.floating[Any]], truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> bytes:
    """Draw a case slice by slice; the lower edge shows which slices have true and predicted tumor.

    Args:
        image: (S, H, W), any range; cropped to what is not dark.
        truth: (S, H, W).
        prediction: (S, H, W).

    Returns:
        Animated PNG of at most `MAX_FRAMES` slices, evenly chosen, endlessly repeated.
    """
    from PIL import Image

    num_slices = len(image)
    shown = np.unique(np.linspace(0, num_slices - 1, min(num_slices, MAX_FRAMES)).round().astype(int))
    low, high = np.percentile(image, [1, 99.7])
    box = _crop(image > low + 0.08 * (high - low))
    frames = []
    for index in shown:
        gray = np.clip((image[index][box] - low) / max(high - low, 1e-6), 0, 1) * (_GRAYS - 1)
        size = _size(gray.shape)
        pixels = np.asarray(Image.fromarray(gray.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        drawn = np.clip(pixels.round(), 0, _GRAYS - 1).astype(np.uint8)
        for mask, color in ((truth, _TRUTH), (prediction, _PREDICTION)):
            enlarged = Image.fromarray(mask[index][box].astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            drawn[_outline(np.asarray(enlarged) > 0)] = color
        frames.append(np.concatenate([drawn, _track(truth, prediction, int(index), size[0])]))
    return _animate(frames)


def _crop(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns that are not empty in every slice."""
    _, rows, columns = bounding_box(inside)
    return (rows, columns) if rows.stop else (slice(None), slice(None))


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return width and height at which the longer side has `SIDE_PX`."""
    scale = SIDE_PX / max(shape)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask's rim, two pixels wide."""
    inner: NDArray[np.bool_] = mask
    for _ in range(2):
        wide = np.pad(inner, 1)
        beside = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
        inner = np.asarray(np.logical_and.reduce([inner, *beside]))
    return np.logical_and(mask, ~inner)


def _track(truth: NDArray[np.bool_], prediction: NDArray[np.bool_], index: int, width: int) -> NDArray[np.uint8]:
    """Return the lower edge, (10, width): true tumor slices above, predicted ones below, and a mark at this slice."""
    track = np.full((10, width), _TRACK, np.uint8)
    which = np.arange(width) * len(truth) // width
    for rows, mask, color in ((slice(1, 5), truth, _TRUTH), (slice(5, 9), prediction, _PREDICTION)):
        track[rows, np.asarray(mask.any(axis=(1, 2)))[which]] = color
    track[:, which == index] = _CURSOR
    return track


def _animate(frames: list[NDArray[np.uint8]]) -> bytes:
    from PIL import Image

    grays = [round(255 * level / (_GRAYS - 1)) for level in range(_GRAYS)]
    palette = [value for gray in grays for value in (gray, gray, gray)] + [part for color in _COLORS for part in color]
    images = []
    for frame in frames:
        drawn = Image.fromarray(frame, mode="P")
        drawn.putpalette(palette)
        images.append(drawn)
    buffer = io.BytesIO()
    images[0].save(
        buffer, format="PNG", save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0, optimize=False
    )
    return buffer.getvalue()
