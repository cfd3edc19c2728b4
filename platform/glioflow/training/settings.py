"""Settings of training in an experiment."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glioflow.data.batches.settings import SamplingSettings


class TrainingSettings(BaseModel):
    """Optimization, precision and sampling of one training.

    Attributes:
        epochs: Rounds of training, each followed by validation and a report.
        steps_per_epoch: Optimizer steps in one; null takes one pass over the slices (the voxels).
        batch_size: Slices (patches in 3D) of one optimizer step, over all workers. `auto` takes as many as fit: for
            each worker a power of two up to 256 on a GPU and 16 on a CPU, and at most a twentieth of the cohort in
            all. It is found once, by trying; a training that is resumed or reproduced takes the same.
        learning_rate: Peak of the schedule.
        weight_decay: Decoupled for `adamw`.
        optimizer: `adamw`, `adam` or `sgd` (Nesterov momentum 0.9).
        schedule: Of the learning rate over all steps.
        warmup_steps: Steps of linear rise before it.
        precision: `auto` is bf16 where the hardware has it.
        channels_last: Memory format of the network.
        clip_gradient: Largest gradient norm; null leaves gradients alone.
        accumulate: Parts into which a batch is cut to save memory; the step is the same where the loss is a mean over
            slices, not where it is one Dice of the whole batch or where batch norm sees a part at a time.
        ema: Decay of averaged weights that are validated and kept instead of the raw ones; null keeps the raw ones.
        patience: Epochs without a better validation Dice before training stops; null never stops early. It is asked
            after full validations only.
        full_validation_every: Epochs from one full validation to the next; the last epoch always has one. `val/dice` is
            of whole volumes in the original geometry, which the CPU computes; where it is above 1, each epoch also has
            `val/dice_at_network_size`, computed where the network is. Only full validations choose weights, and only
            they are seen by a search. With a GPU a larger number saves time.
        keep: Which weights the bundle gets: of the `best` validation Dice or of the `last` epoch.
        checkpoint_minutes: Checkpoints are written after every epoch and, within one, every so many minutes; null
            writes them after epochs alone. A thread does it while the training continues. It changes no result.
        unfreeze_epoch: From this epoch on (counted from 0) what `model.freeze` kept learns too, batch norm included;
            null keeps it frozen to the end. Means nothing where nothing is frozen.
        compile: Train through torch.compile, which needs a C++ compiler and a minute or two before the first step. On
            two CPU cores it then ran `unet3d` 1.4 times as fast, U-Nets on slices no faster. `auto` compiles on a GPU
            where a compiler is there and the training is long enough to win the time back.
        cuda_graphs: Record a step as a CUDA graph and replay it, which helps small networks, whose GPU otherwise waits
            for launches. `auto` does so with one worker and a loss that runs on the GPU alone.
        data: Where the arrays of the training cases lie: in `device` memory, in `host` memory or on `disk`; `auto`
            takes the nearest memory that they fit into (on a CPU the disk, whose pages the system keeps). It changes
            no batch.
        final: Train on the validation cases too, when all settings are fixed: nothing is chosen on anyone.
        start: Weights of the whole network to begin with, such as a bundle's: a .safetensors or .pth file, or its URI;
            null begins with random numbers, and `model.weights` in the encoder.
        seed: Of initialization, choice of slices and augmentation.
        deterministic: Demand deterministic kernels.
        sampling: Choice and augmentation of slices.
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
            raise ValueError(
                "batch_size: auto takes the largest batch that fits in one piece, so accumulate must be 1: "
                f"got {self.accumulate}; give batch_size as a number to cut it into parts"
            )
        return self
