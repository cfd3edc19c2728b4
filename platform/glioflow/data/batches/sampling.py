"""Choice of the slices or patches of each batch: a function of seed and step, so that runs can resume."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glioflow.data.batches.settings import SamplingSettings
from glioflow.data.batches.steps import Batches
from glioflow.data.batches.storage import Resident
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.preprocessing.geometry import Shape, Window
from glioflow.errors import UserError


class SliceBatches(Batches):
    """Batches of slices (B, C, h, w)."""

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """(N, 2): the index of the case, and of the slice in the case, for every slice."""
        lengths = np.array([len(case.record.areas_px or ()) for case in self.cases], dtype=np.int64)
        first = np.cumsum(lengths) - lengths
        numbers = np.repeat(np.arange(len(lengths)), lengths)
        return np.stack([numbers, np.arange(len(numbers)) - first[numbers]], axis=1)

    @cached_property
    def weights(self) -> NDArray[np.float64] | None:
        """Probability of each slice; None if all are equal."""
        return _weights(self.cases) if self.settings.method == "tumor" else None

    @cached_property
    def _cumulated(self) -> NDArray[np.float64] | None:
        return None if self.weights is None else _cumulate(self.weights)

    @property
    def steps_per_pass(self) -> int:
        """Number of batches that draw as many slices as the cases have."""
        return max(1, len(self.index) // (self.batch_size * self.world_size))

    def draw(self, step: int) -> NDArray[np.int64]:
        """Return the index of each slice of this worker's batch at `step`."""
        total = self.batch_size * self.world_size
        if self.settings.method == "epoch":
            count, positions = len(self.index), range(step * total, (step + 1) * total)
            drawn = np.array([self._permutation(position // count)[position % count] for position in positions])
        else:
            rng = np.random.default_rng([self.seed, step])
            if self._cumulated is None:
                drawn = rng.integers(len(self.index), size=total)
            else:
                drawn = _pick(self._cumulated, rng.random(total))
        return np.asarray(drawn[self.rank :: self.world_size], dtype=np.int64)

    def _permutation(self, number: int) -> NDArray[np.int64]:
        cached = getattr(self, "_last_permutation", None)
        if cached is None or cached[0] != number:
            order = np.random.default_rng([self.seed, 1, number]).permutation(len(self.index))
            self._last_permutation = cached = (number, order)
        return cached[1]

    def gather(self, step: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Return the slices (B, h, w, C) and masks (B, h, w) of this worker's batch at `step`."""
        drawn = [self.index[index] for index in self.draw(step)]
        images = np.stack([self.arrays(k)[0][s] for k, s in drawn])
        return images, np.stack([self.arrays(k)[1][s] for k, s in drawn])

    def select(self, step: int, resident: Resident) -> tuple[Tensor, Tensor]:
        """Return the same samples from device memory, the images as float32."""
        return resident.slices(self.draw(step))


class PatchBatches(Batches):
    """Batches of patches (B, C, d, h, w); `settings.patch` must be set."""

    @property
    def patch(self) -> Shape:
        """Voxels along S, H, W."""
        if self.settings.patch is None:
            raise UserError("training on patches needs their size", hint="set training.sampling.patch")
        return self.settings.patch

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Probability of each case: equal for all patients."""
        patients = [case.record.patient for case in self.cases]
        cases = Counter(patients)
        return np.array([1 / cases[patient] for patient in patients]) / len(cases)

    @cached_property
    def _cumulated(self) -> NDArray[np.float64]:
        return _cumulate(self.weights)

    @property
    def steps_per_pass(self) -> int:
        """Number of batches that draw as many voxels as the cases have."""
        voxels = sum(math.prod(case.record.prepared_shape) for case in self.cases)
        return max(1, voxels // (int(np.prod(self.patch)) * self.batch_size * self.world_size))

    def draw(self, step: int) -> list[tuple[int, Window]]:
        """Return the case, by index, and the window of each patch of this worker's batch at `step`."""
        rng = np.random.default_rng([self.seed, step])
        drawn = [self._draw_one(rng) for _ in range(self.batch_size * self.world_size)]
        return drawn[self.rank :: self.world_size]

    def _draw_one(self, rng: np.random.Generator) -> tuple[int, Window]:
        number = int(_pick(self._cumulated, rng.random()))
        case = self.cases[number]
        shape = case.record.prepared_shape
        areas = np.asarray(case.record.areas_px, dtype=np.float64)
        on_tumor = self.settings.method == "tumor" and rng.random() < self.settings.tumor_patches and areas.any()
        if on_tumor:
            s = int(rng.choice(len(areas), p=areas / areas.sum()))
            row, column = rng.choice(np.argwhere(self.arrays(number)[1][s] > 0))
            center = (s, int(row), int(column))
            start = [min(max(c - p // 2, 0), max(n - p, 0)) for c, p, n in zip(center, self.patch, shape, strict=True)]
        else:
            start = [int(rng.integers(max(n - p, 0) + 1)) for p, n in zip(self.patch, shape, strict=True)]
        # A volume smaller than the patch is centered in it.
        a, b, c = (k - max(p - n, 0) // 2 for k, p, n in zip(start, self.patch, shape, strict=True))
        return number, Window(before=shape, start=(a, b, c), after=self.patch)

    def gather(self, step: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Return the patches (B, d, h, w, C) and masks (B, d, h, w) of this worker's batch at `step`."""
        drawn = self.draw(step)
        images = np.stack([window.apply(self.arrays(k)[0]) for k, window in drawn])
        masks = np.stack([window.apply(self.arrays(k)[1]) for k, window in drawn])
        return images.astype(np.float16, copy=False), masks.astype(np.uint8, copy=False)

    def select(self, step: int, resident: Resident) -> tuple[Tensor, Tensor]:
        """Return the same samples from device memory, the images as float32."""
        return resident.patches(self.draw(step))


def batches_of(settings: SamplingSettings) -> type[Batches]:
    """Return the class of batches for the settings: patches if they give a patch size, else slices."""
    return SliceBatches if settings.patch is None else PatchBatches


def _cumulate(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    cumulated = weights.cumsum()
    return np.asarray(cumulated / cumulated[-1])


def _pick(cumulated: NDArray[np.float64], uniform: float | NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices that `Generator.choice(p=...)` would give for these uniform numbers, without its full sum."""
    return np.asarray(cumulated.searchsorted(uniform, side="right"), dtype=np.int64)


def _weights(cases: Sequence[PreparedCase]) -> NDArray[np.float64]:
    """Return the probability of each slice: equal for all patients; within a patient by area + 0.1 mean area.

    The slices of a patient without tumor are equally probable.
    """
    patients: dict[str, list[int]] = {}
    for k, case in enumerate(cases):
        patients.setdefault(case.record.patient, []).append(k)
    parts: list[NDArray[np.float64]] = [np.zeros(0)] * len(cases)
    for numbers in patients.values():
        areas = [np.asarray(cases[k].record.areas_px, dtype=np.float64) for k in numbers]
        mean = float(np.concatenate(areas).mean()) if sum(map(len, areas)) else 0.0
        raised = [area + 0.1 * mean if mean > 0 else np.ones_like(area) for area in areas]
        total = sum(float(part.sum()) for part in raised)
        for k, part in zip(numbers, raised, strict=True):
            parts[k] = part / total if total else part
    weights = np.concatenate(parts)
    return np.asarray(weights / weights.sum())
