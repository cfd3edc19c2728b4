"""Connected components of a mask and lesion-wise detection, 26-connected in 3D."""

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation.boxes import bounding_box

BoolVolume = NDArray[np.bool_]


def label_components(mask: BoolVolume) -> tuple[NDArray[np.int32], int]:
    """Number the components of a mask whose voxels touch at a face, an edge or a corner.

    Returns:
        Labels 0 (background) to n in the mask's shape, and n.
    """
    from scipy import ndimage

    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    labels[box], count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    return labels, int(count)


def component_sizes(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the voxels of each component; entry 0 is the background and counts as 0."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return sizes


def detect_lesions(prediction: BoolVolume, reference: BoolVolume) -> dict[str, float | None]:
    """Count lesions found, missed and invented.

    A reference lesion is found when any of its voxels is predicted; a predicted lesion is true when any of its voxels
    is tumor. The rule is in the names of the two rates, which are None where they divide by no lesion.

    Args:
        prediction: (S, H, W).
        reference: (S, H, W).
    """
    found, num_reference = _overlapping(reference, prediction)
    confirmed, num_prediction = _overlapping(prediction, reference)
    return {
        "num_lesions_reference": float(num_reference),
        "num_lesions_prediction": float(num_prediction),
        "num_lesions_missed": float(num_reference - found),
        "num_lesions_invented": float(num_prediction - confirmed),
        "lesion_sensitivity_any_voxel": found / num_reference if num_reference else None,
        "lesion_precision_any_voxel": confirmed / num_prediction if num_prediction else None,
    }


def _overlapping(lesions: BoolVolume, other: BoolVolume) -> tuple[int, int]:
    """Return how many components of `lesions` have a voxel in `other`, and how many there are."""
    labels, count = label_components(lesions)
    return len(np.unique(labels[lesions & other])), count
