"""Checks for blank channels, and for copies of FLAIR in place of a missing sequence."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def blank_channels(image: NDArray[np.generic], channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channels of an image (S, H, W, C) that are zero everywhere."""
    middle = image[image.shape[0] // 2]  # nearly every channel that is not blank is not blank there
    return tuple(name for k, name in enumerate(channels) if not (middle[..., k].any() or image[..., k].any()))


def copies_of_flair(image: NDArray[np.generic], channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channels of an image (S, H, W, C) that equal its FLAIR in every voxel: missing sequences."""
    if "flair" not in channels:
        return ()
    flair, middle = channels.index("flair"), image.shape[0] // 2

    def is_copy(k: int) -> bool:
        # Nearly every channel that is not a copy already differs in the middle slice.
        return all(np.array_equal(part[..., k], part[..., flair]) for part in (image[middle], image))

    return tuple(name for k, name in enumerate(channels) if k != flair and is_copy(k))
