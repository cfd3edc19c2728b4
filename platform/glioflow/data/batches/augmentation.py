"""Augmentation of whole batches in torch, for slices and patches, on CPU and GPU.

The seed, the step and a sample's number in the batch of all workers determine its augmentation. Parameters are drawn on
the host, so that they are the same on every device; the noise itself is drawn on the device of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glioflow.data.batches.policies import Chance, Policy
from glioflow.data.batches.warp import affine_maps, sample, smooth_field

Numbers = NDArray[np.float64]
Chosen = NDArray[np.bool_]
_ELASTIC_SPACING = 16
_RADIUS = 2  # of a blur, in voxels


@dataclass(frozen=True)
class _Operation:
    """An operation on some samples of a batch.

    Attributes:
        change: Function of these samples and their values, on the device, that returns the changed samples.
        rows: (R,) numbers of the samples.
        values: Arrays (R, ...) that `change` takes.
        of_labels: Whether `change` takes and returns masks along with the images.
    """

    change: Callable[..., Tensor | tuple[Tensor, Tensor]]
    rows: NDArray[np.int64]
    values: tuple[Numbers, ...] = ()
    of_labels: bool = False


class Augmentation:
    """Varies batches by a policy."""

    def __init__(self, policy: Policy, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        """Prepare to vary the batches of one worker.

        Args:
            policy: The operations and their strengths.
            seed: Seed of all parameters.
            rank: This worker's number: sample k of its batch is sample `k * world_size + rank` of the whole batch.
            world_size: Number of workers.
        """
        self.policy, self.seed, self.rank, self.world_size = policy, seed, rank, world_size
        self._generators: dict[torch.device, torch.Generator] = {}

    def __call__(self, step: int, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Vary the batch of a step in place.

        Args:
            step: Number of the step.
            images: (B, C, [d,] h, w) float32 of any range; new voxels get the value of the sample's first voxel.
            masks: (B, [d,] h, w) uint8 labels.

        Returns:
            The varied images and masks.
        """
        draws = _Draws(self, step, len(images))
        spatial, channels = tuple(images.shape[2:]), images.shape[1]
        moves = [*_mirrors(draws, self.policy, len(spatial)), *_warps(draws, self.policy, spatial)]
        before = [*_shades(draws, self.policy, len(spatial)), *_degradations(draws, self.policy)]
        after = self._noise(draws, step, images.device) + _dropped_channels(draws, self.policy, channels)
        sent = _send([*moves, *before, *after], images.device)
        for operation, where, values in sent[: len(moves)]:
            _apply(operation, where, values, images, masks)
        if before or after:
            flat = images.movedim(1, -1).flatten(1)
            low, high = (part.reshape(-1, *[1] * (images.ndim - 1)) for part in torch.aminmax(flat, dim=1))
            span = (high - low).clamp_min_(1e-6)
            images.sub_(low).div_(span)
            for operation, where, values in sent[len(moves) : len(moves) + len(before)]:
                _apply(operation, where, values, images, masks)
            images.clamp_(0, 1)
            for operation, where, values in sent[len(moves) + len(before) :]:
                _apply(operation, where, values, images, masks)
            images.mul_(span).add_(low)
        return images, masks

    def _noise(self, draws: "_Draws", step: int, device: torch.device) -> list[_Operation]:
        chosen, deviations = draws.of(self.policy.noise)
        generator = self._generators.setdefault(device, torch.Generator(device))
        mixed = np.random.SeedSequence([self.seed, 4, step, self.rank]).generate_state(1, np.uint64)[0]
        generator.manual_seed(int(mixed >> np.uint64(1)))

        def add(picked: Tensor, deviation: Tensor) -> Tensor:
            noise = torch.randn(picked.shape, generator=generator, device=device)
            return torch.addcmul(picked, noise, deviation)

        return _operation(add, chosen, deviations)


class _Draws:
    """Random numbers for the samples of one batch: columns of a table that every worker draws completely."""

    def __init__(self, owner: Augmentation, step: int, size: int) -> None:
        self.rows = slice(owner.rank, None, owner.world_size)
        self.total = size * owner.world_size
        self.even = np.random.default_rng([owner.seed, 2, step])
        self.bell = np.random.default_rng([owner.seed, 3, step])

    def chosen(self, probability: float) -> Chosen:
        """Return (B,) whether each sample is chosen."""
        return np.asarray(self.even.random(self.total)[self.rows] < probability)

    def between(self, low: float, high: float, count: int) -> Numbers:
        """Return (B, count) numbers in [low, high)."""
        return np.asarray(low + (high - low) * self.even.random((self.total, count))[self.rows])

    def of(self, chance: Chance, count: int = 1) -> tuple[Chosen, Numbers]:
        """Return which samples are chosen, (B,), and `count` strengths for each, (B, count)."""
        return self.chosen(chance.probability), self.between(chance.low, chance.high, count)

    def normal(self, shape: tuple[int, ...]) -> Numbers:
        """Return (B, *shape) standard normal numbers."""
        return np.asarray(self.bell.standard_normal((self.total, *shape))[self.rows])


def to_device(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device, copied asynchronously."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _operation(change: Callable[..., Tensor], chosen: Chosen, *values: Numbers) -> list[_Operation]:
    """Return the operation on the chosen samples, or none; `values` (B, ...) cover all samples."""
    rows = np.flatnonzero(chosen)
    return [_Operation(change, rows, tuple(value[rows] for value in values))] if len(rows) else []


def _send(operations: list[_Operation], device: torch.device) -> list[tuple[_Operation, Tensor, list[Tensor]]]:
    """Return each operation with its rows and values on the device, sent there in two copies."""
    if not operations:
        return []
    rows = to_device(np.concatenate([each.rows for each in operations]), device)
    arrays = [value for each in operations for value in each.values]
    flat = [np.asarray(value, np.float32).ravel() for value in arrays]
    numbers = to_device(np.concatenate([np.zeros(0, np.float32), *flat]), device)
    bounds = pairwise(np.cumsum([0, *(len(part) for part in flat)]).tolist())
    views = iter([numbers[a:b].reshape(array.shape) for (a, b), array in zip(bounds, arrays, strict=True)])
    parts = rows.split([len(each.rows) for each in operations])
    return [(each, part, [next(views) for _ in each.values]) for each, part in zip(operations, parts, strict=True)]


def _apply(operation: _Operation, where: Tensor, values: list[Tensor], images: Tensor, masks: Tensor) -> None:
    spread = values if operation.of_labels else [_spread(value, images.ndim) for value in values]
    if images.device.type == "cpu":  # in place and sample by sample, so that the data stays in the caches
        for k, row in enumerate(where.tolist()):
            picked, labels = images[row : row + 1], masks[row : row + 1]
            changed, moved = _changed(operation, picked, labels, [value[k : k + 1] for value in spread])
            if changed is not picked:
                picked.copy_(changed)
            if moved is not labels:
                labels.copy_(moved)
        return
    labels = masks.index_select(0, where) if operation.of_labels else masks
    changed, moved = _changed(operation, images.index_select(0, where), labels, spread)
    images.index_copy_(0, where, changed)
    if operation.of_labels:
        masks.index_copy_(0, where, moved)


def _changed(operation: _Operation, images: Tensor, masks: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    if operation.of_labels:
        changed, masks = operation.change(images, masks, *values)
        return changed, masks
    alone = operation.change(images, *values)
    assert isinstance(alone, Tensor)
    return alone, masks


def _spread(value: Tensor, dims: int) -> Tensor:
    return value.reshape(*value.shape, *[1] * (dims - value.ndim))


def _mirrors(draws: _Draws, policy: Policy, dims: int) -> list[_Operation]:
    operations = []
    for axis, probability in zip((-1, -2, -3), policy.mirror, strict=True):
        rows = np.flatnonzero(draws.chosen(probability))
        if -axis <= dims and len(rows):

            def flip(picked: Tensor, labels: Tensor, axis: int = axis) -> tuple[Tensor, Tensor]:
                return picked.flip(axis), labels.flip(axis)

            operations.append(_Operation(flip, rows, of_labels=True))
    return operations


def _warps(draws: _Draws, policy: Policy, spatial: tuple[int, ...]) -> list[_Operation]:
    turned, degrees = draws.of(policy.rotation)
    tilted, tilts = draws.of(policy.tilt, 2)
    scaled, factors = draws.of(policy.scale, 3)
    bent, shifts = draws.of(policy.elastic)
    if not policy.scale_axes:
        factors = np.repeat(factors[:, :1], 3, axis=1)
    if len(spatial) == 2:
        tilted = np.zeros_like(tilted)
    angles = np.concatenate([degrees * turned[:, None], tilts * tilted[:, None]], axis=1)
    maps = affine_maps(angles, np.where(scaled[:, None], factors, 1.0), spatial)
    coarse = tuple(max(2, n // _ELASTIC_SPACING + 1) for n in spatial)
    field = draws.normal((len(spatial), *coarse)) if policy.elastic.probability else np.zeros(0)
    operations = []
    # Elastic samples are resampled separately, so that no field is made for the others.
    for rows in (np.flatnonzero((turned | tilted | scaled) & ~bent), np.flatnonzero(bent)):
        if not len(rows):
            continue
        values: tuple[Numbers, ...] = (maps[rows],)
        if bent[rows[0]]:
            values = (maps[rows], (field * shifts.reshape(-1, *[1] * (len(spatial) + 1)))[rows])
        operations.append(_Operation(sample, rows, values, of_labels=True))
    return operations


def _shades(draws: _Draws, policy: Policy, dims: int) -> list[_Operation]:
    """Return the operations that change brightness."""
    gained, gains = draws.of(policy.gain)
    moved, offsets = draws.of(policy.offset)
    line = np.where(gained[:, None], gains, 1.0), np.where(moved[:, None], offsets, 0.0)
    operations = _operation(lambda picked, gain, offset: torch.addcmul(offset, picked, gain), gained | moved, *line)
    operations += _operation(_change_contrast, *draws.of(policy.contrast))
    operations += _operation(lambda picked, gamma: picked.clamp_(0, 1).pow_(gamma), *draws.of(policy.gamma))
    chosen, strengths = draws.of(policy.bias)
    if policy.bias.probability:
        rough = draws.normal((1, *[3] * dims)) * strengths.reshape(-1, *[1] * (dims + 1))
        operations += _operation(
            lambda picked, rough: picked.mul_(smooth_field(rough, picked.shape[2:]).exp_()), chosen, rough
        )
    return operations


def _degradations(draws: _Draws, policy: Policy) -> list[_Operation]:
    """Return the operations that reduce detail."""
    chosen, deviations = draws.of(policy.blur)
    distance = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-0.5 * (distance / np.maximum(deviations, 1e-3)) ** 2)
    operations = _operation(_blur, chosen, weights / weights.sum(axis=1, keepdims=True))
    chosen, zooms = draws.of(policy.low_resolution)
    for row in np.flatnonzero(chosen):  # each has its own size
        reduce = partial(_reduce, zoom=float(zooms[row, 0]))
        operations.append(_Operation(reduce, np.array([row])))
    return operations


def _dropped_channels(draws: _Draws, policy: Policy, channels: int) -> list[_Operation]:
    chosen, position = draws.chosen(policy.drop), draws.between(0, channels, 1)
    if channels == 1:
        return []
    kept = (np.arange(channels) != position.astype(int)).astype(np.float64)
    return _operation(lambda picked, kept: picked.mul_(kept), chosen, kept)


def _change_contrast(picked: Tensor, factor: Tensor) -> Tensor:
    mean = picked.mean(tuple(range(1, picked.ndim)), keepdim=True)
    return ((picked - mean) * factor + mean).clamp_(0, 1)


def _blur(picked: Tensor, weights: Tensor) -> Tensor:
    """Convolve along each spatial axis with weights (B, 5, 1, ...)."""
    for axis in range(2, picked.ndim):
        length = picked.shape[axis]
        padding = [0, 0] * (picked.ndim - 1 - axis) + [_RADIUS, _RADIUS] + [0, 0] * (axis - 2)
        padded = functional.pad(picked, padding, mode="replicate")
        picked = padded.narrow(axis, 0, length) * weights[:, :1]
        for k in range(1, 2 * _RADIUS + 1):
            picked.addcmul_(padded.narrow(axis, k, length), weights[:, k : k + 1])
    return picked


def _reduce(picked: Tensor, zoom: float) -> Tensor:
    spatial = picked.shape[2:]
    small = functional.interpolate(picked, [max(1, round(n * zoom)) for n in spatial], mode="nearest-exact")
    return functional.interpolate(small, spatial, mode="bilinear" if len(spatial) == 2 else "trilinear")
