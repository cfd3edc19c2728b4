"""Building and training of a network from the parts of an experiment, and its validation after each epoch."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from glioflow.data.batches.augmentation import to_device
from glioflow.data.batches.loading import to_target
from glioflow.data.batches.policies import POLICIES
from glioflow.data.batches.sampling import batches_of
from glioflow.data.batches.settings import Storage
from glioflow.data.batches.storage import bytes_of, choose_storage
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.preprocessing.geometry import restore
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation import PostprocessSettings, decode, dice_per_case
from glioflow.evaluation.inference import choose_device, predict_volume, visit_predictions
from glioflow.evaluation.metrics import dice_of_counts
from glioflow.evaluation.patients import patient_means
from glioflow.evaluation.settings import InferenceSettings, Precision
from glioflow.models import LossSettings, ModelSettings, build_loss, build_network
from glioflow.models.pooling import replace_pooling
from glioflow.models.weights import load_whole
from glioflow.training.batch_size import cpu_share, find_batch_size
from glioflow.training.checkpoints import Checkpoint, recorded_batch_size
from glioflow.training.loop import Fitted, Report, fit
from glioflow.training.settings import TrainingSettings
from glioflow.training.workers import num_workers

Row = dict[str, str | float]
_log = logging.getLogger(__name__)

# The result of `training.batch_size: auto`, over all workers.
BATCH_SIZE = "train/batch_size"


def build_and_fit(
    model: ModelSettings,
    loss: LossSettings,
    target: TargetSettings,
    training: TrainingSettings,
    cases: Sequence[PreparedCase],
    validate: Callable[[nn.Module], dict[str, float]],
    report: Report,
    *,
    num_threads: float = 1,
    rank: int = 0,
    world_size: int = 1,
    resume: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    gpu_share: float = 1.0,
    host_share: float = 1.0,
    glance: Callable[[nn.Module], dict[str, float]] | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
    announced: Callable[[], bool] | None = None,
    decided: Callable[[dict[str, str]], None] = lambda _: None,
) -> tuple[nn.Module, Fitted]:
    """Build a network and train it; the same seed, cases and number of workers give the same weights.

    Args:
        model: The network.
        loss: The loss to minimize.
        target: The task.
        training: Settings of training.
        cases: Labeled cases to learn from, at least one.
        validate: Returns the metrics of the network after an epoch, as for `loop.fit`.
        report: Called after each epoch, on every worker.
        num_threads: Threads of PyTorch on the CPU; rounded down, at least 1.
        rank: Number of this worker, from 0.
        world_size: Number of workers.
        resume: Folder of a checkpoint to continue from.
        on_step: Called after each step with the number of finished steps and the number of steps in an epoch.
        gpu_share: Share of the GPU's memory, in (0, 1], that this worker may use.
        host_share: Share of main memory, in (0, 1], that `training.data: auto` may use.
        glance: Returns the metrics of an epoch that are measured more often than `validate`, as for `loop.fit`.
        keep: Called with checkpoints within an epoch, as for `loop.fit`.
        announced: As for `loop.fit`.
        decided: Called with what was chosen for settings of training, and why, by name of the setting: `data` and
            `batch_size` before the first step, the others as for `loop.fit`.

    Returns:
        The final network, on its device, and the kept weights.
    """
    _set_up(training, num_threads)
    device = choose_device()
    network = _build(model, training, cases, num_outputs=target.num_outputs)
    if training.deterministic and device.type == "cuda":
        _check_positions(network, cases)
    network.to(device)
    criterion = build_loss(loss, task=target.task).to(device)
    storage = _storage(training, cases, device, gpu_share, host_share, decided)
    size = training.batch_size
    if size == "auto":
        parts = {"gpu_share": gpu_share, "cpu_share": cpu_share(num_threads)}
        size = (resume and recorded_batch_size(resume)) or find_batch_size(
            network, criterion, target, training, cases, storage=storage, decided=decided, **parts
        )
        size = max(1, size // world_size) * world_size  # of elastic training that began with other workers
        training, report = training.model_copy(update={"batch_size": size}), _with_batch_size(report, size)
    batches = batches_of(training.sampling)(
        cases,
        target,
        training.sampling,
        batch_size=max(1, size // world_size),
        seed=training.seed,
        rank=rank,
        world_size=world_size,
        device=device,
        storage=storage,
        num_threads=max(1, int(num_threads) - 1),
    )
    if on_step is not None:
        per_epoch = training.steps_per_epoch or batches.steps_per_pass
        batches.on_step = lambda taken: on_step(taken, per_epoch)
    return network, fit(
        network,
        criterion,
        batches,
        validate,
        training,
        report,
        resume=resume,
        glance=glance,
        keep=keep,
        announced=announced,
        decided=decided,
    )


def _set_up(training: TrainingSettings, num_threads: float) -> None:
    """Configure PyTorch for the process: threads, random generator, and determinism."""
    torch.set_num_threads(max(1, int(num_threads)))
    torch.manual_seed(training.seed)
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product on a GPU
    torch.use_deterministic_algorithms(training.deterministic)


def _with_batch_size(report: Report, size: int) -> Report:
    """Return a report with the metric `BATCH_SIZE`, which is needed to reproduce a run."""

    def report_with_size(epoch: int, metrics: dict[str, float], write_checkpoint: Checkpoint) -> None:
        report(epoch, {**metrics, BATCH_SIZE: float(size)}, write_checkpoint)

    return report_with_size


def _build(
    model: ModelSettings, training: TrainingSettings, cases: Sequence[PreparedCase], *, num_outputs: int
) -> nn.Module:
    network = build_network(model, in_channels=cases[0].image.shape[-1], num_outputs=num_outputs)
    if training.start is not None:
        load_whole(network, training.start)
    if training.deterministic:
        replace_pooling(network)
    return network


def _check_positions(network: nn.Module, cases: Sequence[PreparedCase]) -> None:
    """Refuse a transformer that resamples its positions: PyTorch has no deterministic gradient of that on a GPU."""
    sizes = {case.record.prepared_shape[1:] for case in cases}
    for module in network.modules():
        size = getattr(getattr(module, "patch_embed", None), "img_size", None)
        if size is not None and hasattr(module, "pos_embed") and sizes != {tuple(size)}:
            height, width = size
            rule = f"training.deterministic: on a GPU, this encoder needs slices of {height} x {width}"
            got = " and ".join(sorted(f"{h} x {w}" for h, w in sizes))
            hint = "resize to that size, choose another encoder or architecture, or set it to false"
            raise UserError(rule, got, hint=hint)


def _storage(
    training: TrainingSettings,
    cases: Sequence[PreparedCase],
    device: torch.device,
    gpu_share: float,
    host_share: float,
    decided: Callable[[dict[str, str]], None],
) -> Storage:
    """Choose where to store the arrays, and tell the reason."""
    asked, policy = training.data, training.sampling.augmentation
    on_device = policy in POLICIES  # the transforms of the other policies run on the CPU
    choice = choose_storage(
        "auto" if asked == "device" and not on_device else asked,
        bytes_of(cases),
        device,
        share=gpu_share,
        host_share=host_share,
        on_device=on_device,
    )
    reason = choice.reason if on_device else f"{choice.reason}; augmentation {policy} runs on the CPU"
    _log.info("training data on %s: %s", choice.storage, reason)
    decided({"data": f"{choice.storage}: {reason}"})
    return choice.storage


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    *,
    target: TargetSettings,
    inference: InferenceSettings,
    postprocess: PostprocessSettings,
    precision: Precision,
    rank: int = 0,
    world_size: int = 1,
    show: Callable[[PreparedCase, NDArray[np.bool_]], None] | None = None,
) -> dict[str, float]:
    """Measure a network between two epochs, before threshold and clean-up are chosen.

    Args:
        network: On its device.
        cases: Labeled; each worker measures its share.
        target: The task.
        inference: How a case is predicted, its window included for 3D networks.
        postprocess: Initial threshold and clean-up of the experiment.
        precision: Precision of the forward pass.
        rank: Number of this worker, from 0.
        world_size: Number of workers.
        show: Called with each case that this worker measured and its predicted tumor (S, H, W).

    Returns:
        `val/dice`: the Dice of whole volumes in the original geometry, mean over outputs, then over the cases of a
        patient, then over the patients of all workers; empty without cases.
    """
    if not cases:
        return {}
    rows: list[Row] = []
    for case in cases[rank::world_size]:
        probabilities = predict_volume(
            network, case.image, softmax=target.kind == "multiclass", precision=precision, **dict(inference)
        )
        predicted = decode(target, postprocess, restore(probabilities, case.record.moves)).parts
        reference = target.split(case.reference())
        if show is not None:
            show(case, np.logical_or.reduce(list(predicted.values())))
        dice = float(np.mean([dice_per_case(predicted[name], reference[name]) for name in target.names]))
        rows.append({"patient": case.record.patient, "dice": dice})
    return {"val/dice": _mean_by_patient(rows)}


def validate_at_network_size(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    *,
    target: TargetSettings,
    inference: InferenceSettings,
    threshold: float,
    precision: Precision,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, float]:
    """Measure a network cheaply on its device: against prepared masks, without restoring the geometry or clean-up.

    Args:
        network: On its device, with a single synchronization.
        cases: As for `validate`, like the other arguments.
        target: The task.
        inference: How a case is predicted.
        threshold: A voxel is tumor if its probability is above it; ignored for exclusive classes.
        precision: Precision of the forward pass.
        rank: Number of this worker, from 0.
        world_size: Number of workers.

    Returns:
        `val/dice_at_network_size`, averaged as `val/dice`; empty without cases.
    """
    if not cases:
        return {}
    device, own = next(network.parameters()).device, cases[rank::world_size]
    exclusive = target.kind == "multiclass"
    overlaps = torch.zeros(len(own), 2, len(target.names), dtype=torch.long, device=device)
    for case, overlap in zip(own, overlaps, strict=True):
        masks = np.asarray(case.mask)

        def count(first: int, probability: Tensor, masks: NDArray[np.uint8] = masks, overlap: Tensor = overlap) -> None:
            stored = to_device(np.array(masks[first : first + len(probability)]), device)
            truth = to_target(target, stored)
            if exclusive:
                classes = torch.arange(1, len(target.names) + 1, device=device)
                predicted, there = probability.argmax(-1, keepdim=True) == classes, truth[..., None] == classes
            else:
                predicted, there = probability > threshold, truth.movedim(1, -1) > 0
            over = tuple(range(predicted.ndim - 1))
            overlap[0] += (predicted & there).sum(over)
            overlap[1] += predicted.sum(over) + there.sum(over)

        visit_predictions(network, case.image, count, softmax=exclusive, precision=precision, **dict(inference))
    rows: list[Row] = []
    for case, (both, total) in zip(own, overlaps.tolist(), strict=True):
        dices = [dice_of_counts(*pair) for pair in zip(both, total, strict=True)]
        rows.append({"patient": case.record.patient, "dice": float(np.mean(dices))})
    return {"val/dice_at_network_size": _mean_by_patient(rows)}


def _mean_by_patient(rows: list[Row]) -> float:
    """Return the mean Dice over the patients of all workers."""
    return float(np.mean(list(patient_means(_gather(rows), "dice").values())))


def _gather(rows: list[Row]) -> list[Row]:
    """Return the rows of all workers, by rank."""
    if num_workers() == 1:
        return rows
    gathered: list[list[Row]] = [[] for _ in range(num_workers())]
    dist.all_gather_object(gathered, rows)
    return [row for part in gathered for row in part]
