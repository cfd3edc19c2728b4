"""A case on its way to the network, which every preprocessing step takes and returns. Knows no step."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.data.case import Case
from glioflow.data.preprocessing.geometry import Resize, Window
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
        case: What it was before any step, where a step needs more of it than its arrays.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    channels: tuple[str, ...]
    spacing_mm: tuple[float, float, float] | None = None
    moves: tuple[Window | Resize, ...] = ()
    case: Case | None = None

    def move(self, move: Window | Resize) -> "Volume":
        """Return the volume after a geometry change."""
        mask = None if self.mask is None else move.apply(self.mask)
        return replace(self, image=move.apply(self.image), mask=mask, moves=(*self.moves, move))  # type: ignore[arg-type]


class StepSettings(BaseModel):
    """What the steps have in common: unknown settings are refused, known ones never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def to_levels(image: NDArray[np.float32], step: str) -> NDArray[np.uint8]:
    """Return an image in [0, 1] at 256 levels; raises `UserError`, naming the step, where it is not in [0, 1]."""
    if image.size and (image.min() < -1e-6 or image.max() > 1 + 1e-6):
        raise UserError(
            f"the step {step!r} takes images in [0, 1]: put 'unit' or 'percentile' before it",
            f"{image.min():g} to {image.max():g}",
        )
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
