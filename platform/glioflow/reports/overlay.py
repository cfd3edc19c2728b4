"""A picture of the slice with the most tumor, with the mask as an overlay."""

import base64
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.sequences import shown_channel

# Colors of labels 1, 2, 3, ...; distinguishable from each other and from gray, also with color blindness.
COLORS = ("#ff7a59", "#4cc9f0", "#c77dff", "#ffd166")
_OPACITY = 0.4


class OverlayJson(TypedDict):
    """A picture of the slice with the most tumor: a PNG in base64.

    Keys:
        slice: Number of the slice, as its file's name has it.
        position: The slice counted from 0.
        position_mm: How far it lies from the first slice; None of unknown spacing.
    """

    format: Literal["png"]
    encoding: Literal["base64"]
    slice: int
    position: int
    position_mm: float | None
    data: str


def encode_overlay(labels: NDArray[np.uint8], case: Case) -> OverlayJson:
    """Return the picture in its JSON form.

    Args:
        labels: (S, H, W).
        case: The segmented case; its FLAIR is shown, or its first channel. Without tumor, the middle slice is shown.
    """
    import cv2

    areas = np.count_nonzero(labels, axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else len(areas) // 2
    plane = case.image[index, ..., shown_channel(case.channels)]
    _, png = cv2.imencode(".png", draw(plane, labels[index]))
    return {
        "format": "png",
        "encoding": "base64",
        "slice": case.slice_numbers[index],
        "position": index,
        "position_mm": case.position_mm(index),
        "data": base64.b64encode(png.tobytes()).decode(),
    }


def draw(plane: NDArray[np.generic], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return one slice (H, W, 3), blue first, gray with each label in its color and outlined."""
    import cv2

    gray = np.asarray(plane, np.float32)
    low, high = np.percentile(gray, [0.5, 99.5])
    picture = np.repeat(np.clip((gray - low) / max(high - low, 1e-6), 0, 1)[..., None] * 255, 3, axis=-1)
    for value in np.unique(labels[labels > 0]):
        inside, color = labels == value, _blue_green_red(color_of(int(value)))
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * color
        edge = inside & (cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
        picture[edge] = color
    return picture.astype(np.uint8)


def color_of(label: int) -> str:
    """Return the color of a label, `#rrggbb`."""
    return COLORS[(label - 1) % len(COLORS)]


def _blue_green_red(color: str) -> NDArray[np.float32]:
    return np.array([int(color[start : start + 2], 16) for start in (5, 3, 1)], np.float32)
