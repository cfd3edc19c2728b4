"""One training from its first step to its last, read top to bottom.

Everything that decides what happens next is in the checkpoint, and batches are a function of (seed, step), so that a
run that was killed and resumed ends with the weights of one that was not.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from glioflow import atomic
from glioflow.data.batches.sampling import Batches
from glioflow.errors import RunFailed, UserError
from glioflow.evaluation.inference import autocast, keep_freed_memory, resolve_precision
from glioflow.models.network import Network
from glioflow.training.schedules import learning_rate_factor
from glioflow.training.settings import TrainingSettings

CHECKPOINT = "checkpoint.pt"
State = dict[str, Tensor]


class Report(Protocol):
    """Whoever listens: Ray Tune, Ray Train, MLflow, a test."""

    def __call__(self, epoch: int, metrics: dict[str, float], write_checkpoint: Callable[[Path], None]) -> None:
        """Hear of a finished epoch (from 0); `write_checkpoint(folder)` writes all that a resume needs."""


@dataclass(frozen=True)
class Fitted:
    """What a training ended with.

    Attributes:
        weights: State of the network that was kept, on the CPU.
        epoch: The epoch it is from.
        dice: Its validation Dice.
    """

    weights: State
    epoch: int
    dice: float


@dataclass
class _Progress:
    epoch: int = 0
    best_epoch: int = -1
    best_dice: float = float("-inf")
    kept_epoch: int = -1
    kept_dice: float = float("-inf")
    kept: State | None = None

    def stalled(self, patience: int | None) -> bool:
        return patience is not None and self.epoch - 1 - self.best_epoch >= patience


def fit(
    network: nn.Module,
    loss: nn.Module,
    batches: Batches,
    validate: Callable[[nn.Module], dict[str, float]],
    settings: TrainingSettings,
    report: Report,
    *,
    resume: Path | None = None,
) -> Fitted:
    """Train `network` in place.

    Args:
        network: On its device; wrapped for several workers here, where torch.distributed is up.
        loss: (logits, target) to a scalar.
        batches: Training batches of this worker by step.
        validate: The network to metrics, `val/dice` among them (or none of it, where the last weights are kept), the
            same on every worker.
        settings: How.
        report: Told after each epoch, on every worker.
        resume: Folder with a checkpoint to go on from.

    Returns:
        The kept weights.

    Raises:
        RunFailed: If the loss or every validation Dice is not finite.
        UserError: If `settings.compile` finds no compiler.
    """
    trainer = Trainer(network, loss, batches, settings)
    progress = trainer.load(resume) if resume is not None else _Progress()
    for epoch in range(progress.epoch, settings.epochs):
        if progress.stalled(
            settings.patience
        ):  # asked before an epoch, so that a resumed run stops where it would have
            break
        metrics = trainer.run_epoch(epoch)
        metrics |= validate(trainer.candidate)
        dice = metrics.get("val/dice", math.nan)  # a final training validates nothing
        better = dice > progress.best_dice
        if better:
            progress.best_epoch, progress.best_dice = epoch, dice
        if better or settings.keep == "last":
            progress.kept_epoch, progress.kept_dice = epoch, dice
            state = trainer.candidate.state_dict()
            progress.kept = {name: value.detach().cpu().clone() for name, value in state.items()}
        progress.epoch = epoch + 1
        report(epoch, metrics, lambda folder: trainer.save(folder, progress))
    if progress.kept is None:
        raise RunFailed("the validation Dice is not a number in any epoch: no weights to keep")
    return Fitted(progress.kept, progress.kept_epoch, progress.kept_dice)


class Trainer:
    """The state that lives while a training runs: optimizer, scaler, averaged weights."""

    def __init__(self, network: nn.Module, loss: nn.Module, batches: Batches, settings: TrainingSettings) -> None:
        self.network, self.loss, self.batches, self.settings = network, loss, batches, settings
        self.device = next(network.parameters()).device
        if self.device.type == "cpu":
            keep_freed_memory()
        if settings.channels_last and not any(parameter.ndim == 5 for parameter in network.parameters()):
            network.to(memory_format=torch.channels_last)
        if settings.compile:
            _check_compiler()
        self.parallel = self._wrapped()
        self.steps_per_epoch = settings.steps_per_epoch or batches.steps_per_pass
        self.num_steps = settings.epochs * self.steps_per_epoch
        # What is frozen is among them: it has no gradient, so the optimizer passes it over until it is unfrozen.
        self.parameters = list(network.parameters())
        self.optimizer = _build_optimizer(self.parameters, settings)
        fp16 = resolve_precision(settings.precision, self.device) == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.average = None if settings.ema is None else _average(network, settings.ema)

    @property
    def candidate(self) -> nn.Module:
        """The network that is validated and kept: the one with averaged weights, where there is one."""
        return self.network if self.average is None else self.average.module

    def _wrapped(self) -> nn.Module:
        module = nn.parallel.DistributedDataParallel(self.network) if _num_workers() > 1 else self.network
        return torch.compile(module) if self.settings.compile else module

    def _unfreeze(self, epoch: int) -> None:
        begins = self.settings.unfreeze_epoch
        if begins is None or epoch < begins or not isinstance(self.network, Network) or self.network.frozen == "none":
            return
        self.network.freeze("none")
        self.parallel = self._wrapped()  # DDP reduces only what was learning when it was made

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Take the epoch's steps; return the mean training loss, the last learning rate and the speed."""
        self._unfreeze(epoch)
        self.network.train()
        began = time.perf_counter()
        first, seen = epoch * self.steps_per_epoch, 0
        total = torch.zeros((), device=self.device)
        for step, (images, targets) in enumerate(self.batches.steps(first, first + self.steps_per_epoch), start=first):
            seen += len(images)
            total += self.step(step, images.to(self.device), targets.to(self.device))
        mean = float(total) / self.steps_per_epoch
        if not torch.isfinite(total):
            raise RunFailed(f"the training loss is not finite ({mean}) in epoch {epoch}: lower training.learning_rate")
        unit = "patches" if images.ndim == 5 else "slices"
        return {
            "train/loss": mean,
            "train/learning_rate": self.optimizer.param_groups[0]["lr"],
            f"train/{unit}_per_s": seen * _num_workers() / (time.perf_counter() - began),
        }

    def step(self, step: int, images: Tensor, targets: Tensor) -> Tensor:
        """Take optimizer step number `step` on one batch; return its loss."""
        settings = self.settings
        factor = learning_rate_factor(
            settings.schedule, step=step, num_steps=self.num_steps, warmup_steps=settings.warmup_steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        seen = torch.zeros((), device=self.device)
        for part, truth in zip(images.chunk(settings.accumulate), targets.chunk(settings.accumulate), strict=True):
            with autocast(self.device, settings.precision):
                logits = self.parallel(part)
            value = self.loss(logits.float(), truth) * (len(part) / len(images))
            self.scaler.scale(value).backward()
            seen += value.detach()
        if settings.clip_gradient is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, settings.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return seen

    def save(self, folder: Path, progress: _Progress) -> None:
        """Write the checkpoint into `folder`."""
        kept = progress.kept
        if progress.kept_epoch == progress.epoch - 1:  # what is kept is what is there: torch writes it once
            kept = self.candidate.state_dict()
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "progress": {**vars(progress), "kept": kept},
        }
        # Through a file of Python's: torch's own error of a full disk has no number. `folder` is a temporary one.
        with atomic.writing_into(folder.parent), (folder / CHECKPOINT).open("wb") as file:
            torch.save(state, file)

    def load(self, folder: Path) -> _Progress:
        """Take up the state of `save`."""
        state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # settings win over a checkpoint, which may come from another trial
            group["weight_decay"] = self.settings.weight_decay
        self.scaler.load_state_dict(state["scaler"])
        progress = _Progress(**state["progress"])
        if self.average is not None and state["average"] is not None:
            self.average.module.load_state_dict(state["average"])
            self.average.n_averaged.fill_(progress.epoch * self.steps_per_epoch)
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        return progress


def _average(network: nn.Module, decay: float) -> AveragedModel:
    average_numbers = get_ema_multi_avg_fn(decay)

    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            average_numbers(averaged, current, num_averaged)
        else:  # PyTorch would round the average of 7 and 7 down to 6, in a table of indices too
            for kept, value in zip(averaged, current, strict=True):
                kept.copy_(value)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _num_workers() -> int:
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _check_compiler() -> None:
    compiler = os.environ.get("CXX", "g++")  # as TorchInductor looks for it
    if shutil.which(compiler) is None:
        raise UserError("training.compile needs a C++ compiler ($CXX, else g++); without one leave it off", compiler)


def _build_optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
