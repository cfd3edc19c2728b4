"""The smallest box around a mask."""

import numpy as np
from numpy.typing import NDArray


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box around the nonzero voxels, as one slice per axis; empty slices if there are none.

    Args:
        mask: Any number of axes, at least one.
    """
    present = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
    extent = slice(int(present[0]), int(present[-1]) + 1) if present.size else slice(0, 0)
    return (extent, *(bounding_box(np.asarray(mask.any(axis=0))) if mask.ndim > 1 else ()))
