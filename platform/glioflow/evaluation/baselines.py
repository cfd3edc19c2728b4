"""The baselines of every network: no tumor at all, a threshold on FLAIR, and a copy of the nearest training slice."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError
from glioflow.evaluation.metrics import BoolVolume, dice_of_counts

Image = NDArray[Any]


def predict_empty(image: Image) -> BoolVolume:
    """Return no tumor, (S, H, W), for an image (S, H, W) or (S, H, W, C)."""
    return np.zeros(image.shape[:3], dtype=bool)


def fit_flair_threshold(
    volumes: Callable[[], Iterable[tuple[Image, NDArray[Any]]]], *, num_candidates: int = 256
) -> float:
    """Choose the brightness threshold on FLAIR for tumor, by mean Dice over training patients.

    Brightness is in standard deviations from the mean of the volume's own brain (all above its darkest value), since
    raw intensities differ between scanners: on LGG this makes the baseline stronger.

    Args:
        volumes: Returns, on each call, FLAIR (S, H, W) of each patient in any unit and the true mask of the
            same shape; it is called twice, so that one patient at a time is in memory.
        num_candidates: Number of thresholds to try, evenly spaced between the lowest and the highest brightness.

    Returns:
        The threshold, in standard deviations.

    Raises:
        UserError: If there is no patient.
    """
    ranges = [(float(one.min()), float(one.max())) for one in (_standardized(image) for image, _ in volumes())]
    if not ranges:
        raise UserError("the FLAIR threshold needs at least one training patient")
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    edges = np.linspace(low, high, num_candidates + 1)
    dice = np.zeros(num_candidates)
    for raw, mask in volumes():
        image = _standardized(raw)
        # Numbers of all voxels and of tumor voxels at or above each edge, by two histograms.
        above, hits = (
            np.cumsum(np.histogram(voxels, edges)[0][::-1])[::-1] for voxels in (image, image[np.asarray(mask) > 0])
        )
        dice += [dice_of_counts(*pair) for pair in zip(hits.tolist(), (above + hits[0]).tolist(), strict=True)]
    best = np.flatnonzero(dice == dice.max())
    return float(edges[best[len(best) // 2]])  # the middle of a plateau, not its edge


def predict_flair_threshold(image: Image, threshold: float) -> BoolVolume:
    """Return where FLAIR (S, H, W) is at or above the threshold of `fit_flair_threshold`."""
    return np.asarray(_standardized(image) >= threshold)


def _standardized(image: Image) -> NDArray[np.float32]:
    """Return the image in standard deviations from the mean of all voxels above its darkest value."""
    values = image.astype(np.float32)
    brain = values[values > values.min()]
    if not brain.size:
        return np.zeros_like(values)
    return np.asarray((values - brain.mean()) / max(float(brain.std()), 1e-6))


class NearestSlice:
    """Baseline that predicts for each slice the mask of the most similar known slice."""

    def __init__(
        self, images: Sequence[Image], masks: Sequence[NDArray[Any]], *, patients: Sequence[str] | None = None
    ) -> None:
        """Store small copies of the images; the masks are not copied.

        Args:
            images: Image of each case, (S, H, W, C); H and W the same for all.
            masks: Labels of each case, (S, H, W).
            patients: The person of each case, so that no slice is predicted from a slice of the same person.

        Raises:
            UserError: If the slices differ in size.
        """
        shapes = sorted({image.shape[1:3] for image in images})
        if len(shapes) != 1:
            raise UserError("the nearest-slice baseline needs slices of one size, at least one", shapes)
        self._shape, self._masks = shapes[0], masks
        self._thumbnails = np.concatenate([_thumbnails(image) for image in images])
        self._lengths = (self._thumbnails**2).sum(axis=1)
        self._slices = [(case, index) for case, image in enumerate(images) for index in range(len(image))]
        names = np.asarray(patients or [""] * len(images))
        self._patients = np.repeat(names, [len(image) for image in images])

    def predict(self, image: Image, *, patient: str | None = None) -> NDArray[Any]:
        """Return the copied labels, (S, H, W).

        Args:
            image: (S, H, W, C).
            patient: The person; known slices of the same person are skipped.

        Raises:
            UserError: If the slices have a different size, or there is no slice of another person.
        """
        if image.shape[1:3] != self._shape:
            raise UserError(f"a slice must have the size of the known ones, {self._shape}", image.shape[1:3])
        own = self._patients == patient
        if own.all():
            raise UserError(f"the nearest-slice baseline needs slices of patients other than {patient}")
        # |a - b|^2 without |a|^2, which is the same for every candidate.
        distances = self._lengths - 2 * _thumbnails(image) @ self._thumbnails.T
        distances[:, own] = np.inf
        nearest = (self._slices[index] for index in distances.argmin(axis=1))
        return np.stack([self._masks[case][index] for case, index in nearest])


def _thumbnails(image: Image, size: int = 32) -> NDArray[np.float32]:
    """Return each slice shrunk by block means to about `size` x `size` and flattened: (S, features)."""
    block = [max(1, extent // size) for extent in image.shape[1:3]]
    height, width = (extent // step * step for extent, step in zip(image.shape[1:3], block, strict=True))
    cut = image[:, :height, :width].astype(np.float32)
    blocks = cut.reshape(len(cut), height // block[0], block[0], width // block[1], block[1], -1)
    return np.asarray(blocks.mean(axis=(2, 4)).reshape(len(cut), -1))
