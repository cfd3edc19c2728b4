"""Augmentation of one slice at a time on the CPU, by albumentations: published systems, and our own first release."""

from collections.abc import Callable
from typing import Any

import albumentations as alb
import cv2
import numpy as np
from numpy.typing import NDArray

# Varies an image (h, w, C) and its mask (h, w), given a seed.
Augment = Callable[[NDArray[np.float32], NDArray[np.uint8], int], tuple[NDArray[np.float32], NDArray[np.uint8]]]


def _affine(scale: float, degrees: float, probability: float = 1.0) -> Any:
    return alb.Affine(
        scale=(1 - scale, 1 + scale),
        rotate=(-degrees, degrees),
        p=probability,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_CONSTANT,
    )


def _strong_moves() -> list[Any]:
    return [
        alb.HorizontalFlip(p=0.5),
        alb.VerticalFlip(p=0.2),
        _affine(0.15, 20, 0.8),
        alb.ElasticTransform(alpha=30, sigma=6, p=0.2),
    ]


def _strong_intensities() -> list[Any]:
    return [
        alb.RandomBrightnessContrast(0.2, 0.2, p=0.5),
        alb.RandomGamma((80, 125), p=0.3),
        alb.GaussianBlur((3, 5), p=0.15),
        alb.GaussNoise((0.01, 0.04), p=0.2),
    ]


# `buda`: from the PyTorch port of Buda et al. 2019. The policies of 0.1 are for training runs that it started.
_MOVES: dict[str, Callable[[], list[Any]]] = {
    "buda": lambda: [_affine(0.05, 0), _affine(0.0, 15), alb.HorizontalFlip(p=0.5)],
    "light-0.1": lambda: [alb.HorizontalFlip(p=0.5), _affine(0.08, 10, 0.7)],
    "strong-0.1": _strong_moves,
}
_INTENSITIES: dict[str, Callable[[], list[Any]]] = {"strong-0.1": _strong_intensities}


def build_published(name: str) -> Augment:
    """Return the function (image (h, w, C) float32, mask (h, w) uint8, seed) -> (image, mask) of a policy.

    The image may have any range and any background, e.g. z-scores; its first pixel is taken as background.
    """
    moves = alb.Compose(_MOVES[name](), seed=0)
    intensities = alb.Compose(_INTENSITIES[name](), seed=0) if name in _INTENSITIES else None

    def augment(
        image: NDArray[np.float32], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        background = image[0, 0].copy()
        moves.set_random_seed(seed)
        moved = moves(image=_raised(image, -background), mask=mask)
        image = _raised(moved["image"], background)
        if intensities is not None:
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
