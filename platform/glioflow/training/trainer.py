"""The steps of training, and its state while it runs."""

import math
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from glioflow.data.batches.steps import Batches
from glioflow.errors import RunFailed, UserError
from glioflow.evaluation.inference import autocast, keep_freed_memory, resolve_precision
from glioflow.models.network import Network
from glioflow.training.averaging import AveragedWeights
from glioflow.training.checkpoints import CHECKPOINT, Begun, Checkpoint, Clock, ProgressState, State, TrainingState
from glioflow.training.compiling import compiles
from glioflow.training.gpu_use import GpuUse
from glioflow.training.optimizers import build_optimizer, load_state, set_rate, with_plain_rates
from glioflow.training.schedules import learning_rate_factor
from glioflow.training.settings import TrainingSettings
from glioflow.training.step_graph import StepGraph
from glioflow.training.workers import (
    num_workers,
    random_states,
    rank,
    restore_random_states,
    seed_worker,
    states_of_all_workers,
    wrap,
)


@dataclass
class Progress:
    """The progress of training, and the kept weights."""

    epoch: int = 0
    best_epoch: int = -1
    best_dice: float = float("-inf")
    kept_epoch: int = -1
    kept_dice: float = float("-inf")
    kept: State | None = None

    def to_state(self) -> ProgressState:
        """Return the part that a checkpoint stores: everything except the kept weights."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_dice": self.best_dice,
            "kept_epoch": self.kept_epoch,
            "kept_dice": self.kept_dice,
            "kept": None,
        }

    def finish_epoch(self, dice: float, network: nn.Module, *, keep: Literal["best", "last"]) -> None:
        """Count an epoch, and keep its weights on the CPU if they are the best or `keep` takes the last.

        Args:
            dice: Validation Dice of the epoch; NaN without a validation, as in a final training.
            network: Its weights at the end of the epoch.
            keep: Which weights the training keeps.
        """
        better = dice > self.best_dice
        if better:
            self.best_epoch, self.best_dice = self.epoch, dice
        if better or keep == "last":
            self.kept_epoch, self.kept_dice = self.epoch, dice
            self.kept = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        self.epoch += 1

    def stalled(self, settings: TrainingSettings) -> bool:
        """Return whether training stops early because no recent epoch was better."""
        last = self.epoch - 1
        waits = settings.patience is None or last < 0 or not settings.validates_in_full(last)
        return not waits and last - self.best_epoch >= (settings.patience or 0)


class Trainer:
    """The state of running training: optimizer, scaler, averaged weights."""

    def __init__(self, network: nn.Module, loss: nn.Module, batches: Batches, settings: TrainingSettings) -> None:
        self.network, self.loss, self.batches, self.settings = network, loss, batches, settings
        self.device = next(network.parameters()).device
        self.on_gpu = self.device.type == "cuda"
        if self.on_gpu:
            torch.backends.cudnn.benchmark = not settings.deterministic
            torch.set_float32_matmul_precision("high")  # TF32, the default for convolutions
        else:
            keep_freed_memory()
        if settings.channels_last and not any(parameter.ndim == 5 for parameter in network.parameters()):
            network.to(memory_format=torch.channels_last)
        self.steps_per_epoch = settings.steps_per_epoch or batches.steps_per_pass
        self.num_steps = settings.epochs * self.steps_per_epoch
        self.compiled, self.why_compiled = compiles(settings, on_gpu=self.on_gpu, num_steps=self.num_steps)
        if self.compiled:
            torch.compiler.reset()  # PyTorch compiles only a few networks in a process, such as those of trials
        # Includes frozen parameters: they have no gradient, so the optimizer skips them until they are unfrozen.
        self.parameters = list(network.parameters())
        self.optimizer = build_optimizer(self.parameters, settings, self.device)
        fp16 = resolve_precision(settings.precision, self.device) == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.average = None if settings.ema is None else AveragedWeights(network, settings.ema)
        self.use = GpuUse(self.device)
        self.begun: Begun | None = None  # the epoch within which a checkpoint was written
        self.clock: Clock | None = None
        self.on_begun: Callable[[Begun], None] = lambda _: None
        self._wrap()

    @property
    def candidate(self) -> nn.Module:
        """The network that is validated and kept: the one with averaged weights, if there is one."""
        return self.network if self.average is None else self.average.module

    def _wrap(self) -> None:
        """Wrap the network for several workers, compile it, and record its steps again, as applicable."""
        module = wrap(self.network, self.loss, self.batches, self.settings)
        self.parallel = torch.compile(module) if self.compiled else module
        graphs, obstacle = self.settings.cuda_graphs, self._obstacle_to_graphs()
        # No reference cycle, so that memory (also of a GPU) is freed as soon as training ends.
        self.take: Callable[[Tensor, Tensor], Tensor] = partial(Trainer._take, weakref.proxy(self))
        if graphs is True and obstacle:
            raise UserError("training.cuda_graphs needs a GPU, one worker, and a loss that runs on the GPU alone")
        if graphs and not obstacle:
            self.take = StepGraph(self.take)

    def _obstacle_to_graphs(self) -> str:
        """Return why no step can be recorded as a CUDA graph; empty if one can."""
        if not self.on_gpu:
            return "no GPU"
        if num_workers() > 1:
            return "several workers"
        return "" if getattr(self.loss, "on_device", True) else "the loss runs on the CPU"

    @property
    def choices(self) -> dict[str, str]:
        """What was chosen for settings of training, and why."""
        no_graphs = f"false: {self._obstacle_to_graphs() or 'asked for'}"
        return {
            "compile": f"{str(self.compiled).lower()}: {self.why_compiled}",
            "cuda_graphs": self.take.state if isinstance(self.take, StepGraph) else no_graphs,
        }

    def _unfreeze(self, epoch: int) -> None:
        begins = self.settings.unfreeze_epoch
        if begins is None or epoch < begins or not isinstance(self.network, Network) or self.network.frozen == "none":
            return
        self.network.freeze("none")
        self._wrap()  # DDP reduces only parameters that were trainable at its creation

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Run the epoch's steps; return the mean training loss, the last learning rate, speed and use of the GPU."""
        self._unfreeze(epoch)
        begun, self.begun = self.begun, None
        if begun is None:
            begun = Begun(0, torch.zeros((), device=self.device))
            seed_worker(self.settings.seed, epoch)
        self.network.train()
        began = time.perf_counter()
        self.use.begin_epoch()
        if self.clock is not None:
            self.clock.begin()
        first, seen, total = epoch * self.steps_per_epoch, 0, begun.loss
        last = first + self.steps_per_epoch
        batches = iter(self.batches.steps(first + begun.steps, last))
        for step in range(first + begun.steps, last):
            self.use.batch_asked()
            images, targets = next(batches)
            images, targets = images.to(self.device), targets.to(self.device)
            self.use.batch_ready()
            seen += len(images)
            total += self.step(step, images, targets)
            if self.clock is not None and self.clock.rings() and step + 1 < last:
                self.on_begun(Begun(step + 1 - first, total))
        next(batches, None)  # reports the last step
        busy = self.use.busy()
        mean = float(total) / self.steps_per_epoch  # the only wait for the GPU in an epoch
        if not math.isfinite(mean):
            raise RunFailed(f"the training loss is not finite ({mean}) in epoch {epoch}: lower training.learning_rate")
        unit = "patches" if images.ndim == 5 else "slices"
        return {
            "train/loss": mean,
            "train/learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            f"train/{unit}_per_s": seen * num_workers() / (time.perf_counter() - began),
            **self.use.end_epoch(),
            **busy,
        }

    def step(self, step: int, images: Tensor, targets: Tensor) -> Tensor:
        """Run optimizer step number `step` on one batch; return its loss, which the next step may overwrite."""
        settings = self.settings
        factor = learning_rate_factor(
            settings.schedule, step=step, num_steps=self.num_steps, warmup_steps=settings.warmup_steps
        )
        set_rate(self.optimizer, settings.learning_rate * factor)
        loss = self.take(images, targets)
        if self.average is not None:
            self.average.update()
        return loss

    def _take(self, images: Tensor, targets: Tensor) -> Tensor:
        settings, parts = self.settings, self.settings.accumulate
        parallel = getattr(self.parallel, "_orig_mod", self.parallel)  # the module inside torch.compile's wrapper
        self.optimizer.zero_grad(set_to_none=True)
        seen = torch.zeros((), device=self.device)
        pairs = list(zip(images.chunk(parts), targets.chunk(parts), strict=True))
        for k, (part, truth) in enumerate(pairs, start=1):
            waits = k < len(pairs) and isinstance(parallel, nn.parallel.DistributedDataParallel)
            with parallel.no_sync() if waits else nullcontext():
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
        return seen

    def checkpoint(self, progress: Progress, begun: Begun | None = None) -> Checkpoint:
        """Return the state for a resume: at the end of an epoch, or within the epoch described by `begun`."""
        of_average: Literal["network", "average"] = "network" if self.average is None else "average"
        fresh = begun is None and progress.kept_epoch == progress.epoch - 1  # the kept weights are the current ones
        state: TrainingState = {
            "network": self.network.state_dict(),
            "optimizer": with_plain_rates(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "averaged_steps": 0 if self.average is None or self.average.warm else self.average.taken,
            **random_states(self.device),
            "batch_size": self.settings.batch_size,
            "begun": None
            if begun is None
            else {"steps": begun.steps, "loss": begun.loss, "random": states_of_all_workers(self.device)},
            "progress": progress.to_state(),
        }
        return Checkpoint(state, of_average if fresh else progress.kept)

    def load(self, folder: Path) -> Progress:
        """Load the state from `save`."""
        state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        load_state(self.optimizer, state["optimizer"])
        if state["scaler"]:  # empty if training began on a device that computes in another precision
            self.scaler.load_state_dict(state["scaler"])
        progress = Progress(**state["progress"])
        if self.average is not None and state["average"] is not None:
            self.average.module.load_state_dict(state["average"])
            steps = state.get("averaged_steps", 0)
            self.average.warm = steps == 0
            self.average.taken = steps or progress.epoch * self.steps_per_epoch
        restore_random_states(state, self.device)
        begun = state.get("begun")
        if begun is not None and len(begun["random"]) == num_workers():  # else the epoch restarts
            restore_random_states(begun["random"][rank()], self.device)
            self.begun = Begun(begun["steps"], begun["loss"].to(self.device))
        return progress
