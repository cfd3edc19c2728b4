"""Preprocessing: pure steps from a case to the network's input, named in the experiment, kept in the bundle."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from glioflow.data.case import Case
from glioflow.data.geometry import Resize, Shape, Window
from glioflow.errors import UserError


@dataclass(frozen=True)
class Volume:
    """A case on its way to the network.

    Attributes:
        image: (S, H, W, C) float32.
        mask: (S, H, W) uint8 labels, or None.
        channels: Names of the C channels.
        spacing_mm: Distance of neighbors along S, H, W; None where unknown.
        moves: The geometry changes so far, in order: what `geometry.restore` undoes.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    channels: tuple[str, ...]
    spacing_mm: tuple[float, float, float] | None = None
    moves: tuple[Window | Resize, ...] = ()

    def move(self, move: Window | Resize) -> "Volume":
        """Return the volume after a geometry change."""
        mask = None if self.mask is None else move.apply(self.mask)
        return replace(self, image=move.apply(self.image), mask=mask, moves=(*self.moves, move))  # type: ignore[arg-type]


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UnitScale(_Step):
    """Stored 8-bit values to [0, 1], unchanged otherwise: needs no statistics of the volume."""

    step: Literal["unit"] = "unit"

    def apply(self, volume: Volume) -> Volume:
        """Divide by 255; refuse what is not in 0..255."""
        if volume.image.size and (volume.image.min() < 0 or volume.image.max() > 255):
            raise UserError(
                "the step 'unit' takes images in 0..255", f"{volume.image.min():g} to {volume.image.max():g}"
            )
        return replace(volume, image=volume.image / np.float32(255))


class Percentile(_Step):
    """Clip each channel of the volume to two percentiles and rescale to [0, 1]."""

    step: Literal["percentile"] = "percentile"
    low: float = Field(default=10.0, ge=0, lt=100)
    high: float = Field(default=99.0, gt=0, le=100)
    nonzero: bool = False

    def apply(self, volume: Volume) -> Volume:
        """Rescale per channel over the volume (over its nonzero voxels where asked); a constant channel becomes 0."""
        image = np.empty_like(volume.image)
        for k in range(image.shape[-1]):
            channel = volume.image[..., k]
            values = channel[channel != 0] if self.nonzero else channel
            low, high = np.percentile(values, [self.low, self.high]) if values.size else (0.0, 0.0)
            image[..., k] = np.clip((channel - low) / (high - low), 0, 1) if high > low else 0
        return replace(volume, image=image)


class ZScore(_Step):
    """Zero mean and unit standard deviation per channel over the volume."""

    step: Literal["zscore"] = "zscore"
    nonzero: bool = False

    def apply(self, volume: Volume) -> Volume:
        """Standardize; a constant channel becomes 0; with `nonzero` the background stays 0."""
        image = np.zeros_like(volume.image)
        for k in range(image.shape[-1]):
            channel = volume.image[..., k]
            inside = channel != 0 if self.nonzero else np.ones(channel.shape, dtype=bool)
            values = channel[inside]
            if values.size and (spread := float(values.std(dtype=np.float64))) > 0:
                image[..., k][inside] = (values - values.mean(dtype=np.float64)) / spread
        return replace(volume, image=image)


class Equalize(_Step):
    """Plain histogram equalization of each slice and channel."""

    step: Literal["equalize"] = "equalize"

    def apply(self, volume: Volume) -> Volume:
        """Equalize images in [0, 1] at 256 levels."""
        import cv2

        return _per_plane(volume, self.step, cv2.equalizeHist)


class Clahe(_Step):
    """Contrast limited adaptive histogram equalization of each slice and channel."""

    step: Literal["clahe"] = "clahe"
    clip_limit: float = Field(default=2.0, gt=0)
    tiles: int = Field(default=8, ge=1)

    def apply(self, volume: Volume) -> Volume:
        """Equalize images in [0, 1] at 256 levels, tile by tile."""
        import cv2

        clahe = cv2.createCLAHE(clipLimit=self.clip_limit, tileGridSize=(self.tiles, self.tiles))
        return _per_plane(volume, self.step, clahe.apply)


class Sharpen(_Step):
    """Unsharp masking: the image plus `amount` times what a Gaussian blur takes away."""

    step: Literal["sharpen"] = "sharpen"
    sigma_px: float = Field(default=1.0, gt=0)
    amount: float = Field(default=1.0, gt=0)

    def apply(self, volume: Volume) -> Volume:
        """Sharpen each slice in the plane; values are kept in the range the volume had."""
        import cv2

        image = np.empty_like(volume.image)
        for s, plane in enumerate(volume.image):
            blurred = cv2.GaussianBlur(np.ascontiguousarray(plane), (0, 0), self.sigma_px).reshape(plane.shape)
            image[s] = plane + self.amount * (plane - blurred)
        if image.size:
            image = np.clip(image, volume.image.min(), volume.image.max())
        return replace(volume, image=image)


class Channels(_Step):
    """Keep the named channels, in the order given."""

    step: Literal["channels"] = "channels"
    keep: tuple[str, ...] = Field(min_length=1)

    def apply(self, volume: Volume) -> Volume:
        """Select; raises `UserError` for a channel that the case does not have."""
        for name in self.keep:
            if name not in volume.channels:
                raise UserError(f"unknown channel {name!r}", choices=volume.channels)
        index = [volume.channels.index(name) for name in self.keep]
        return replace(volume, image=volume.image[..., index], channels=self.keep)


class CropBox(_Step):
    """Crop in the plane to the box of what is brighter than a part of the volume's maximum, one box for all slices."""

    step: Literal["crop_box"] = "crop_box"
    above: float = Field(default=0.1, ge=0, lt=1)
    margin_px: int = Field(default=0, ge=0)

    def apply(self, volume: Volume) -> Volume:
        """Crop; an all-dark volume is left as it is."""
        bright = volume.image.max(axis=-1)
        peak = float(bright.max(initial=0.0))
        return _crop_plane(volume, (bright > self.above * peak).any(axis=0), self.margin_px)


class CropBrain(_Step):
    """Crop in the plane to the brain: edges, dilation, contours, extreme points of the largest, over all slices."""

    step: Literal["crop_brain"] = "crop_brain"
    low: int = Field(default=30, ge=0, le=255)
    high: int = Field(default=90, ge=0, le=255)
    dilation_px: int = Field(default=3, ge=1)

    def apply(self, volume: Volume) -> Volume:
        """Crop to the union of the slices' boxes; without a contour the volume is left as it is."""
        import cv2

        found = np.zeros(volume.image.shape[1:3], dtype=bool)
        kernel = np.ones((self.dilation_px, self.dilation_px), np.uint8)
        for plane in _to_bytes(volume.image.mean(axis=-1), self.step):
            edges = cv2.dilate(cv2.Canny(plane, self.low, self.high), kernel, iterations=2)
            contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            if contours:
                points = max(contours, key=cv2.contourArea).reshape(-1, 2)
                (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
                found[top : bottom + 1, left : right + 1] = True
        return _crop_plane(volume, found, 0)


class PadSquare(_Step):
    """Pad the shorter in-plane side with zeros, evenly, until the slices are square."""

    step: Literal["pad_square"] = "pad_square"

    def apply(self, volume: Volume) -> Volume:
        """Pad."""
        s, h, w = volume.image.shape[:3]
        side = max(h, w)
        return volume.move(
            Window(before=(s, h, w), start=(0, -((side - h) // 2), -((side - w) // 2)), after=(s, side, side))
        )


class ResizePlane(_Step):
    """Resize every slice to `size` x `size`."""

    step: Literal["resize"] = "resize"
    size: int = Field(ge=8, le=2048)

    def apply(self, volume: Volume) -> Volume:
        """Resize; the spacing follows."""
        return _resize(volume, (volume.image.shape[0], self.size, self.size))


class Resample(_Step):
    """Resample to a spacing in millimeters along S, H, W."""

    step: Literal["resample"] = "resample"
    spacing_mm: tuple[float, float, float]

    def apply(self, volume: Volume) -> Volume:
        """Resample; raises `UserError` where the spacing of the case is unknown."""
        if volume.spacing_mm is None:
            raise UserError("the step 'resample' needs a case with known spacing_mm", "a case without one")
        sizes = [
            max(1, round(n * have / want))
            for n, have, want in zip(volume.image.shape[:3], volume.spacing_mm, self.spacing_mm, strict=True)
        ]
        return _resize(volume, (sizes[0], sizes[1], sizes[2]))


class SliceRange(_Step):
    """Keep slices `first` to `last` (both counted from 0, both included)."""

    step: Literal["slice_range"] = "slice_range"
    first: int = Field(ge=0)
    last: int = Field(ge=0)

    def apply(self, volume: Volume) -> Volume:
        """Cut; raises `UserError` where nothing would be left."""
        s, h, w = volume.image.shape[:3]
        if self.first > min(self.last, s - 1):
            raise UserError(f"slice_range {self.first} to {self.last} lies outside the case", f"{s} slices")
        count = min(self.last, s - 1) - self.first + 1
        return volume.move(Window(before=(s, h, w), start=(self.first, 0, 0), after=(count, h, w)))


class Neighbors(_Step):
    """Give every slice its neighbors as further channels (2.5D); the ends repeat the first and last slice."""

    step: Literal["neighbors"] = "neighbors"
    reach: int = Field(default=1, ge=1, le=5)

    def apply(self, volume: Volume) -> Volume:
        """Stack; channels of the neighbor d slices away are named `flair-1`, `flair`, `flair+1`."""
        count = volume.image.shape[0]
        offsets = range(-self.reach, self.reach + 1)
        planes = [volume.image[np.clip(np.arange(count) + d, 0, count - 1)] for d in offsets]
        names = tuple(f"{name}{d:+d}" if d else name for d in offsets for name in volume.channels)
        return replace(volume, image=np.concatenate(planes, axis=-1), channels=names)


class LabelMap(_Step):
    """Rename label values of the mask, e.g. {4: 3}; the others stay."""

    step: Literal["label_map"] = "label_map"
    map: dict[int, int]

    def apply(self, volume: Volume) -> Volume:
        """Rename all at once (a swap is possible)."""
        if volume.mask is None:
            return volume
        table = np.arange(256, dtype=np.uint8)
        for old, new in self.map.items():
            table[old] = new
        return replace(volume, mask=table[volume.mask])


Step = Annotated[
    UnitScale
    | Percentile
    | ZScore
    | Equalize
    | Clahe
    | Sharpen
    | Channels
    | CropBox
    | CropBrain
    | PadSquare
    | ResizePlane
    | Resample
    | SliceRange
    | Neighbors
    | LabelMap,
    Field(discriminator="step"),
]


def preprocess(case: Case, steps: tuple[Step, ...]) -> Volume:
    """Make the network's input of a case: the same function in training and in serving.

    Args:
        case: As read.
        steps: The experiment's steps, in order.

    Returns:
        The volume in the network's geometry, with the way back in `moves`.
    """
    volume = Volume(case.image.astype(np.float32), case.mask, case.channels, case.spacing_mm)
    for step in steps:
        volume = step.apply(volume)
    return volume


def _resize(volume: Volume, after: Shape) -> Volume:
    s, h, w = volume.image.shape[:3]
    moved = volume.move(Resize(before=(s, h, w), after=after))
    if volume.spacing_mm is None:
        return moved
    a, b, c = (mm * n / m for mm, n, m in zip(volume.spacing_mm, (s, h, w), after, strict=True))
    return replace(moved, spacing_mm=(a, b, c))


def _crop_plane(volume: Volume, found: NDArray[np.bool_], margin_px: int) -> Volume:
    if not found.any():
        return volume
    s, h, w = volume.image.shape[:3]
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    top, left = max(rows[0] - margin_px, 0), max(columns[0] - margin_px, 0)
    bottom, right = min(rows[-1] + margin_px + 1, h), min(columns[-1] + margin_px + 1, w)
    return volume.move(
        Window(before=(s, h, w), start=(0, int(top), int(left)), after=(s, int(bottom - top), int(right - left)))
    )


def _to_bytes(image: NDArray[np.float32], step: str) -> NDArray[np.uint8]:
    if image.size and (image.min() < -1e-6 or image.max() > 1 + 1e-6):
        raise UserError(
            f"the step {step!r} takes images in [0, 1]: put 'unit' or 'percentile' before it",
            f"{image.min():g} to {image.max():g}",
        )
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _per_plane(volume: Volume, step: str, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Volume:
    levels = _to_bytes(volume.image, step)
    image = np.empty_like(volume.image)
    for s in range(levels.shape[0]):
        for k in range(levels.shape[-1]):
            image[s, ..., k] = function(np.ascontiguousarray(levels[s, ..., k]))
    return replace(volume, image=image / np.float32(255))
