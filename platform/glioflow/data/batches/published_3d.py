"""Augmentation of patches in the first release, by MONAI's transforms, for training runs that it started."""

from collections.abc import Callable
from typing import Any

import numpy as np
from monai import transforms
from numpy.typing import NDArray

from glioflow.data.batches.published import Augment

KEYS = ("image", "mask")


def _moves(rotation: float, scale: float) -> list[Any]:
    return [
        transforms.RandFlipd(KEYS, prob=0.5, spatial_axis=2),
        transforms.RandAffined(
            KEYS,
            prob=0.5,
            rotate_range=(rotation, rotation / 3, rotation / 3),
            scale_range=(scale, scale, scale),
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
    ]


def _light() -> tuple[list[Any], list[Any]]:
    return _moves(0.17, 0.08), []


def _strong() -> tuple[list[Any], list[Any]]:
    return _moves(0.5, 0.2), [
        transforms.RandGaussianNoised("image", prob=0.2, std=0.03),
        transforms.RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.4, 1), sigma_y=(0.4, 1), sigma_z=(0.4, 1)),
        transforms.RandScaleIntensityd("image", prob=0.3, factors=0.2),
        transforms.RandAdjustContrastd("image", prob=0.3, gamma=(0.8, 1.25)),
    ]


# By name: transforms that move image and mask together, and transforms that change the image alone, in [0, 1].
_TRANSFORMS: dict[str, Callable[[], tuple[list[Any], list[Any]]]] = {"light-0.1": _light, "strong-0.1": _strong}


def build_published_3d(name: str) -> Augment:
    """Return the function (image (d, h, w, C) float32, mask (d, h, w) uint8, seed) -> (image, mask) of a policy.

    The image may have any range; its first voxel is taken as background.
    """
    first, second = _TRANSFORMS[name]()
    moves, intensities = transforms.Compose(first), transforms.Compose(second)

    def augment(
        image: NDArray[np.float32], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        background = image[0, 0, 0]
        moves.set_random_state(seed)
        moved = moves({"image": np.moveaxis(image - background, -1, 0), "mask": mask[None].astype(np.float32)})
        image = np.moveaxis(np.asarray(moved["image"]), 0, -1) + background
        if second:
            low, high = image.min(), image.max()
            intensities.set_random_state(seed)
            scaled = intensities({"image": (image - low) / max(high - low, 1e-6)})["image"]
            image = np.asarray(scaled) * (high - low) + low
        return np.asarray(image, np.float32), np.asarray(moved["mask"])[0].astype(np.uint8)

    return augment
