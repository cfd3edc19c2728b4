"""The volume that every preprocessing step takes and returns. Knows no step."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.data.case import Case
from glioflow.data.preprocessing.geometry import Resize, Window
from glioflow.errors import TooLarge, UserError

# Largest number of values in an image after a step: four channels of 512 x 512 x 512.
MAX_VALUES = 2**29


@dataclass(frozen=True)
class Volume:
    """A case between two preprocessing steps.

    Attributes:
        image: (S, H, W, C) float32.
        mask: (S, H, W) uint8 labels, or None.
        channels: Names of the C channels.
        spacing_mm: Distance of neighbors along S, H, W; None if unknown.
        moves: The changes of geometry so far, in order, which `geometry.restore` undoes.
        case: The case before any step, for steps that need more than its arrays; None if there is none.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    channels: tuple[str, ...]
    spacing_mm: tuple[float, float, float] | None = None
    moves: tuple[Window | Resize, ...] = ()
    case: Case | None = None

    def move(self, move: Window | Resize) -> "Volume":
        """Return the volume after a geometry change.

        Raises:
            TooLarge: If it would have more than `MAX_VALUES`; checked before allocating.
        """
        check_size(move.after, len(self.channels))
        mask = None if self.mask is None else move.apply(self.mask)
        return replace(self, image=move.apply(self.image), mask=mask, moves=(*self.moves, move))  # type: ignore[arg-type]


def check_size(shape: tuple[int, ...], channels: int) -> None:
    """Refuse an image of this shape (S, H, W) and number of channels if it is too large, before it is made.

    Raises:
        TooLarge: If it would have more than `MAX_VALUES`.
    """
    if math.prod(shape) * channels > MAX_VALUES:
        rule = f"a study must have at most {MAX_VALUES} values after each step of its preprocessing"
        hint = "check the spacing and the sides of its images, or give a smaller part of them"
        raise TooLarge(rule, f"{' x '.join(map(str, shape))} x {channels}", hint=hint)


class StepSettings(BaseModel):
    """Base of all steps: unknown settings are refused, and settings never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def to_levels(image: NDArray[np.float32], step: str) -> NDArray[np.uint8]:
    """Return an image in [0, 1] at 256 levels; raises `UserError` with the step's name if it is not in [0, 1]."""
    if image.size and (image.min() < -1e-6 or image.max() > 1 + 1e-6):
        raise UserError(
            f"the step {step!r} needs images in [0, 1]",
            f"{image.min():g} to {image.max():g}",
            hint="put the step 'unit' or 'percentile' before it",
        )
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
