"""How long a training step takes here, by taking some."""

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from glioflow.config import Experiment
from glioflow.data.batches.sampling import Batches
from glioflow.data.preprocessing.geometry_steps import ResizePlane
from glioflow.evaluation.inference import choose_device
from glioflow.models import build_loss, build_network
from glioflow.training.loop import Trainer

_ON_GPU_BATCH = 16  # where the batch is found by trying, which is for the training itself


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


def measure_step(experiment: Experiment, channels: Sequence[str], *, steps: int = 3) -> float:
    """Return the median time of a training step in seconds, on the device that a training would choose here.

    Args:
        experiment: Its network, loss, batch, sizes and precision; pretrained weights are left out.
        channels: Of the images.
        steps: How many are taken after two that do not count.
    """
    device = choose_device()
    model = experiment.model.model_copy(update={"weights": None})
    network = build_network(model, in_channels=len(channels), num_outputs=experiment.target.num_outputs).to(device)
    loss = build_loss(experiment.loss, task=experiment.target.task).to(device)
    batches = _Random(experiment, len(channels), device)
    training = experiment.training.model_copy(
        update={"batch_size": len(batches.images), "compile": False, "epochs": 1, "steps_per_epoch": steps + 2}
    )
    trainer = Trainer(network, loss, cast(Batches, batches), training)
    network.train()
    times = []
    for step, (images, targets) in enumerate(batches.steps(0, steps + 2)):
        began = time.perf_counter()
        float(trainer.step(step, images, targets))
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])
