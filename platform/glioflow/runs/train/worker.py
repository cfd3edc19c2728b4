"""Training of an experiment's network by one worker, which records its progress and draws its masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glioflow import cluster
from glioflow.config import Experiment
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.runs.progress import TRAINED, ProgressFile
from glioflow.runs.train.checkpoints import Behind
from glioflow.runs.train.overlays import Watch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from glioflow.training.checkpoints import Checkpoint
    from glioflow.training.loop import Fitted, Report

# Tags of a run that say what was chosen for a setting, and why; the setting's name follows.
CHOSEN = "glioflow.training"


@dataclass(frozen=True)
class Worker:
    """One worker of a training, perhaps of several: its checkpoint to continue from, and its listeners.

    Attributes:
        report: Called after each epoch, on every worker.
        rank: This worker's number, from 0.
        world_size: Number of workers.
        resume: Folder of a checkpoint to continue from.
        keep: Called with checkpoints within an epoch, on every worker; None if nobody wants them.
        decided: Called with tags that say what was chosen for settings of training, and why; None if nobody wants them.
        behind: Draws in a thread, and waits for an epoch's drawings at the end of the next epoch; None draws at once.
    """

    report: "Report"
    rank: int = 0
    world_size: int = 1
    resume: Path | None = None
    keep: "Callable[[Checkpoint], None] | None" = None
    decided: Callable[[dict[str, str]], None] | None = None
    behind: Behind | None = None


def fit_network(
    experiment: Experiment,
    train: Sequence[PreparedCase],
    val: Sequence[PreparedCase],
    worker: Worker,
    *,
    watch: Watch | None = None,
    progress: ProgressFile | None = None,
) -> tuple["nn.Module", "Fitted"]:
    """Build the experiment's network and train it.

    Args:
        experiment: All settings.
        train: Labeled cases to learn from.
        val: Labeled cases that choose the epoch.
        worker: The worker that trains, and its listeners.
        watch: Draws a few validation cases.
        progress: Is told of every step and every validation case.

    Returns:
        The network as it ended, on its device, and what is kept of the training.
    """
    from glioflow.training import fitting

    settings = experiment.resolved
    notes = None if progress is None else _Notes(progress, settings.training.epochs, len(val))

    measures = _Measures(settings, val, worker, watch, notes)

    def report_drawn(epoch: int, metrics: dict[str, float], write_checkpoint: "Checkpoint") -> None:
        if worker.behind is not None:
            worker.behind.wait()
        if watch is not None and worker.behind is not None:
            worker.behind.begin(watch.drawing(epoch))
        elif watch is not None:
            watch.drawing(epoch)()
        worker.report(epoch, metrics, write_checkpoint)

    def decided(choices: dict[str, str]) -> None:
        if worker.decided is not None:
            worker.decided({f"{CHOSEN}.{name}": text for name, text in choices.items()})

    return fitting.build_and_fit(
        settings.model,
        settings.loss,
        settings.target,
        settings.training,
        train,
        measures.validate,
        report_drawn,
        num_threads=settings.training.cpus_per_worker,
        gpu_share=min(1.0, settings.training.gpus or 1.0),
        host_share=cluster.share_of_node(cpus=settings.training.cpus_per_worker, gpus=settings.training.gpus),
        rank=worker.rank,
        world_size=worker.world_size,
        resume=worker.resume,
        on_step=None if notes is None else notes.step,
        glance=measures.glance,
        keep=worker.keep,
        announced=None if worker.keep is None else cluster.node_ends(),
        decided=decided,
    )


@dataclass(frozen=True)
class _Measures:
    """One worker's measurement of a network between epochs, on its share of the validation cases."""

    settings: Experiment
    cases: Sequence[PreparedCase]
    worker: Worker
    watch: Watch | None
    notes: "_Notes | None"

    def validate(self, network: "nn.Module") -> dict[str, float]:
        """Measure it in the original geometry."""
        from glioflow.training import fitting

        return fitting.validate(
            network,
            self.cases,
            target=self.settings.target,
            inference=self.settings.inference,
            postprocess=self.settings.postprocess,
            precision=self.settings.training.precision,
            rank=self.worker.rank,
            world_size=self.worker.world_size,
            show=self._show if self.watch or self.notes else None,
        )

    def glance(self, network: "nn.Module") -> dict[str, float]:
        """Measure it in its own geometry, which is cheap."""
        from glioflow.training import fitting

        return fitting.validate_at_network_size(
            network,
            self.cases,
            target=self.settings.target,
            inference=self.settings.inference,
            threshold=self.settings.postprocess.threshold,
            precision=self.settings.training.precision,
            rank=self.worker.rank,
            world_size=self.worker.world_size,
        )

    def _show(self, case: PreparedCase, predicted: "NDArray[np.bool_]") -> None:
        if self.watch is not None:
            self.watch.see(case, predicted)
        if self.notes is not None:
            self.notes.case()


class _Notes:
    """Records the progress of a training, by step and by validation case."""

    def __init__(self, progress: ProgressFile, epochs: int, num_cases: int) -> None:
        self.progress, self.epochs, self.num_cases = progress, epochs, num_cases
        self.epoch = self.cases = 0

    def step(self, taken: int, per_epoch: int) -> None:
        done, step = divmod(taken - 1, per_epoch)
        self.epoch, self.cases = done + 1, 0
        text = f"epoch {self.epoch} of {self.epochs}, step {step + 1} of {per_epoch}"
        self.progress.note(text, TRAINED * taken / (per_epoch * self.epochs))

    def case(self) -> None:
        self.cases += 1
        text = f"epoch {self.epoch} of {self.epochs}, validation case {self.cases} of {self.num_cases}"
        self.progress.note(text, TRAINED * self.epoch / self.epochs)
