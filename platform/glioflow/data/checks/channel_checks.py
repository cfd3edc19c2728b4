"""Checks for blank channels, and for copies of another channel, such as FLAIR, in place of a missing sequence."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def blank_channels(image: NDArray[np.generic], channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channels of an image (S, H, W, C) that are zero everywhere."""
    middle = image[image.shape[0] // 2]  # nearly every channel that is not blank is not blank there
    return tuple(name for k, name in enumerate(channels) if not (middle[..., k].any() or image[..., k].any()))


def copies_of_flair(image: NDArray[np.generic], channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channels of an image (S, H, W, C) that equal its FLAIR in every voxel: missing sequences."""
    return tuple(name for name, original in find_copies(image, channels).items() if original == "flair")


def find_copies(image: NDArray[np.generic], channels: Sequence[str]) -> dict[str, str]:
    """Return the channels of an image (S, H, W, C) that equal another in every voxel, FLAIR if it can be, and which."""
    middle = image.shape[0] // 2

    def are_equal(k: int, other: int) -> bool:
        # Nearly every channel that is not a copy already differs in the middle slice.
        return all(np.array_equal(part[..., k], part[..., other]) for part in (image[middle], image))

    copies: dict[str, str] = {}
    originals: list[int] = []
    for k in sorted(range(len(channels)), key=lambda k: channels[k] != "flair"):
        if (original := next((other for other in originals if are_equal(k, other)), None)) is None:
            originals.append(k)
        else:
            copies[channels[k]] = channels[original]
    return copies


def is_constant(image: NDArray[np.generic]) -> bool:
    """Return whether each channel of an image (S, H, W, C) holds one value alone."""
    return all((part == part[:1, :1, :1]).all() for part in (image[image.shape[0] // 2][None], image))
