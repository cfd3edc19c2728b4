"""Settings of sampling and augmentation. Imports nothing that makes a batch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from glioflow.data.batches.policies import check_policy

Storage = Literal["device", "host", "disk"]


class SamplingSettings(BaseModel):
    """Which slices or patches training draws, and how it varies them.

    Attributes:
        method: `tumor`: every patient with equal probability, then one of the patient's slices with probability
            proportional to its tumor area plus a tenth of the patient's mean area (as in Buda's PyTorch port).
            `uniform`: every slice with equal probability. `epoch`: all slices, in a new order in each pass.
        augmentation: `none`, `light`, `strong` or `nnunet` (see `policies.POLICIES`); for slices also `buda`, which is
            that of a published system.
        patch: Voxels of a patch along S, H, W, for 3D networks; null trains on slices.
        tumor_patches: Share of patches that `tumor` centers on a tumor voxel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Literal["tumor", "uniform", "epoch"] = "tumor"
    augmentation: str = "light"
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    tumor_patches: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "SamplingSettings":
        check_policy(self.augmentation, volumes=self.patch is not None)
        if self.patch is not None and self.method == "epoch":
            raise ValueError("method 'epoch' is for slices only; with a patch, choose 'tumor' or 'uniform'")
        return self
