"""What a study is checked for before it is answered: its channels by name, and what a reader of the answer should know.

Nothing is guessed in silence: what is taken for something else, or cannot be known, becomes a warning of the answer, or
is refused where the bundle wants it (`EntrySettings`).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle import Description
from glioflow.data.case import Case
from glioflow.data.checks.case_facts import copies_of_flair
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.geometry_steps import CropBrain
from glioflow.data.preprocessing.intensity_steps import Percentile, ZScore
from glioflow.data.preprocessing.pipeline import Neighbors
from glioflow.data.sequences import sequence_of
from glioflow.errors import UserError
from glioflow.models import ARCHITECTURES

# Steps whose result depends on the other slices of the volume.
VOLUME_WISE = (Percentile, ZScore, CropBrain, BrainMask, Neighbors)
# Cohorts that come without skull and scalp.
STRIPPED = ("brats",)
# Of the head's area in the middle slices, how much lies outside of the brain: 17 real scans lie at 0.14 to 0.16
# stripped, at 0.21 to 0.31 with the skull.
MAX_OUTSIDE_BRAIN = 0.18

# How different neighbors are, against slices far apart: 1 where the order means nothing.
MAX_NEIGHBOR_DIFFERENCE = 0.85


def conform(case: Case, description: Description) -> Case:
    """Return the study with the channels that the model takes, in its order and under its names, and with warnings.

    Args:
        case: As a reader gave it.
        description: Of the model.

    Raises:
        UserError: If a sequence is missing or there twice, or the bundle refuses such a study.
    """
    wanted, given = [sequence_of(name) for name in description.channels], [sequence_of(name) for name in case.channels]
    if any(given.count(sequence) != 1 for sequence in wanted):
        raise UserError(
            f"this model takes the channels {list(description.channels)}", f"a study with {list(case.channels)}"
        )
    warnings = list(case.warnings)
    if case.channels != description.channels:
        if left := [name for name, sequence in zip(case.channels, given, strict=True) if sequence not in wanted]:
            warnings.append(f"the model does not look at {', '.join(left)}")
        case = replace(
            case,
            image=np.ascontiguousarray(case.image[..., [given.index(sequence) for sequence in wanted]]),
            channels=description.channels,
        )
    return replace(case, warnings=tuple(dict.fromkeys([*warnings, *warnings_about(case, description)])))


def warnings_about(case: Case, description: Description) -> list[str]:
    """Return what a reader of the answer should know of the study, a sentence each.

    Raises:
        UserError: If the bundle refuses such a study.
    """
    said = [f"{name} is a copy of FLAIR: the sequence seems to be missing" for name in copies_of_flair(case)]
    middle = case.image[case.shape[0] // 2]
    said += [
        f"{name} is blank"
        for k, name in enumerate(case.channels)
        if not (middle[..., k].any() or case.image[..., k].any())
    ]
    needs: list[str] = [step.step for step in description.preprocess if isinstance(step, VOLUME_WISE)]
    needs += [description.model.architecture] if ARCHITECTURES[description.model.architecture].dims == 3 else []
    if case.shape[0] == 1 and needs:
        rule = f"the model needs a whole volume ({', '.join(needs)})"
        if description.entry.lone_slice == "refuse":
            raise UserError(rule, "a lone slice", ["all slices of the study"])
        said.append(f"{rule}: on a lone slice the answer is less reliable")
    if case.spacing_mm is None:
        said.append("the spacing is unknown: sizes are in pixels, and what needs millimeters is left out")
    numbers = case.slice_numbers
    if len(numbers) > 1 and numbers[-1] - numbers[0] + 1 != len(numbers):
        said.append(
            f"{numbers[-1] - numbers[0] + 1 - len(numbers)} slice numbers are missing between the first and last"
        )
    if out_of_order(case.image):
        said.append("neighboring slices look less alike than others: the slices seem to be out of order")
    stripped = description.origin.cohort_format in STRIPPED
    if stripped and not any(isinstance(step, BrainMask) for step in description.preprocess) and has_skull(case.image):
        if description.entry.skull == "refuse":
            rule = "the model takes brains without skull and scalp, as it was trained on"
            raise UserError(rule, "what seems to have them", ["the study after skull stripping"])
        said.append("there seems to be skull or scalp in the images, and the model was trained on stripped brains")
    return said


def out_of_order(image: NDArray[np.generic]) -> bool:
    """Say whether slices differ about as much from their neighbors as from those far away.

    Args:
        image: (S, H, W, C).
    """
    count = image.shape[0]
    if count < 12:
        return False
    small = np.asarray(image[:, ::4, ::4].mean(axis=-1), np.float32)
    near = np.abs(small[1:] - small[:-1]).mean()
    far = np.mean([np.abs(small[reach:] - small[:-reach]).mean() for reach in range(count // 4, count // 2)])
    return bool(near > MAX_NEIGHBOR_DIFFERENCE * far)


def has_skull(image: NDArray[np.generic]) -> bool:
    """Say whether a bright ring lies around the brain in the middle slices, by morphology: a hint, no anatomy.

    Args:
        image: (S, H, W, C).
    """
    from glioflow.data.preprocessing.brain_mask import approximate_brain

    count = image.shape[0]
    middle = np.asarray(image[slice(count // 3, max(count // 3 + 1, 2 * count // 3), max(1, count // 24))], np.float32)
    gray = middle.mean(axis=-1)
    head = gray > 0.15 * np.percentile(gray, 99)
    outside = head & ~approximate_brain(middle, 5)
    return bool(outside.sum() > MAX_OUTSIDE_BRAIN * max(1, head.sum()))
