"""Training batches by step number: loading, augmenting and encoding what was drawn."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glioflow.data.batches.augmentation import Augmentation
from glioflow.data.batches.loading import Batch, loaded, to_float, to_target
from glioflow.data.batches.policies import POLICIES
from glioflow.data.batches.settings import SamplingSettings, Storage
from glioflow.data.batches.storage import Resident
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError

if TYPE_CHECKING:
    from glioflow.data.batches.published import Augment


class Batches:
    """Training batches by step number: base class for slices and patches."""

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
        device: torch.device | None = None,
        storage: Storage = "disk",
        num_threads: int = 1,
    ) -> None:
        """Prepare to draw from the cases.

        Args:
            cases: Labeled training cases.
            target: The task.
            settings: Sampling and augmentation.
            batch_size: Slices or patches in one batch of this worker.
            seed: Seed of sampling and augmentation.
            rank: This worker's number; workers get different parts of the same draw.
            world_size: Number of workers.
            device: Device of the batches; None is the CPU.
            storage: Where the arrays of the cases are stored; does not change any batch.
            num_threads: Threads that make batches ahead of their use, if the arrays are not on the device.

        Raises:
            UserError: If there is no case, or a case has no mask.
        """
        if not cases:
            raise UserError("training needs at least one case", hint="check split, which has none in train")
        for case in cases:
            if case.record.areas_px is None:
                raise UserError(
                    "every training case must have a mask", case.record.id, hint="add its mask, or remove the case"
                )
        self.cases, self.target, self.settings = list(cases), target, settings
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.device = device or torch.device("cpu")
        self.num_threads = num_threads
        self.resident = Resident(self.cases, self.device) if storage == "device" else None
        self.in_memory = [(np.array(case.image), np.array(case.mask)) for case in cases] if storage == "host" else None
        self.on_step: Callable[[int], None] | None = None

    @property
    def is_resident(self) -> bool:
        """Whether the arrays are on the device."""
        return self.resident is not None

    @property
    def steps_per_pass(self) -> int:
        """Number of batches that draw as many voxels as the cases have."""
        raise NotImplementedError

    def gather(self, step: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Return the images (B, ..., C) and masks (B, ...) of this worker's batch at `step`, as stored."""
        raise NotImplementedError

    def select(self, step: int, resident: Resident) -> tuple[Tensor, Tensor]:
        """Return the same samples from device memory, the images as float32."""
        raise NotImplementedError

    def arrays(self, case: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Return image and mask of a case by its index."""
        if self.in_memory is not None:
            return self.in_memory[case]
        image, mask = self.cases[case].image, self.cases[case].mask
        assert mask is not None  # checked by __init__
        return image, mask

    def batch(self, step: int) -> Batch:
        """Return the images (B, C, ...) float32, channels last in memory, and the targets as the loss takes them."""
        return self.complete(step, *self.stored(step))

    def stored(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, ..., C) and masks (B, ...) before augmentation, on the device if they are stored there."""
        if self.resident is not None:
            return self.select(step, self.resident)
        images, masks = self.gather(step)
        if self.settings.augmentation not in POLICIES:
            return self._vary_one_by_one(step, images, masks)
        return torch.from_numpy(images), torch.from_numpy(masks)

    def complete(self, step: int, images: Tensor, masks: Tensor) -> Batch:
        """Convert, augment and encode what `stored` returned, on its device."""
        images = to_float(images).movedim(-1, 1)
        if self.settings.augmentation in POLICIES and self.settings.augmentation != "none":
            images, masks = self._augment(step, images, masks)
        return images, to_target(self.target, masks)

    @cached_property
    def _augment(self) -> Augmentation:
        policy = POLICIES[self.settings.augmentation]
        return Augmentation(policy, seed=self.seed, rank=self.rank, world_size=self.world_size)

    def _vary_one_by_one(
        self, step: int, images: NDArray[np.float16], masks: NDArray[np.uint8]
    ) -> tuple[Tensor, Tensor]:
        augment = self._one_by_one()
        seeds = np.random.default_rng([self.seed, 2, step, self.rank]).integers(2**31, size=len(masks))
        whole = torch.from_numpy(images).float().numpy()  # much faster than NumPy's conversion
        varied = [augment(image, mask, int(seed)) for image, mask, seed in zip(whole, masks, seeds, strict=True)]
        return (
            torch.from_numpy(np.stack([image for image, _ in varied])),
            torch.from_numpy(np.stack([mask for _, mask in varied])),
        )

    def _one_by_one(self) -> "Augment":
        if self.settings.patch is None:
            from glioflow.data.batches.published import build_published  # loads albumentations

            return build_published(self.settings.augmentation)
        from glioflow.data.batches.published_3d import build_published_3d  # loads MONAI

        return build_published_3d(self.settings.augmentation)

    def steps(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `last` - 1, made ahead of their use.

        After each batch is used, `on_step` is called with the number of steps taken so far, in this process or before.
        """
        for step, batch in enumerate(loaded(self, first, last), start=first + 1):
            yield batch
            if self.on_step is not None:
                self.on_step(step)
