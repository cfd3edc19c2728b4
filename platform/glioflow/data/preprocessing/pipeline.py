"""Preprocessing: pure steps from a case to the input of the network, named in an experiment and part of its bundle."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from glioflow.data.case import Case
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.geometry_steps import (
    CropBox,
    CropBrain,
    PadSquare,
    Resample,
    ResizePlane,
    SliceRange,
    resampled,
    rescaled,
)
from glioflow.data.preprocessing.intensity_steps import Clahe, Equalize, Percentile, Sharpen, UnitScale, ZScore
from glioflow.data.preprocessing.working_image import StepSettings, Volume, check_size
from glioflow.data.sequences import sequence_of
from glioflow.errors import UserError

__all__ = ["ResizePlane", "Step", "UnitScale", "Volume", "preprocess", "rename_labels", "renamed"]

Label = Annotated[int, Field(ge=0, le=255)]


class Channels(StepSettings):
    """Keep the named channels, in the order given; `pre` and `t1`, `post` and `t1ce` are the same sequence."""

    step: Literal["channels"] = "channels"
    keep: tuple[str, ...] = Field(min_length=1)

    def apply(self, volume: Volume) -> Volume:
        """Select; raises `UserError` for a channel that the case lacks."""
        index = [self._find(name, volume.channels) for name in self.keep]
        return replace(volume, image=volume.image[..., index], channels=self.keep)

    @staticmethod
    def _find(name: str, channels: Sequence[str]) -> int:
        """Return the channel of this name, or else the only channel of the same sequence."""
        if name in channels:
            return list(channels).index(name)
        same = [index for index, each in enumerate(channels) if sequence_of(each) == sequence_of(name)]
        if not same:
            raise UserError(f"unknown channel {name!r}", name, channels)
        if len(same) > 1:
            raise UserError(f"{name!r} must be one channel", name, [channels[index] for index in same])
        return same[0]


class Neighbors(StepSettings):
    """Add the neighbors of every slice as further channels (2.5D); the ends repeat the first and last slice."""

    step: Literal["neighbors"] = "neighbors"
    reach: int = Field(default=1, ge=1, le=5)

    def apply(self, volume: Volume) -> Volume:
        """Stack; the names of the neighbors' channels contain their distance: `flair-1`, `flair`, `flair+1`."""
        count = volume.image.shape[0]
        offsets = range(-self.reach, self.reach + 1)
        check_size(volume.image.shape[:3], len(volume.channels) * len(offsets))
        planes = [volume.image[np.clip(np.arange(count) + d, 0, count - 1)] for d in offsets]
        names = tuple(f"{name}{d:+d}" if d else name for d in offsets for name in volume.channels)
        return replace(volume, image=np.concatenate(planes, axis=-1), channels=names)


class LabelMap(StepSettings):
    """Change label values of the mask, e.g. {4: 3}; the others stay."""

    step: Literal["label_map"] = "label_map"
    map: dict[Label, Label]

    def apply(self, volume: Volume) -> Volume:
        """Change all values at once, so that two can be swapped."""
        return volume if volume.mask is None else replace(volume, mask=self.rename(volume.mask))

    def rename(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a mask of any shape with the new label values."""
        table = np.arange(256, dtype=np.uint8)
        for old, new in self.map.items():
            table[old] = new
        return np.asarray(table[mask])


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
    | LabelMap
    | BrainMask,
    Field(discriminator="step"),
]


def preprocess(case: Case, steps: tuple[Step, ...]) -> Volume:
    """Make the input of the network from a case; training and serving use this same function.

    Args:
        case: Case as returned by a reader.
        steps: The experiment's steps, in order.

    Returns:
        The volume in the network's geometry, with its geometry changes in `moves`.
    """
    volume = unprocessed(case)
    for step in steps:
        volume = step.apply(volume)
    return volume


def most_values(case: Case, steps: Iterable[Step]) -> int:
    """Return the most values that the image of a case has before, between or after steps; crops are not counted."""
    shape, spacing_mm, channels, most = case.shape, case.spacing_mm, len(case.channels), case.image.size
    for step in steps:
        s, h, w = before = shape
        if isinstance(step, PadSquare):
            shape = (s, max(h, w), max(h, w))
        elif isinstance(step, ResizePlane):
            shape = (s, step.size, step.size)
        elif isinstance(step, Resample) and spacing_mm is not None:
            shape = resampled(shape, spacing_mm, step.spacing_mm)
        elif isinstance(step, Neighbors):
            channels *= 2 * step.reach + 1
        elif isinstance(step, Channels):
            channels = len(step.keep)
        if spacing_mm is not None and not isinstance(step, PadSquare):
            spacing_mm = rescaled(spacing_mm, before, shape)
        most = max(most, math.prod(shape) * channels)
    return most


def unprocessed(case: Case) -> Volume:
    """Return the input of the first step for a case."""
    return Volume(case.image.astype(np.float32), case.mask, case.channels, case.spacing_mm, case=case)


def renamed(labels: Iterable[int], steps: Sequence[Step]) -> set[int]:
    """Return the label values of `labels` after `steps`, without the background."""
    table = rename_labels(np.arange(256, dtype=np.uint8), tuple(steps))
    return {int(table[label]) for label in labels} - {0}


def renamed_tissues(labels: Mapping[int, str], steps: Sequence[Step]) -> dict[int, str]:
    """Return the names of labels by their values after `steps`, without values that several labels share."""
    table = rename_labels(np.arange(256, dtype=np.uint8), tuple(steps))
    names: dict[int, list[str]] = {}
    for label, name in labels.items():
        names.setdefault(int(table[label]), []).append(name)
    return {value: united[0] for value, united in names.items() if value and len(united) == 1}


def rename_labels(mask: NDArray[np.uint8], steps: tuple[Step, ...]) -> NDArray[np.uint8]:
    """Return an original mask, in its own geometry, with the label values after `steps`."""
    for step in steps:
        if isinstance(step, LabelMap):
            mask = step.rename(mask)
    return mask
