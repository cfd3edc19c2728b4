"""Named augmentation policies for slices."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import albumentations as alb
import cv2
import numpy as np
from numpy.typing import NDArray

from glioflow.data.batches.settings import Augment
from glioflow.errors import unknown_name


@dataclass(frozen=True)
class Policy:
    """The transforms of a policy, from albumentations.

    Attributes:
        moves: Transforms that move image and mask together; new pixels get the value of the background.
        intensities: Transforms that change the image alone, in [0, 1].
    """

    moves: list[Any] = field(default_factory=list)
    intensities: list[Any] = field(default_factory=list)


def _affine(scale: float, degrees: float, probability: float) -> Any:
    return alb.Affine(
        scale=(1 - scale, 1 + scale),
        rotate=(-degrees, degrees),
        p=probability,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_CONSTANT,
    )


def _light() -> Policy:
    return Policy([alb.HorizontalFlip(p=0.5), _affine(0.08, 10, 0.7)])


def _buda() -> Policy:
    return Policy([_affine(0.05, 0, 1.0), _affine(0.0, 15, 1.0), alb.HorizontalFlip(p=0.5)])


def _strong() -> Policy:
    moves = [
        alb.HorizontalFlip(p=0.5),
        alb.VerticalFlip(p=0.2),
        _affine(0.15, 20, 0.8),
        alb.ElasticTransform(alpha=30, sigma=6, p=0.2),
    ]
    intensities = [
        alb.RandomBrightnessContrast(0.2, 0.2, p=0.5),
        alb.RandomGamma((80, 125), p=0.3),
        alb.GaussianBlur((3, 5), p=0.15),
        alb.GaussNoise((0.01, 0.04), p=0.2),
    ]
    return Policy(moves, intensities)


# `light`: flips, small rotations and scales; `buda`: those of the PyTorch port.
POLICIES: dict[str, Callable[[], Policy]] = {"none": Policy, "light": _light, "buda": _buda, "strong": _strong}


def build_augmentation(name: str) -> Augment:
    """Return the function (image (h, w, C) float32, mask (h, w) uint8, seed) -> (image, mask) of a policy.

    The image may have any range and any background, e.g. z-scores; its first pixel is taken as background.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in POLICIES:
        raise unknown_name("augmentation", name, POLICIES)
    policy = POLICIES[name]()
    if not policy.moves:
        return lambda image, mask, seed: (image, mask)
    moves, intensities = alb.Compose(policy.moves, seed=0), alb.Compose(policy.intensities, seed=0)

    def augment(
        image: NDArray[np.float32], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        background = image[0, 0].copy()
        moves.set_random_seed(seed)
        moved = moves(image=_raised(image, -background), mask=mask)
        image = _raised(moved["image"], background)
        if policy.intensities:
            low, high = image.min(), image.max()
            intensities.set_random_seed(seed)
            scaled = intensities(image=(image - low) / max(high - low, 1e-6))["image"]
            image = scaled * (high - low) + low
        return image, moved["mask"]

    return augment


def _raised(image: NDArray[np.float32], amount: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return image (h, w, C) + amount (C,), added row by row, since NumPy is slow where the last axis is short."""
    if not amount.any():
        return image
    h, w, channels = image.shape
    return np.asarray((image.reshape(h, w * channels) + np.tile(amount, w)).reshape(h, w, channels), np.float32)
