"""Batches of slices from a prepared cohort. Every batch is a function of (seed, step): a resumed run sees the same."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.data.augmentation import build_augmentation
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
        augmentation: Key in `augmentation.POLICIES`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Literal["tumor", "uniform", "epoch"] = "tumor"
    augmentation: str = "light"


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
        if any(case.record.areas_px is None for case in cases):
            raise UserError("training cases have masks", next(c.record.id for c in cases if c.record.areas_px is None))
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
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(self.batch, first) if first < last else None
            for step in range(first, last):
                assert waiting is not None
                ready = waiting.result()
                waiting = thread.submit(self.batch, step + 1) if step + 1 < last else None
                yield ready


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
