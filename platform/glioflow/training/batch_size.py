"""`training.batch_size: auto`: the largest batch that fits, found by trying steps of growing size on the device."""

import copy
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glioflow.data.batches.sampling import batches_of
from glioflow.data.batches.settings import Storage
from glioflow.data.batches.storage import HOST_PART, bytes_of, device_memory
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.targets import TargetSettings
from glioflow.errors import RunFailed
from glioflow.evaluation.inference import autocast
from glioflow.memory import free_memory
from glioflow.models.network import Network
from glioflow.training.optimizers import build_optimizer
from glioflow.training.settings import TrainingSettings
from glioflow.training.workers import num_workers

_log = logging.getLogger(__name__)
_GIB = 2**30

# Slices or patches of one worker: batch norm needs two; above the others, a GPU or CPU gets no faster per sample.
FEWEST, MOST_ON_GPU, MOST_ON_CPU = 2, 256, 16
# Fraction of a worker's share of a GPU for a step; the rest is for augmentation, batches in transfer, and gaps.
GPU_PART = 0.8
# Share of all slices (for patches: of the volume of all cases) that one batch may hold, as in nnU-Net's planning.
LARGEST_PART = 0.05


def find_batch_size(
    network: nn.Module,
    loss: nn.Module,
    target: TargetSettings,
    training: TrainingSettings,
    cases: Sequence[PreparedCase],
    *,
    storage: Storage,
    gpu_share: float = 1.0,
    cpu_share: float = 1.0,
    available: float | None = None,
    decided: Callable[[dict[str, str]], None] = lambda _: None,
) -> int:
    """Return the batch size over all workers, and tell the reason: the same power of two for each worker.

    On a GPU, steps are run, and PyTorch measures their memory. On a CPU, which has no such count, the memory is what
    autograd saves. The network and the random states are not changed.

    Args:
        network: On its device.
        loss: (logits, target) to a scalar.
        target: The task.
        training: All other settings.
        cases: Labeled cases to learn from.
        storage: Where the arrays of the cases are stored; on the device they take memory.
        gpu_share: Share of the GPU, in (0, 1], that this worker may use.
        cpu_share: Share of the machine's memory, in (0, 1], that this worker may use.
        available: Bytes for a step; None uses those of the device.
        decided: Called with the size and the reason, as for `build_and_fit`.

    Raises:
        RunFailed: If not even `FEWEST` samples fit.
    """
    device = next(network.parameters()).device
    sampled = batches_of(training.sampling)(
        cases, target, training.sampling, batch_size=FEWEST, seed=training.seed, device=device
    )
    on_gpu = device.type == "cuda"
    if available is None:
        resident = bytes_of(cases) if storage == "device" else 0
        available = memory_for_step(device, resident, gpu_share=gpu_share, cpu_share=cpu_share)
    of_cohort = LARGEST_PART * sampled.steps_per_pass * FEWEST / num_workers()
    of_device = MOST_ON_GPU if on_gpu else MOST_ON_CPU
    most = max(FEWEST, min(of_device, _power_below(of_cohort)))
    with torch.random.fork_rng([device] if on_gpu else []):
        step = _Probe(network, loss, sampled.batch(0), training)
        size, reason = largest_that_fits(step.bytes, available, most=most)
    size = _smallest_of_workers(size, device)
    if not size:
        hint = "use smaller slices or patches, a smaller network, or a larger part of a GPU"
        raise RunFailed(f"training.batch_size: auto has no room for {FEWEST} samples: {reason}; {hint}")
    if size == most < of_device:
        reason = f"a batch is at most {LARGEST_PART:.0%} of the cohort; {reason}"
    _log.info("batch of %d for each of %d workers: %s", size, num_workers(), reason)
    decided({"batch_size": f"{size * num_workers()}: {reason}"})
    return size * num_workers()


def memory_for_step(device: torch.device, resident: int, *, gpu_share: float, cpu_share: float) -> float:
    """Return the bytes for a step, besides the `resident` ones of the data that will be stored on a GPU."""
    if device.type == "cuda":
        return GPU_PART * device_memory(device, gpu_share) - resident
    return HOST_PART * cpu_share * free_memory()


def largest_that_fits(bytes_of_step: Callable[[int], float], available: float, *, most: int) -> tuple[int, str]:
    """Return the largest power of two from `FEWEST` to `most` whose step fits in `available` bytes, and the reason.

    Args:
        bytes_of_step: Runs a step of that size and returns its memory: infinity if it ran out of memory.
            Sizes are tried as long as the next one fits if memory grows in proportion.
        available: Bytes.
        most: Limit.

    Returns:
        The size, 0 if none fits, and the reason.
    """
    size, used, slope = 0, 0.0, 0.0
    following = FEWEST
    while following <= most:
        expected = used + slope * (following - size)
        needed = bytes_of_step(following) if expected <= available else expected
        if needed > available:
            text = "more than the memory" if math.isinf(needed) else f"{needed / _GIB:.3g} GiB"
            return size, f"a step of {following} takes {text}, and {available / _GIB:.3g} GiB are for it"
        slope = (needed - used) / (following - size) if size else 0.0
        size, used, following = following, needed, 2 * following
    return size, f"the limit is {most}; its step takes {used / _GIB:.3g} of {available / _GIB:.3g} GiB"


class _Probe:
    """Runs optimizer steps on a copy of a network and measures their memory, including that of the copy."""

    def __init__(
        self, network: nn.Module, loss: nn.Module, batch: tuple[Tensor, Tensor], training: TrainingSettings
    ) -> None:
        self.loss, self.batch, self.precision = loss, batch, training.precision
        self.device = next(network.parameters()).device
        self.others = torch.cuda.memory_allocated(self.device) if self._on_gpu else 0
        self.network = copy.deepcopy(network).train()
        if training.unfreeze_epoch is not None and isinstance(self.network, Network):
            self.network.freeze("none")  # steps take the most memory from then on
        if training.channels_last and batch[0].ndim == 4:
            self.network.to(memory_format=torch.channels_last)
        parameters = list(self.network.parameters())
        self.optimizer = build_optimizer(parameters, training, self.device)
        weights = sum(each.nbytes for each in (*parameters, *self.network.buffers()))
        # On the GPU, the copy, its gradients and the optimizer's state are counted automatically.
        self.besides = weights * (training.ema is not None) + (0 if self._on_gpu else 4 * weights)
        if self._on_gpu:
            self.bytes(FEWEST)  # creates the optimizer's state for all later steps

    @property
    def _on_gpu(self) -> bool:
        return bool(self.device.type == "cuda")

    def bytes(self, size: int) -> float:
        """Return the bytes of a step of `size` samples, infinity if there is not enough memory."""
        images, targets = (torch.cat([part] * (size // FEWEST)).to(self.device) for part in self.batch)
        try:
            if not self._on_gpu:
                saved = SavedBytes()
                with saved.counting():
                    self._loss(images, targets)
                return float(self.besides + images.nbytes + saved.total)
            for _ in range(2):  # in the first one, cuDNN tries kernels that may take much more memory
                torch.cuda.synchronize(self.device)
                torch.cuda.reset_peak_memory_stats(self.device)
                self._loss(images, targets).backward()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize(self.device)
            return float(self.besides + torch.cuda.max_memory_allocated(self.device) - self.others)
        except torch.OutOfMemoryError:
            return math.inf
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            if self._on_gpu:
                del images, targets
                torch.cuda.empty_cache()

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            logits = self.network(images)
        value: Tensor = self.loss(logits.float(), targets)
        return value


class SavedBytes:
    """Counts the bytes that autograd keeps for a backward pass; memory that is kept twice counts once."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self._sizes.values())

    def counting(self) -> AbstractContextManager[Any]:
        """Return the context in which tensors are counted."""

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            self._sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        context: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        return context


def _power_below(number: float) -> int:
    return 1 << max(0, math.floor(math.log2(max(1.0, number))))


def _smallest_of_workers(size: int, device: torch.device) -> int:
    if num_workers() == 1:
        return size
    shared = torch.tensor(size, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MIN)
    return int(shared)


def cpu_share(num_threads: float) -> float:
    """Return the share of the machine that this number of threads represents."""
    return min(1.0, num_threads / (os.cpu_count() or 1))
