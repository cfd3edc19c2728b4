"""Named augmentation policies for slices: what a training slice may look like besides what it is."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import unknown_name

Augment = Callable[[NDArray[np.float32], NDArray[np.uint8], int], tuple[NDArray[np.float32], NDArray[np.uint8]]]


def _affine(scale: float, degrees: float, probability: float) -> Any:
    import albumentations as alb
    import cv2

    return alb.Affine(
        scale=(1 - scale, 1 + scale),
        rotate=(-degrees, degrees),
        p=probability,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_CONSTANT,
    )


def _light() -> list[Any]:
    import albumentations as alb

    return [alb.HorizontalFlip(p=0.5), _affine(0.08, 10, 0.7)]


def _buda() -> list[Any]:
    import albumentations as alb

    return [_affine(0.05, 0, 1.0), _affine(0.0, 15, 1.0), alb.HorizontalFlip(p=0.5)]


def _strong() -> list[Any]:
    import albumentations as alb

    return [
        alb.HorizontalFlip(p=0.5),
        alb.VerticalFlip(p=0.2),
        _affine(0.15, 20, 0.8),
        alb.ElasticTransform(alpha=30, sigma=6, p=0.2),
        alb.RandomBrightnessContrast(0.2, 0.2, p=0.5, max_value=1.0),
        alb.RandomGamma((80, 125), p=0.3),
        alb.GaussianBlur((3, 5), p=0.15),
        alb.GaussNoise((0.01, 0.04), p=0.2),
    ]


# Name -> the policy's transforms. `light`: flips, small rotations and scales; `buda`: those of the PyTorch port.
POLICIES: dict[str, Callable[[], list[Any]]] = {"none": list, "light": _light, "buda": _buda, "strong": _strong}


def build_augmentation(name: str) -> Augment:
    """Return the policy's function (image (h, w, C) float32, mask (h, w) uint8, seed) -> the same, augmented.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in POLICIES:
        raise unknown_name("augmentation", name, POLICIES)
    transforms = POLICIES[name]()
    if not transforms:
        return lambda image, mask, seed: (image, mask)
    import albumentations as alb

    pipeline = alb.Compose(transforms, seed=0)

    def augment(
        image: NDArray[np.float32], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        pipeline.set_random_seed(seed)
        out = pipeline(image=image, mask=mask)
        return out["image"], out["mask"]

    return augment
