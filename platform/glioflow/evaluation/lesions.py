"""Connected components of a mask and lesion-wise detection, 26-connected in 3D."""

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation.boxes import bounding_box

BoolVolume = NDArray[np.bool_]


def label_components(mask: BoolVolume) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask; voxels connect at a face, an edge or a corner.

    Returns:
        Labels from 0 (background) to n in the shape of the mask, and n.
    """
    from scipy import ndimage

    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    labels[box], count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    return labels, int(count)


def component_sizes(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the number of voxels of each component; entry 0, the background, is 0."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return sizes


def detect_lesions(prediction: BoolVolume, reference: BoolVolume) -> dict[str, float | None]:
    """Count detected, missed and false-positive lesions.

    A reference lesion is detected if any of its voxels is predicted; a predicted lesion is confirmed if any of its
    voxels is tumor. The names of the two rates state this rule; a rate is None if there is no lesion to divide by.

    Args:
        prediction: (S, H, W).
        reference: (S, H, W).
    """
    detected, num_reference = _overlapping(reference, prediction)
    confirmed, num_prediction = _overlapping(prediction, reference)
    return {
        "num_lesions_reference": float(num_reference),
        "num_lesions_prediction": float(num_prediction),
        "num_lesions_missed": float(num_reference - detected),
        "num_lesions_invented": float(num_prediction - confirmed),
        "lesion_sensitivity_any_voxel": detected / num_reference if num_reference else None,
        "lesion_precision_any_voxel": confirmed / num_prediction if num_prediction else None,
    }


def _overlapping(lesions: BoolVolume, other: BoolVolume) -> tuple[int, int]:
    """Return the number of components of `lesions` with a voxel in `other`, and of all components."""
    labels, count = label_components(lesions)
    return len(np.unique(labels[lesions & other])), count
