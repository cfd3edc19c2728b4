"""Support for several workers of one training run: DDP, separate seeds, and synchronized buffers."""

import copy
from typing import Any, TypedDict

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from glioflow.training.settings import TrainingSettings

# Slices or patches of one forward pass per worker below which batch norm uses statistics over all workers.
_SMALL_BATCH = 8


def num_workers() -> int:
    """Return the number of workers that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this worker, from 0."""
    return dist.get_rank() if num_workers() > 1 else 0


class RandomStates(TypedDict):
    """The states of PyTorch's random numbers; `cuda_rng` is None on a CPU."""

    rng: Tensor
    cuda_rng: Tensor | None


def random_states(device: torch.device) -> RandomStates:
    """Return the states of PyTorch's random numbers."""
    on_gpu = device.type == "cuda"
    return {"rng": torch.get_rng_state(), "cuda_rng": torch.cuda.get_rng_state(device) if on_gpu else None}


def restore_random_states(states: RandomStates, device: torch.device) -> None:
    """Restore the result of `random_states`, as far as it applies to the device."""
    torch.set_rng_state(states["rng"])
    if states["cuda_rng"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda_rng"], device)


def states_of_all_workers(device: torch.device) -> list[RandomStates]:
    """Return the `random_states` of every worker, by rank; all of them call it."""
    gathered: list[RandomStates] = [random_states(device)] * num_workers()
    if num_workers() > 1:
        dist.all_gather_object(gathered, random_states(device))
    return gathered


def seed_worker(seed: int, epoch: int) -> None:
    """Give every worker except the first its own random numbers in an epoch, for dropout."""
    if rank() > 0:
        mixed = np.random.SeedSequence([seed, 5, rank(), epoch]).generate_state(1)[0]
        torch.manual_seed(int(mixed))


def broadcast_buffers(network: nn.Module) -> None:
    """Copy the first worker's buffers to all workers, so that all validate the same network."""
    if num_workers() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def wrap(network: nn.Module, loss: nn.Module, batches: Any, settings: TrainingSettings) -> nn.Module:
    """Return the network for training: unchanged with one worker, else in DDP."""
    if num_workers() == 1:
        return network
    device = next(network.parameters()).device
    for parameter in parameters_without_gradient(network, loss, batches):
        parameter.requires_grad_(False)  # DDP would wait for its gradient
    if device.type == "cuda" and batches.batch_size < _SMALL_BATCH * settings.accumulate:
        synchronize_batch_norm(network)
    return nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)


def synchronize_batch_norm(network: nn.Module) -> None:
    """Make batch norm use statistics over all workers; does nothing a second time.

    The conversion is timm's: PyTorch's drops the activations inside timm's layers, and either drops them when repeated.
    """
    from timm.layers import convert_sync_batchnorm

    if not any(isinstance(module, nn.SyncBatchNorm) for module in network.modules()):
        convert_sync_batchnorm(network)


def parameters_without_gradient(network: nn.Module, loss: nn.Module, batches: Any) -> list[nn.Parameter]:
    """Return the trainable parameters that do not affect the loss, found by one step of a copy.

    Two samples are enough, so that it takes no more memory than training. A batch of one sample gives it twice, because
    batch norm cannot train on a single value, as it gets after global pooling.
    """
    device = next(network.parameters()).device
    images, targets = (torch.cat([part[:2]] * 2)[:2] for part in next(iter(batches.steps(0, 1))))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        trial = copy.deepcopy(network).train()
        trial.zero_grad(set_to_none=True)
        loss(trial(images.to(device)).float(), targets.to(device)).backward()
    pairs = zip(network.parameters(), trial.parameters(), strict=True)
    return [parameter for parameter, tried in pairs if parameter.requires_grad and tried.grad is None]
