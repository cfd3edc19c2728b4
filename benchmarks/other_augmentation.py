"""The augmentation policy `light` as a competent user of another library writes it."""

from typing import Any


def light_for_slices() -> Any:
    """Return albumentations' transform of `image=` (h, w, C) and `mask=` (h, w)."""
    import albumentations as alb
    import cv2

    cv2.setNumThreads(1)
    return alb.Compose([alb.HorizontalFlip(p=0.5), alb.Affine(scale=(0.92, 1.08), rotate=(-10, 10), p=0.7)])


def light_for_patches() -> Any:
    """Return MONAI's transform of a dictionary of `image` (C, d, h, w) and `mask` (1, d, h, w)."""
    from monai import transforms

    keys = ("image", "mask")
    turn = transforms.RandAffined(
        keys,
        prob=0.5,
        rotate_range=(0.17, 0.05, 0.05),
        scale_range=(0.08, 0.08, 0.08),
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    )
    return transforms.Compose([transforms.RandFlipd(keys, prob=0.5, spatial_axis=2), turn])
