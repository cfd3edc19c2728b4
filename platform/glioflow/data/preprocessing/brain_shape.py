"""Approximation of the brain by brightness and shape, if no brain mask is given."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def approximate_brain(image: NDArray[np.float32], opening_px: int) -> NDArray[np.bool_]:
    """Find the brain by brightness and shape: good enough to remove most of the scalp, but not anatomically exact.

    It tends to keep too much at the base of the skull and near the apex, where scalp and brain touch.

    Args:
        image: (S, H, W, C), background darkest.
        opening_px: As in `brain_mask.BrainMask`.

    Returns:
        (S, H, W); everything if no brain is found.
    """
    gray = image.mean(axis=-1)
    gray = gray - gray.min(initial=np.inf)
    head = gray > 0.15 * np.percentile(gray, 99) if gray.size else gray > 0
    if not head.any():
        return np.ones(gray.shape, bool)
    # The skull is dark in every sequence; half the median of each slice is a threshold that is robust to bias fields.
    bright = np.stack(
        [
            inside & (plane > 0.5 * np.median(plane[inside])) if inside.any() else inside
            for plane, inside in zip(gray, head, strict=True)
        ]
    )
    reach = max(1, round(opening_px * gray.shape[2] / 256))
    deep = np.stack([_depth(plane) > 2 * reach for plane in head])
    core = deep & np.stack([cv2.erode(plane.astype(np.uint8), _disk(reach)) > 0 for plane in bright])
    pieces, count = ndimage.label(core)
    if count == 0:
        return np.ones(gray.shape, bool)
    largest = (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).astype(np.uint8)
    grown = [cv2.morphologyEx(cv2.dilate(plane, _disk(reach)), cv2.MORPH_CLOSE, _disk(2 * reach)) for plane in largest]
    return np.stack([_fill_holes(plane) for plane in grown])


def _depth(head: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Return the depth of each pixel of a slice inside the head, in pixels; the scalp is outermost."""
    filled = _fill_holes(head)
    if filled.all():
        return np.full(head.shape, np.inf)
    return np.asarray(cv2.distanceTransform(filled.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _fill_holes(plane: NDArray[np.generic]) -> NDArray[np.bool_]:
    outside = np.ascontiguousarray(np.pad(plane, 1), np.uint8)  # filled in place; needs contiguous rows
    cv2.floodFill(outside, None, (0, 0), 2)
    return np.asarray(outside[1:-1, 1:-1] != 2)


def _disk(reach: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)), np.uint8)
