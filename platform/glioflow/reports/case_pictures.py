"""Pictures of single cases: slices through preprocessing, planes, montage, channels and classes side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.preprocessing.pipeline import Step, unprocessed
from glioflow.data.preprocessing.working_image import Volume
from glioflow.data.sequences import shown_channel
from glioflow.evaluation.boxes import bounding_box
from glioflow.reports.cohort_figures import Picture, window_of


def through_steps(case: Case, steps: Sequence[Step]) -> list[Picture]:
    """Return the slice of largest tumor as read and after each step; the mask goes with it."""
    pictures = []
    volume = unprocessed(case)
    largest = largest_slice(case.mask, case.shape[0])
    for name, step in [("as read", None), *((step.step, step) for step in steps)]:
        volume = volume if step is None else step.apply(volume)
        count = volume.image.shape[0]
        # The same slice throughout, as long as no step changes the number of slices.
        s = largest if count == case.shape[0] else largest_slice(volume.mask, count)
        shape = "x".join(str(n) for n in volume.image.shape[1:3])
        pictures.append(Picture(_shown(volume)[s], f"{name}  {shape}", None if volume.mask is None else volume.mask[s]))
    return pictures


def channels(case: Case) -> list[Picture]:
    """Return each channel of the slice of largest tumor, and the mask over the first."""
    s = largest_slice(case.mask, case.shape[0])
    pictures = [Picture(case.image[s, ..., k], name) for k, name in enumerate(case.channels)]
    if case.mask is not None:
        pictures.append(Picture(_flair(case)[s], "mask", case.mask[s], filled=True))
    return pictures


def classes(case: Case, labels: Mapping[int, str]) -> list[Picture]:
    """Return each label alone over FLAIR, in the slice where it is largest."""
    assert case.mask is not None
    pictures = []
    for value, name in labels.items():
        alone = np.where(case.mask == value, value, 0).astype(np.uint8)
        s = largest_slice(alone, case.shape[0])
        pictures.append(Picture(_flair(case)[s], f"{value}: {name}", alone[s], filled=True))
    return pictures


def planes(case: Case) -> list[Picture]:
    """Return the axial, coronal and sagittal plane through the middle of the tumor, superior on top."""
    image, mask = _flair(case), case.mask
    tumor = np.argwhere(mask > 0) if mask is not None and mask.any() else np.argwhere(np.ones((1, 1, 1)))
    middle = np.median(tumor, axis=0).astype(int) if len(tumor) > 1 else np.array(case.shape) // 2
    a, b, c = case.spacing_mm or (1.0, 1.0, 1.0)
    pictures = []
    for axis, (name, aspect) in enumerate((("axial", b / c), ("coronal", a / c), ("sagittal", a / b))):
        plane = np.take(image, middle[axis], axis=axis)
        part = None if mask is None else np.take(mask, middle[axis], axis=axis)
        if axis:
            plane, part = plane[::-1], None if part is None else part[::-1]
        pictures.append(Picture(plane, f"{name} {middle[axis]}", part, aspect=aspect))
    return pictures


def montage(case: Case, *, rows: int = 3, columns: int = 8) -> list[list[Picture]]:
    """Return evenly spaced slices of FLAIR from bottom to top, the mask outlined."""
    image = _flair(case)
    lit = bounding_box(image != 0)[0]
    low, high = (lit.start, lit.stop - 1) if lit.stop else (0, len(image) - 1)
    chosen = np.unique(np.linspace(low, high, rows * columns).round().astype(int))
    window = window_of(image)  # one for all: slices without a head are not blown up to noise
    pictures = [
        Picture(image[s], str(case.slice_numbers[s]), None if case.mask is None else case.mask[s], window=window)
        for s in chosen
    ]
    return [pictures[first : first + columns] for first in range(0, len(pictures), columns)]


def largest_slice(mask: NDArray[np.uint8] | None, count: int) -> int:
    """Return the slice with the most labeled pixels, or the middle one if there are none."""
    if mask is None or not mask.any():
        return count // 2
    return int(np.argmax((mask > 0).sum(axis=(1, 2))))


def _flair(case: Case) -> NDArray[np.generic]:
    return np.asarray(case.image[..., shown_channel(case.channels)])


def _shown(volume: Volume) -> NDArray[Any]:
    return np.asarray(volume.image[..., shown_channel(volume.channels)])
