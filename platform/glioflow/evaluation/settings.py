"""Settings of `inference`, without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Precision = Literal["auto", "fp32", "bf16", "fp16"]

# Pixels of one forward pass on a CPU: on two cores, U-Nets at 128 and 256 pixels were slower with more or fewer.
CPU_PIXELS = 2**18


class InferenceSettings(BaseModel):
    """How a case is predicted.

    Attributes:
        batch_size: Number of slices in a forward pass, fewer where that is faster on a CPU; of windows for 3D networks.
        flip: Average with the prediction for the mirrored image.
        patch: Window of a 3D network along S, H, W; null takes the patch of training.
        overlap: Fraction of a window that overlaps the next one, in [0, 1); windows have Gaussian weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    batch_size: int = Field(default=16, ge=1)
    flip: bool = False
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
