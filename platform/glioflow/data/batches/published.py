"""Augmentation policies of published systems, made of albumentations' transforms, one slice at a time on the CPU."""

from collections.abc import Callable
from typing import Any

import albumentations as alb
import cv2
import numpy as np
from numpy.typing import NDArray

# Varies an image (h, w, C) and its mask (h, w) by a seed.
Augment = Callable[[NDArray[np.float32], NDArray[np.uint8], int], tuple[NDArray[np.float32], NDArray[np.uint8]]]


def _affine(scale: float, degrees: float) -> Any:
    return alb.Affine(
        scale=(1 - scale, 1 + scale),
        rotate=(-degrees, degrees),
        p=1.0,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_CONSTANT,
    )


# `buda`: of the PyTorch port of Buda et al. 2019.
TRANSFORMS: dict[str, Callable[[], list[Any]]] = {
    "buda": lambda: [_affine(0.05, 0), _affine(0.0, 15), alb.HorizontalFlip(p=0.5)],
}


def build_published(name: str) -> Augment:
    """Return the function (image (h, w, C) float32, mask (h, w) uint8, seed) -> (image, mask) of a policy.

    The image may have any range and any background, e.g. z-scores; its first pixel is taken as background.
    """
    moves = alb.Compose(TRANSFORMS[name](), seed=0)

    def augment(
        image: NDArray[np.float32], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        background = image[0, 0].copy()
        moves.set_random_seed(seed)
        moved = moves(image=_raised(image, -background), mask=mask)
        return _raised(moved["image"], background), moved["mask"]

    return augment


def _raised(image: NDArray[np.float32], amount: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return image (h, w, C) + amount (C,), added row by row, since NumPy is slow where the last axis is short."""
    if not amount.any():
        return image
    h, w, channels = image.shape
    return np.asarray((image.reshape(h, w * channels) + np.tile(amount, w)).reshape(h, w, channels), np.float32)
