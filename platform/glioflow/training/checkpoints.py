"""Checkpoints of a training run and their timing; the state is copied, so that a thread can write the copy."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor

from glioflow import atomic
from glioflow.training.optimizers import OptimizerState
from glioflow.training.workers import RandomStates, num_workers

CHECKPOINT = "checkpoint.pt"
State = dict[str, Tensor]
# Checks of the clock between two checkpoints; several workers synchronize at each.
_LOOKS = 20
# Interval of the checks if the end of a machine may be announced: spot nodes have half a minute left.
_NOTICE_S = 5.0


@dataclass(frozen=True)
class Begun:
    """An unfinished epoch.

    Attributes:
        steps: Number of its finished steps.
        loss: Sum of their losses.
    """

    steps: int
    loss: Tensor


class BegunState(TypedDict):
    """An unfinished epoch as stored: `random` by rank, the other fields as in `Begun`."""

    steps: int
    loss: Tensor
    random: list[RandomStates]


class ProgressState(TypedDict):
    """The progress of training as stored: the next epoch, and epoch and Dice of the best and of the kept weights."""

    epoch: int
    best_epoch: int
    best_dice: float
    kept_epoch: int
    kept_dice: float
    kept: State | None


class TrainingState(RandomStates):
    """The changing state of training; earlier versions stored no `averaged_steps`, `batch_size` and `begun`."""

    network: State
    optimizer: OptimizerState
    scaler: dict[str, object]
    average: State | None
    averaged_steps: int
    batch_size: int | Literal["auto"]
    begun: BegunState | None
    progress: ProgressState


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resume needs, at one moment: tensors and plain values.

    Attributes:
        state: The changing state; its `progress` lacks the kept weights.
        kept: The kept weights, or the name of the entry of `state` that equals them.
        arrived: Event recorded on the GPU after the copies of `state`; None if there are no pending copies.
    """

    state: TrainingState
    kept: State | Literal["network", "average"] | None
    arrived: Any = None

    def __call__(self, folder: Path) -> None:
        """Write the checkpoint into a folder that no other code uses yet.

        Raises:
            DiskFull: If there is no space for it.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        kept = self.state[self.kept] if isinstance(self.kept, str) else self.kept  # written only once
        state = {**self.state, "progress": {**self.state["progress"], "kept": kept}}
        # Through a Python file, since torch's own error on a full disk has no errno.
        with atomic.writing_into(folder.parent), (folder / CHECKPOINT).open("wb") as file:
            torch.save(state, file)

    def copied(self) -> "Checkpoint":
        """Return a copy in main memory, which training does not change; copies from a GPU are asynchronous."""
        state, arrived = _on_host(self.state), None
        if any(_is_on_gpu(value) for value in self.state["network"].values()):
            arrived = torch.cuda.Event()
            arrived.record()
        return Checkpoint(state, self.kept, arrived)


def recorded_batch_size(folder: Path) -> int | None:
    """Return a checkpoint's batch size over all workers; None for a checkpoint of an earlier version."""
    size = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True, mmap=True).get("batch_size")
    return size if isinstance(size, int) else None


def _is_on_gpu(tensor: Tensor) -> bool:
    return bool(tensor.device.type == "cuda")


def _on_host(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _on_host(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(inner) for inner in value)
    if not isinstance(value, Tensor):
        return value
    if not _is_on_gpu(value):
        return value.detach().clone()
    return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value.detach(), non_blocking=True)


class Clock:
    """Timer that signals, after the same steps on every worker, that a number of minutes has passed."""

    def __init__(self, minutes: float, announced: Callable[[], bool] | None = None) -> None:
        """Start the timer.

        Args:
            minutes: Interval.
            announced: Whether the end of a machine was announced since the last call; then the timer fires at once.
        """
        self.seconds, self.announced = 60 * minutes, announced
        self._taken, self._next = 0, 1
        self.begin()

    def begin(self) -> None:
        """Restart the timer."""
        self._last = self._looked = time.monotonic()

    def rings(self) -> bool:
        """Note that a step was launched; return whether the time is over, and if so, restart the timer.

        The clock is checked after 1, 2, 4, ... steps, and at least `_LOOKS` times per interval.
        """
        self._taken += 1
        if self._taken < self._next:
            return False
        now = time.monotonic()
        each = (now - self._looked) / self._taken
        pause = self.seconds / _LOOKS if self.announced is None else min(self.seconds / _LOOKS, _NOTICE_S)
        steps = min(2 * self._taken, max(1, int(pause / max(each, 1e-9))))
        over = now - self._last >= self.seconds or (self.announced is not None and self.announced())
        over, self._next = _as_first_worker(over, steps)
        self._taken, self._looked = 0, now
        if over:
            self._last = now
        return over


def _as_first_worker(over: bool, steps: int) -> tuple[bool, int]:
    if num_workers() == 1:
        return over, steps
    agreed: list[Any] = [over, steps]
    dist.broadcast_object_list(agreed)
    return bool(agreed[0]), int(agreed[1])
