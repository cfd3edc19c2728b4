"""Measurement of the time and memory of a training step on this machine."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from glioflow.config import Experiment
from glioflow.data.batches.steps import Batches
from glioflow.data.batches.storage import HOST_PART
from glioflow.data.preprocessing.geometry_steps import ResizePlane
from glioflow.data.preprocessing.pipeline import Neighbors
from glioflow.evaluation.inference import choose_device
from glioflow.models import build_loss, build_network
from glioflow.planning.facts import Machine
from glioflow.training.batch_size import GPU_PART, SavedBytes
from glioflow.training.trainer import Trainer

_ON_GPU_BATCH = 16  # used if the training finds its batch size by trying
# Stop measuring on a busy machine after this many seconds.
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class StepCost:
    """Cost of a training step: seconds, and bytes besides the weights; infinite if it does not fit into memory."""

    seconds: float
    bytes: float


class _Random:
    """Random batches of the size that an experiment trains on."""

    steps_per_pass = 100

    def __init__(self, experiment: Experiment, channels: int, device: torch.device) -> None:
        self.patch = experiment.training.sampling.patch
        side = next((step.size for step in experiment.preprocess if isinstance(step, ResizePlane)), 128)
        size = tuple(self.patch or (side, side))
        batch = experiment.training.batch_size
        self.images = torch.rand((batch if isinstance(batch, int) else _ON_GPU_BATCH, channels, *size), device=device)
        target = experiment.target
        outputs = 1 if target.kind == "multiclass" else target.num_outputs
        brighter = self.images[:, :1] > 0.9
        self.targets = (
            brighter[:, 0].long()
            if target.kind == "multiclass"
            else brighter.float().expand(-1, outputs, *[-1] * len(size))
        )

    def steps(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield them."""
        for _ in range(first, last):
            yield self.images, self.targets


def memory_for_a_step(machine: Machine) -> float:
    """Return the bytes that a step may use on a machine: a fraction of GPU memory, or of free main memory."""
    return 1e9 * (GPU_PART * machine.gpu_memory_gb if machine.gpus else HOST_PART * machine.memory_gb)


def measure_step(
    experiment: Experiment, channels: Sequence[str], *, steps: int = 3, available: float = math.inf
) -> StepCost:
    """Return the cost of a training step with the device and threads that a training would use here.

    The fastest step counts, since other work on the machine only slows steps down.

    Args:
        experiment: Its network, loss, batch, sizes and precision; pretrained weights are left out.
        channels: Number of channels of the images.
        steps: Number of steps after two for warm-up; fewer if they take long.
        available: Bytes that a step may use; if one uses more, none is timed.
    """
    device, threads = choose_device(), torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(experiment.training.cpus_per_worker)))
    try:
        return _measure(experiment, channels, device, steps, available)
    except torch.OutOfMemoryError:
        return StepCost(math.inf, math.inf)
    finally:
        torch.set_num_threads(threads)


def _measure(
    experiment: Experiment, channels: Sequence[str], device: torch.device, steps: int, available: float
) -> StepCost:
    model = experiment.model.model_copy(update={"weights": None, "freeze": "none"})
    slices = (2 * each.reach + 1 for each in experiment.preprocess if isinstance(each, Neighbors))
    width = len(channels) * math.prod(slices)
    network = build_network(model, in_channels=width, num_outputs=experiment.target.num_outputs).to(device)
    loss = build_loss(experiment.loss, task=experiment.target.task).to(device)
    batches = _Random(experiment, width, device)
    training = experiment.training.model_copy(
        update={"batch_size": len(batches.images), "compile": False, "epochs": 1, "steps_per_epoch": steps + 2}
    )
    trainer = Trainer(network, loss, cast(Batches, batches), training)
    network.train()
    saved, times, first = SavedBytes(), list[float](), time.perf_counter()
    for step, (images, targets) in enumerate(batches.steps(0, steps + 2)):
        began = time.perf_counter()
        with saved.counting() if step == 0 and device.type == "cpu" else nullcontext():
            float(trainer.step(step, images, targets))
        times.append(time.perf_counter() - began)
        if saved.total > available:
            return StepCost(math.inf, float(saved.total))
        if step > 0 and time.perf_counter() - first > _PATIENCE_S:
            break
    used = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else saved.total
    return StepCost(min(times[2:] or times[1:]), float(used))
