"""What a training continues from, and when it is written: copied at once, so that a thread can write the copy."""

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
# Looks at the clock between two checkpoints; several workers agree at each.
_LOOKS = 20
# How often it is looked at where the end of a machine may be announced: spot nodes have half a minute left.
_NOTICE_S = 5.0


@dataclass(frozen=True)
class Begun:
    """An epoch that is not finished.

    Attributes:
        steps: How many of its steps were taken.
        loss: The sum of their losses.
    """

    steps: int
    loss: Tensor


class BegunState(TypedDict):
    """An epoch that is not finished, as it is stored: `random` by rank, the others as in `Begun`."""

    steps: int
    loss: Tensor
    random: list[RandomStates]


class ProgressState(TypedDict):
    """How far a training is, as it is stored: the next epoch, and the epochs and Dice of the best and of the kept."""

    epoch: int
    best_epoch: int
    best_dice: float
    kept_epoch: int
    kept_dice: float
    kept: State | None


class TrainingState(RandomStates):
    """What a training still changes; earlier versions stored no `averaged_steps`, `batch_size` and `begun`."""

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
    """All that a resume needs, of one moment: tensors and plain values.

    Attributes:
        state: What the training still changes; its `progress` lacks the weights that are kept.
        kept: These weights, or the name of the part of `state` that they are.
        arrived: Recorded on the GPU after the copies of `state`; None where nothing is on its way.
    """

    state: TrainingState
    kept: State | Literal["network", "average"] | None
    arrived: Any = None

    def __call__(self, folder: Path) -> None:
        """Write it into a folder that nobody else knows yet.

        Raises:
            DiskFull: If there is no space for it.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        kept = self.state[self.kept] if isinstance(self.kept, str) else self.kept  # written once where it is both
        state = {**self.state, "progress": {**self.state["progress"], "kept": kept}}
        # Through a file of Python's: torch's own error of a full disk has no number.
        with atomic.writing_into(folder.parent), (folder / CHECKPOINT).open("wb") as file:
            torch.save(state, file)

    def copied(self) -> "Checkpoint":
        """Return the same in main memory, which the training does not change; copies from a GPU are not waited for."""
        state, arrived = _on_host(self.state), None
        if any(_is_on_gpu(value) for value in self.state["network"].values()):
            arrived = torch.cuda.Event()
            arrived.record()
        return Checkpoint(state, self.kept, arrived)


def recorded_batch_size(folder: Path) -> int | None:
    """Return the batch size of all workers that a checkpoint was trained with; None in one of an earlier version."""
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
    """Tells after which steps so many minutes have passed: after the same ones on every worker."""

    def __init__(self, minutes: float, announced: Callable[[], bool] | None = None) -> None:
        """Take the time, at least a moment.

        Args:
            minutes: How many.
            announced: Whether the end of a machine was announced since the last call; then the clock rings at once.
        """
        self.seconds, self.announced = 60 * minutes, announced
        self._taken, self._next = 0, 1
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._last = self._looked = time.monotonic()

    def rings(self) -> bool:
        """Note that a step was launched; return whether the time is over, which begins anew then.

        The clock is looked at after 1, 2, 4, ... steps, and at least `_LOOKS` times within the minutes.
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
