"""Steps that move voxels: crops, padding, resizing, slice ranges. Each records its move in `moves`."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from glioflow.data.case import LEAST_SPACING_MM, MOST_SPACING_MM
from glioflow.data.preprocessing.geometry import Resize, Shape, Window
from glioflow.data.preprocessing.working_image import StepSettings, Volume, to_levels
from glioflow.errors import UserError
from glioflow.evaluation.boxes import bounding_box

Spacing = tuple[float, float, float]
_SpacingMm = Annotated[float, Field(ge=LEAST_SPACING_MM, le=MOST_SPACING_MM)]


class CropBox(StepSettings):
    """Crop in the plane to all that is brighter than a fraction of the volume's maximum, one box for all slices."""

    step: Literal["crop_box"] = "crop_box"
    above: float = Field(default=0.1, ge=0, lt=1)
    margin_px: int = Field(default=0, ge=0)

    def apply(self, volume: Volume) -> Volume:
        """Crop; an all-dark volume is not changed."""
        bright = volume.image.max(axis=-1)
        peak = float(bright.max(initial=0.0))
        return _crop_plane(volume, (bright > self.above * peak).any(axis=0), self.margin_px)


class CropBrain(StepSettings):
    """Crop in the plane to the brain, found by edges, dilation and the largest contour; one box for all slices."""

    step: Literal["crop_brain"] = "crop_brain"
    low: int = Field(default=30, ge=0, le=255)
    high: int = Field(default=90, ge=0, le=255)
    dilation_px: int = Field(default=3, ge=1)

    def apply(self, volume: Volume) -> Volume:
        """Crop to the union of all slices' boxes; a volume without any contour is not changed."""
        import cv2

        brain = np.zeros(volume.image.shape[1:3], dtype=bool)
        kernel = np.ones((self.dilation_px, self.dilation_px), np.uint8)
        for plane in to_levels(volume.image.mean(axis=-1), self.step):
            edges = cv2.dilate(cv2.Canny(plane, self.low, self.high), kernel, iterations=2)
            contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            if contours:
                points = max(contours, key=cv2.contourArea).reshape(-1, 2)
                (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
                brain[top : bottom + 1, left : right + 1] = True
        return _crop_plane(volume, brain, 0)


class PadSquare(StepSettings):
    """Pad the shorter in-plane side with zeros, evenly, until the slices are square."""

    step: Literal["pad_square"] = "pad_square"

    def apply(self, volume: Volume) -> Volume:
        """Pad."""
        s, h, w = volume.image.shape[:3]
        side = max(h, w)
        return volume.move(
            Window(before=(s, h, w), start=(0, -((side - h) // 2), -((side - w) // 2)), after=(s, side, side))
        )


class ResizePlane(StepSettings):
    """Resize every slice to `size` x `size`."""

    step: Literal["resize"] = "resize"
    size: int = Field(ge=8, le=2048)

    def apply(self, volume: Volume) -> Volume:
        """Resize, and adapt the spacing."""
        return _resize(volume, (volume.image.shape[0], self.size, self.size))


class Resample(StepSettings):
    """Resample to a spacing in millimeters along S, H, W."""

    step: Literal["resample"] = "resample"
    spacing_mm: tuple[_SpacingMm, _SpacingMm, _SpacingMm]

    def apply(self, volume: Volume) -> Volume:
        """Resample; raises `UserError` if the spacing of the case is unknown."""
        if volume.spacing_mm is None:
            raise UserError("the step 'resample' needs a case whose spacing is known")
        return _resize(volume, resampled(volume.image.shape[:3], volume.spacing_mm, self.spacing_mm))


def resampled(shape: tuple[int, ...], have_mm: Spacing, want_mm: Spacing) -> Shape:
    """Return the shape (S, H, W) of an image once it is resampled to another spacing."""
    s, h, w = (max(1, round(n * have / want)) for n, have, want in zip(shape, have_mm, want_mm, strict=True))
    return s, h, w


class SliceRange(StepSettings):
    """Keep the slices `first` to `last`, counted from 0, both included."""

    step: Literal["slice_range"] = "slice_range"
    first: int = Field(ge=0)
    last: int = Field(ge=0)

    def apply(self, volume: Volume) -> Volume:
        """Cut; raises `UserError` if no slice would be left."""
        s, h, w = volume.image.shape[:3]
        if self.first > min(self.last, s - 1):
            rule = f"slice_range keeps the slices {self.first} to {self.last}, and the case has none of them"
            raise UserError(rule, f"{s} slices")
        count = min(self.last, s - 1) - self.first + 1
        return volume.move(Window(before=(s, h, w), start=(self.first, 0, 0), after=(count, h, w)))


def _resize(volume: Volume, after: Shape) -> Volume:
    s, h, w = volume.image.shape[:3]
    moved = volume.move(Resize(before=(s, h, w), after=after))
    if volume.spacing_mm is None:
        return moved
    return replace(moved, spacing_mm=rescaled(volume.spacing_mm, (s, h, w), after))


def rescaled(spacing_mm: Spacing, before: Shape, after: Shape) -> Spacing:
    """Return the spacing of an image once it is resized from one shape (S, H, W) to another."""
    s, h, w = (mm * n / m for mm, n, m in zip(spacing_mm, before, after, strict=True))
    return s, h, w


def _crop_plane(volume: Volume, shown: NDArray[np.bool_], margin_px: int) -> Volume:
    """Crop all slices to the box around `shown` (H, W) and a margin; an empty volume is not changed."""
    if not shown.any():
        return volume
    s, h, w = volume.image.shape[:3]
    rows, columns = bounding_box(shown)
    top, left = max(rows.start - margin_px, 0), max(columns.start - margin_px, 0)
    bottom, right = min(rows.stop + margin_px, h), min(columns.stop + margin_px, w)
    return volume.move(Window(before=(s, h, w), start=(0, top, left), after=(s, bottom - top, right - left)))
