"""Batches of slices or patches from a prepared cohort, each a function of (seed, step): a resumed run sees the same."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from glioflow.data.augmentation import build_augmentation
from glioflow.data.augmentation_3d import build_augmentation_3d
from glioflow.data.geometry import Shape, Window
from glioflow.data.prepared import PreparedCase
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError

if TYPE_CHECKING:
    import torch


class SamplingSettings(BaseModel):
    """Which slices training sees, and how they are varied.

    Attributes:
        method: `tumor`: a patient uniformly, then one of its slices with probability proportional to its tumor area
            plus a tenth of the patient's mean area (Buda's PyTorch port). `uniform`: every slice equally. `epoch`: a
            new permutation of all slices each pass.
        augmentation: Key in `augmentation.POLICIES`, for patches in `augmentation_3d.POLICIES_3D`.
        patch: Voxels of a patch along S, H, W, for 3D networks; null trains on slices.
        tumor_patches: Share of patches that `tumor` centers on a tumor voxel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Literal["tumor", "uniform", "epoch"] = "tumor"
    augmentation: str = "light"
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    tumor_patches: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "SamplingSettings":
        if self.patch is not None and self.method == "epoch":
            raise ValueError("patches are drawn by 'tumor' or 'uniform'; there is no epoch of all patches")
        return self


class SliceBatches:
    """Training batches by step number."""

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        target: TargetSettings,
        settings: SamplingSettings,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Index the slices.

        Args:
            cases: Labeled training cases.
            target: The task.
            settings: Sampling and augmentation.
            batch_size: Slices in one batch of this worker.
            seed: Of choice and augmentation.
            rank: This worker's number; workers get different slices of the same draw.
            world_size: Number of workers.

        Raises:
            UserError: If there is no labeled slice.
        """
        _check_labeled(cases)
        if settings.patch is not None:
            raise UserError("training.sampling.patch is for 3D networks; these batches are slices", settings.patch)
        self.cases, self.target, self.settings = list(cases), target, settings
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.index = [(k, s) for k, case in enumerate(cases) for s in range(case.image.shape[0])]
        if not self.index:
            raise UserError("training needs at least one slice", "none")
        self.weights = _weights(cases) if settings.method == "tumor" else None
        self.augment = build_augmentation(settings.augmentation)

    @property
    def steps_per_pass(self) -> int:
        """Batches in which as many slices are drawn as there are."""
        return max(1, len(self.index) // (self.batch_size * self.world_size))

    def draw(self, step: int) -> NDArray[np.int64]:
        """Return the index of each slice of this worker's batch at `step`."""
        total = self.batch_size * self.world_size
        if self.settings.method == "epoch":
            places = range(step * total, (step + 1) * total)
            drawn = np.array([self._permutation(place // len(self.index))[place % len(self.index)] for place in places])
        else:
            rng = np.random.default_rng([self.seed, step])
            drawn = rng.choice(len(self.index), size=total, p=self.weights)
        return np.asarray(drawn[self.rank :: self.world_size], dtype=np.int64)

    def _permutation(self, number: int) -> NDArray[np.int64]:
        cached = getattr(self, "_last_permutation", None)
        if cached is None or cached[0] != number:
            order = np.random.default_rng([self.seed, 1, number]).permutation(len(self.index))
            self._last_permutation = cached = (number, order)
        return cached[1]

    def batch(self, step: int) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return the images (B, C, h, w) float32, channels last in memory, and the targets as the loss takes them."""
        import torch

        seeds = np.random.default_rng([self.seed, 2, step, self.rank]).integers(2**31, size=self.batch_size)
        images, targets = [], []
        for place, seed in zip(self.draw(step), seeds, strict=True):
            number, s = self.index[place]
            case = self.cases[number]
            assert case.mask is not None
            image, mask = self.augment(case.image[s].astype(np.float32), np.asarray(case.mask[s]), int(seed))
            images.append(image)
            targets.append(self.target.encode(mask))
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return stacked, torch.from_numpy(np.stack(targets))

    def steps(self, first: int, last: int) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
        """Give the batches of steps `first` to `last` - 1, each made in a thread while the one before is used."""
        return _ahead(self.batch, first, last)


class PatchBatches:
    """Training batches of patches by step number; the interface of `SliceBatches`."""

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        target: TargetSettings,
        settings: SamplingSettings,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Take labeled cases; arguments and errors are those of `SliceBatches`, and `settings.patch` must be set."""
        _check_labeled(cases)
        if settings.patch is None:
            raise UserError("training on patches needs their size: training.sampling.patch", "none")
        if not cases:
            raise UserError("training needs at least one case", "none")
        self.cases, self.target, self.settings, self.patch = list(cases), target, settings, settings.patch
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        patients = [case.record.patient for case in cases]
        self.weights = np.array([1 / patients.count(patient) for patient in patients]) / len(set(patients))
        self.augment = build_augmentation_3d(settings.augmentation)

    @property
    def steps_per_pass(self) -> int:
        """Batches in which as many voxels are drawn as there are."""
        voxels = sum(int(np.prod(case.image.shape[:3])) for case in self.cases)
        return max(1, voxels // (int(np.prod(self.patch)) * self.batch_size * self.world_size))

    def draw(self, step: int) -> list[tuple[int, Window]]:
        """Return number of the case and place in it of each patch of this worker's batch at `step`."""
        rng = np.random.default_rng([self.seed, step])
        drawn = [self._draw_one(rng) for _ in range(self.batch_size * self.world_size)]
        return drawn[self.rank :: self.world_size]

    def _draw_one(self, rng: np.random.Generator) -> tuple[int, Window]:
        number = int(rng.choice(len(self.cases), p=self.weights))
        case = self.cases[number]
        shape: Shape = case.image.shape[:3]
        areas = np.asarray(case.record.areas_px, dtype=np.float64)
        on_tumor = self.settings.method == "tumor" and rng.random() < self.settings.tumor_patches and areas.any()
        if on_tumor:
            assert case.mask is not None
            s = int(rng.choice(len(areas), p=areas / areas.sum()))
            row, column = rng.choice(np.argwhere(case.mask[s] > 0))
            center = (s, int(row), int(column))
            start = [min(max(c - p // 2, 0), max(n - p, 0)) for c, p, n in zip(center, self.patch, shape, strict=True)]
        else:
            start = [int(rng.integers(max(n - p, 0) + 1)) for p, n in zip(self.patch, shape, strict=True)]
        # A volume smaller than the patch lies in its middle.
        a, b, c = (k - max(p - n, 0) // 2 for k, p, n in zip(start, self.patch, shape, strict=True))
        return number, Window(before=shape, start=(a, b, c), after=self.patch)

    def batch(self, step: int) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return the images (B, C, d, h, w) float32 and the targets as the loss takes them."""
        import torch

        seeds = np.random.default_rng([self.seed, 2, step, self.rank]).integers(2**31, size=self.batch_size)
        images, targets = [], []
        for (number, window), seed in zip(self.draw(step), seeds, strict=True):
            case = self.cases[number]
            assert case.mask is not None
            image = np.asarray(window.apply(case.image), np.float32)
            image, mask = self.augment(image, np.asarray(window.apply(case.mask), np.uint8), int(seed))
            images.append(image)
            targets.append(self.target.encode(mask))
        stacked = torch.from_numpy(np.stack(images)).permute(0, 4, 1, 2, 3)
        return stacked, torch.from_numpy(np.stack(targets))

    def steps(self, first: int, last: int) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
        """Give the batches of steps `first` to `last` - 1, as `SliceBatches.steps`."""
        return _ahead(self.batch, first, last)


Batch = tuple["torch.Tensor", "torch.Tensor"]


def _ahead(batch: Callable[[int], Batch], first: int, last: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(batch, first) if first < last else None
        for step in range(first, last):
            assert waiting is not None
            ready = waiting.result()
            waiting = thread.submit(batch, step + 1) if step + 1 < last else None
            yield ready


def _check_labeled(cases: Sequence[PreparedCase]) -> None:
    for case in cases:
        if case.record.areas_px is None:
            raise UserError("training cases have masks", case.record.id)


def _weights(cases: Sequence[PreparedCase]) -> NDArray[np.float64]:
    """Probability of each slice: patients alike, slices by area + 0.1 mean area (uniform in a case without tumor)."""
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
