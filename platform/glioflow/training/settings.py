"""Settings of training in an experiment."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glioflow.data.batches.settings import SamplingSettings
from glioflow.errors import UserError


class TrainingSettings(BaseModel):
    """Optimization, precision and sampling of one training.

    Attributes:
        epochs: Number of epochs, each followed by validation and a report.
        steps_per_epoch: Optimizer steps per epoch; null takes one pass over the slices (in 3D, over the voxels).
        batch_size: Slices (patches in 3D) of one optimizer step, over all workers. `auto` takes as many as fit: for
            each worker a power of two up to 256 on a GPU and 16 on a CPU, and at most a twentieth of the cohort in
            all. It is found once, by trying; a resumed or reproduced training takes the same.
        learning_rate: Peak of the schedule.
        weight_decay: Decoupled for `adamw`.
        optimizer: `adamw`, `adam` or `sgd` (Nesterov momentum 0.9).
        schedule: Schedule of the learning rate over all steps.
        warmup_steps: Steps of linear increase before the schedule.
        precision: Precision of the forward pass; `auto` takes bf16 if the hardware computes in it, otherwise fp16 on a
            GPU and fp32 on a CPU.
        channels_last: Whether the network uses the channels-last memory format.
        clip_gradient: Largest gradient norm; null does not clip gradients.
        accumulate: Number of parts into which a batch is cut to save memory. The step stays the same if the loss is a
            mean over slices, but not if it is one Dice of the whole batch, or if batch norm sees one part at a time.
        ema: Decay of the averaged weights, which are validated and kept in place of the raw ones; null keeps the raw
            ones.
        patience: Epochs without a better validation Dice before training stops; null never stops early. Only full
            validations count.
        full_validation_every: Epochs from one full validation to the next; the last epoch always has one. `val/dice` is
            measured on whole volumes in the original geometry, on the CPU. If the number is above 1, each epoch also
            measures `val/dice_at_network_size` on the network's device. Only full validations choose weights and guide
            a search. With a GPU a larger number saves time.
        keep: Which weights the bundle gets: those of the `best` validation Dice or those of the `last` epoch.
        checkpoint_minutes: Minutes between checkpoints within an epoch, besides the one after every epoch; null writes
            them only after epochs. A thread writes them while the training continues; no result depends on it.
        unfreeze_epoch: Epoch (counted from 0) from which the weights frozen by `model.freeze` are trained as well,
            batch norm included; null keeps them frozen to the end. It has no effect if nothing is frozen.
        compile: Whether to train through torch.compile, which needs a C++ compiler and a minute or two before the first
            step. On two CPU cores `unet3d` then ran 1.4 times as fast, and U-Nets on slices no faster. `auto` compiles
            on a GPU if there is a compiler and the training is long enough to regain that time.
        cuda_graphs: Whether to record a step as a CUDA graph and replay it, which helps small networks that otherwise
            leave the GPU waiting for launches. `auto` does so with one worker and a loss that runs entirely on the GPU.
        data: Where the arrays of the training cases are stored: in `device` memory, in `host` memory or on `disk`;
            `auto` takes the nearest memory into which they fit (on a CPU the disk, whose pages the system caches). The
            batches are the same.
        final: Whether to train on the validation cases too, once all settings are fixed; nothing is chosen on them
            then.
        start: Initial weights of the whole network, such as a bundle's: a .safetensors or .pth file, or its URI; null
            starts from random numbers, with `model.weights` in the encoder.
        seed: Seed of the initialization, the choice of slices, and the augmentation.
        deterministic: Whether to require deterministic kernels.
        sampling: Choice and augmentation of slices (in 3D, of patches).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: int = Field(default=10, ge=1, le=1_000_000)
    steps_per_epoch: int | None = Field(default=None, ge=1, le=1_000_000)
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = 16
    learning_rate: float = Field(default=1e-3, gt=0, le=1000)
    weight_decay: float = Field(default=1e-4, ge=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "constant", "one_cycle", "polynomial"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    clip_gradient: float | None = Field(default=None, gt=0)
    accumulate: int = Field(default=1, ge=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    patience: int | None = Field(default=None, ge=1)
    keep: Literal["best", "last"] = "best"
    full_validation_every: int = Field(default=1, ge=1)
    checkpoint_minutes: float | None = Field(default=10, gt=0)
    unfreeze_epoch: int | None = Field(default=None, ge=1)
    compile: bool | Literal["auto"] = False
    cuda_graphs: bool | Literal["auto"] = "auto"
    data: Literal["auto", "device", "host", "disk"] = "auto"
    final: bool = False
    start: str | None = None
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    deterministic: bool = False
    sampling: SamplingSettings = SamplingSettings()

    def validates_in_full(self, epoch: int) -> bool:
        """Return whether an epoch (from 0) ends with a full validation."""
        return (epoch + 1) % self.full_validation_every == 0 or epoch + 1 == self.epochs

    @model_validator(mode="after")
    def _whole_batches_where_they_are_as_large_as_fits(self) -> "TrainingSettings":
        if self.batch_size == "auto" and self.accumulate > 1:
            rule = "accumulate must be 1 if batch_size is auto, which takes the largest batch that fits in one piece"
            raise UserError(rule, self.accumulate, hint="give batch_size as a number to cut it into parts")
        return self
