"""What an experiment says about training."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from glioflow.data.batches.loaders import SamplingSettings


class TrainingSettings(BaseModel):
    """Optimization, precision and resources of one training.

    Attributes:
        epochs: Rounds of training, each followed by validation and a report.
        steps_per_epoch: Optimizer steps in one; null takes one pass over the slices (the voxels).
        batch_size: Slices (patches in 3D) of one optimizer step, over all workers.
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
        patience: Epochs without a better validation Dice before training stops; null never stops early.
        keep: Which weights the bundle gets: of the `best` validation Dice or of the `last` epoch.
        unfreeze_epoch: From this epoch on (counted from 0) what `model.freeze` kept learns too, batch norm included;
            null keeps it frozen to the end. Means nothing where nothing is frozen.
        compile: Train through torch.compile, which needs a C++ compiler and a minute or two before the first step. On
            two CPU cores it then ran `unet3d` 1.4 times as fast, U-Nets on slices no faster.
        final: Train on the validation cases too, when all settings are fixed: nothing is chosen on anyone.
        seed: Of initialization, choice of slices and augmentation.
        deterministic: Demand deterministic kernels.
        num_workers: Processes that train together; more than one runs on Ray Train with DDP. A pair [fewest, most] lets
            a training go on with fewer when a node is lost and take more when one joins, each time from its last
            checkpoint; it wants the cluster for itself, so the trials of a search have one number.
        cpus_per_worker: CPUs of each.
        gpus_per_worker: GPUs of each; a fraction lets workers share one.
        sampling: Choice and augmentation of slices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: int = Field(default=10, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
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
    unfreeze_epoch: int | None = Field(default=None, ge=1)
    compile: bool = False
    final: bool = False
    seed: int = Field(default=0, ge=0)
    deterministic: bool = False
    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    sampling: SamplingSettings = SamplingSettings()

    @model_validator(mode="after")
    def _fewest_first(self) -> "TrainingSettings":
        if isinstance(self.num_workers, tuple) and not self.num_workers[0] < self.num_workers[1]:
            raise ValueError(f"num_workers is one number or [fewest, most]: got {list(self.num_workers)}")
        return self

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change on the way."""
        return isinstance(self.num_workers, tuple)

    @property
    def min_workers(self) -> int:
        """The workers without which it does not begin."""
        return self.num_workers[0] if isinstance(self.num_workers, tuple) else self.num_workers
