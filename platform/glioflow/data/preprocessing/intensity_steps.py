"""Steps that change intensities: rescaling, standardizing, equalizing, sharpening."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from glioflow.data.preprocessing.working_image import StepSettings, Volume, to_levels
from glioflow.errors import UserError


class UnitScale(StepSettings):
    """Bring stored 8-bit values to [0, 1], without any statistics of the volume."""

    step: Literal["unit"] = "unit"
    takes_unit_range: ClassVar[bool] = False

    def of_unit_range(self) -> "UnitScale":
        """Return the step for a model whose training images were in 0..1, with the same scaling."""
        return _ScaledBefore()

    def apply(self, volume: Volume) -> Volume:
        """Divide by 255; raises `UserError` if a value is not in 0..255, or the values are already in 0..1."""
        low, high = (float(volume.image.min()), float(volume.image.max())) if volume.image.size else (0.0, 0.0)
        scaled = volume.case is not None and volume.case.image.dtype.kind == "f" and 0 < high <= 1
        if low < 0 or high > 255 or (scaled and not self.takes_unit_range):
            raise UserError(
                "the intensities of a study must be in 0..255, as 8-bit files hold them, for the model's step 'unit'",
                f"{low:g} to {high:g}",
                hint="rescale every sequence to 0..255 over the whole volume, say from its 0.5th to its 99.5th "
                "percentile, or train with the step 'percentile' or 'zscore'",
            )
        return replace(volume, image=volume.image / np.float32(255))


class _ScaledBefore(UnitScale):
    """The step for a model whose training images were in 0..1."""

    takes_unit_range: ClassVar[bool] = True


class Percentile(StepSettings):
    """Clip each channel of the volume to two percentiles and rescale to [0, 1]."""

    step: Literal["percentile"] = "percentile"
    low: float = Field(default=10.0, ge=0, lt=100)
    high: float = Field(default=99.0, gt=0, le=100)
    nonzero: bool = False

    def apply(self, volume: Volume) -> Volume:
        """Rescale each channel over the volume, with `nonzero` over nonzero voxels; a constant channel becomes 0."""
        image = np.empty_like(volume.image)
        for k in range(image.shape[-1]):
            channel = volume.image[..., k]
            values = channel[channel != 0] if self.nonzero else channel
            low, high = np.percentile(values, [self.low, self.high]) if values.size else (0.0, 0.0)
            image[..., k] = np.clip((channel - low) / (high - low), 0, 1) if high > low else 0
        return replace(volume, image=image)


class ZScore(StepSettings):
    """Zero mean and unit standard deviation per channel over the volume."""

    step: Literal["zscore"] = "zscore"
    nonzero: bool = False

    def apply(self, volume: Volume) -> Volume:
        """Standardize; a constant channel becomes 0, and with `nonzero` the background stays 0."""
        image = np.zeros_like(volume.image)
        for k in range(image.shape[-1]):
            channel = volume.image[..., k]
            inside = channel != 0 if self.nonzero else np.ones(channel.shape, dtype=bool)
            values = channel[inside]
            if values.size and (spread := float(values.std(dtype=np.float64))) > 0:
                image[..., k][inside] = (values - values.mean(dtype=np.float64)) / spread
        return replace(volume, image=image)


class Equalize(StepSettings):
    """Plain histogram equalization of each slice and channel."""

    step: Literal["equalize"] = "equalize"

    def apply(self, volume: Volume) -> Volume:
        """Equalize images in [0, 1] at 256 levels."""
        import cv2

        return _per_plane(volume, self.step, cv2.equalizeHist)


class Clahe(StepSettings):
    """Contrast limited adaptive histogram equalization of each slice and channel."""

    step: Literal["clahe"] = "clahe"
    clip_limit: float = Field(default=2.0, gt=0)
    tiles: int = Field(default=8, ge=1)

    def apply(self, volume: Volume) -> Volume:
        """Equalize images in [0, 1] at 256 levels, tile by tile."""
        import cv2

        clahe = cv2.createCLAHE(clipLimit=self.clip_limit, tileGridSize=(self.tiles, self.tiles))
        return _per_plane(volume, self.step, clahe.apply)


class Sharpen(StepSettings):
    """Unsharp masking: the image plus `amount` times its difference from a Gaussian blur."""

    step: Literal["sharpen"] = "sharpen"
    sigma_px: float = Field(default=1.0, gt=0)
    amount: float = Field(default=1.0, gt=0)

    def apply(self, volume: Volume) -> Volume:
        """Sharpen each slice in the plane; values stay in the range of the volume."""
        import cv2

        image = np.empty_like(volume.image)
        for s, plane in enumerate(volume.image):
            blurred = cv2.GaussianBlur(np.ascontiguousarray(plane), (0, 0), self.sigma_px).reshape(plane.shape)
            image[s] = plane + self.amount * (plane - blurred)
        if image.size:
            image = np.clip(image, volume.image.min(), volume.image.max())
        return replace(volume, image=image)


def _per_plane(volume: Volume, step: str, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Volume:
    levels = to_levels(volume.image, step)
    image = np.empty_like(volume.image)
    for s in range(levels.shape[0]):
        for k in range(levels.shape[-1]):
            image[s, ..., k] = function(np.ascontiguousarray(levels[s, ..., k]))
    return replace(volume, image=image / np.float32(255))
