"""The training loop, from the first step to the last.

A checkpoint holds the whole state, and batches are a function of (seed, step), so that a
run that was killed and resumed ends with the same weights as an uninterrupted one.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from glioflow.data.batches.steps import Batches
from glioflow.errors import RunFailed
from glioflow.training.checkpoints import Checkpoint, Clock, State
from glioflow.training.settings import TrainingSettings
from glioflow.training.trainer import Progress, Trainer
from glioflow.training.workers import broadcast_buffers


class Report(Protocol):
    """Interface of the receiver of reports: Ray Tune, Ray Train, MLflow or a test."""

    def __call__(self, epoch: int, metrics: dict[str, float], write_checkpoint: Checkpoint) -> None:
        """Receive a finished epoch (from 0); `write_checkpoint(folder)` writes everything that a resume needs.

        Another thread can write a copy, `write_checkpoint.copied()`, while training continues.
        """


@dataclass(frozen=True)
class Fitted:
    """The result of training.

    Attributes:
        weights: State of the kept network, on the CPU.
        epoch: Epoch of these weights.
        dice: Validation Dice of these weights.
    """

    weights: State
    epoch: int
    dice: float


def fit(
    network: nn.Module,
    loss: nn.Module,
    batches: Batches,
    validate: Callable[[nn.Module], dict[str, float]],
    settings: TrainingSettings,
    report: Report,
    *,
    resume: Path | None = None,
    glance: Callable[[nn.Module], dict[str, float]] | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
    announced: Callable[[], bool] | None = None,
    decided: Callable[[dict[str, str]], None] | None = None,
) -> Fitted:
    """Train `network` in place.

    Args:
        network: On its device; wrapped here for several workers if torch.distributed is initialized.
        loss: (logits, target) to a scalar.
        batches: Training batches of this worker by step.
        validate: Function of the network that returns metrics, with `val/dice` unless the last weights are kept, the
            same on every worker. Called after epochs that `settings.full_validation_every` names.
        settings: Settings of training.
        report: Called after each epoch, on every worker.
        resume: Folder with a checkpoint to continue from.
        glance: Function of the network that returns further metrics, called after every epoch if some lack validation.
        keep: Called with a checkpoint within an epoch, every `settings.checkpoint_minutes`, on every worker.
        announced: Whether the end of a machine was announced since the last call; then `keep` is called at once.
        decided: Called before `report` with `Trainer.choices` whenever they changed, on every worker.

    Returns:
        The kept weights.

    Raises:
        RunFailed: If the loss or every validation Dice is not finite.
        OutOfMemoryError: If the GPU is too small; says which setting to lower.
        UserError: If `settings.compile` finds no compiler.
    """
    trainer = Trainer(network, loss, batches, settings)
    progress = trainer.load(resume) if resume is not None else Progress()
    if keep is not None and settings.checkpoint_minutes is not None:
        trainer.clock = Clock(settings.checkpoint_minutes, announced)
        this = weakref.proxy(trainer)  # avoids a reference cycle
        trainer.on_begun = lambda begun: keep(this.checkpoint(progress, begun))
    known: dict[str, str] = {}
    for epoch in range(progress.epoch, settings.epochs):
        if progress.stalled(settings):  # checked before an epoch, so that a resumed run stops at the same one
            break
        with _saying_what_to_lower(f"training.batch_size ({settings.batch_size})"):
            metrics = trainer.run_epoch(epoch)
        broadcast_buffers(trainer.candidate)
        with _saying_what_to_lower("inference.batch_size"):
            if glance is not None and settings.full_validation_every > 1:
                metrics |= glance(trainer.candidate)
            if settings.validates_in_full(epoch):
                metrics |= validate(trainer.candidate)
        progress.finish_epoch(metrics.get("val/dice", math.nan), trainer.candidate, keep=settings.keep)
        if decided is not None and trainer.choices != known:
            known = trainer.choices
            decided(known)
        report(epoch, metrics, trainer.checkpoint(progress))
    if progress.kept is None:
        raise RunFailed("the validation Dice is not a number in any epoch: no weights to keep")
    return Fitted(progress.kept, progress.kept_epoch, progress.kept_dice)


@contextmanager
def _saying_what_to_lower(setting: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        rule = f"out of GPU memory: lower {setting}, or let fewer processes share the GPU"
        raise torch.OutOfMemoryError(rule) from error
