"""What a model version must show before it becomes champion."""

from pydantic import BaseModel, ConfigDict, Field


class GateSettings(BaseModel):
    """Rules of the promotion gate, each with its number.

    Attributes:
        min_patients: Test patients below which the answer is `insufficient-evidence`.
        margin: Mean Dice that a challenger may lose against the champion, at the lower end of the paired interval.
        margin_over_baseline: Mean Dice by which a version must beat the all-empty and FLAIR-threshold baselines.
        max_false_positive_slice_rate: Share of tumor-free slices with any predicted tumor; null does not ask.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_patients: int = Field(default=10, ge=1)
    margin: float = Field(default=0.02, ge=0, le=1)
    margin_over_baseline: float = Field(default=0.0, ge=0, le=1)
    max_false_positive_slice_rate: float | None = Field(default=None, ge=0, le=1)
