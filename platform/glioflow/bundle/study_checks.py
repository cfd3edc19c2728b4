"""Checks of a study before prediction: its channels, and warnings for the reader of the answer.

Nothing is guessed silently: a substituted channel or an unknown fact becomes a warning in the
answer, or the study is refused if the bundle requires it (`EntrySettings`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle import Description
from glioflow.data.case import MAX_SLICES, Case, check_spacing_mm
from glioflow.data.checks.channel_checks import blank_channels, find_copies, is_constant
from glioflow.data.checks.channel_looks import find_swapped
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.geometry_steps import CropBox, CropBrain
from glioflow.data.preprocessing.intensity_steps import Percentile, UnitScale, ZScore
from glioflow.data.preprocessing.pipeline import Neighbors
from glioflow.data.sequences import sequence_of
from glioflow.errors import TooLarge, UserError
from glioflow.models import ARCHITECTURES

# Steps whose result depends on the other slices of the volume.
VOLUME_STEPS = (Percentile, ZScore, CropBox, CropBrain, BrainMask, Neighbors)
# Cohorts without skull and scalp.
STRIPPED = ("brats",)
# Share of the head's area outside the brain in the middle slices: in 17 real scans 0.14 to 0.16 after skull
# stripping, 0.21 to 0.31 before.
MAX_OUTSIDE_BRAIN = 0.18
# Difference of neighboring slices relative to distant ones: about 1 if the order is random.
MAX_NEIGHBOR_DIFFERENCE = 0.85
# Standard deviations from the training cohort above which to warn about intensities, and the number of slices a study
# must have to be refused for them: a few slices are not representative of a whole volume.
MAX_USUAL_DRIFT = 4.0
MIN_VOLUME_SLICES = 8
# A sequence with a higher intensity than this was not scaled to 0..1.
MIN_STORED_TOP = 20
# Share of a channel's voxels above its minimum that may hold its maximum: 0.000003 in 65 LGG patients, about 0.02 after
# windowing at the 99.5th percentile, 0.3 to 0.7 after clipping at 40 of 255.
MAX_AT_TOP, _PLATEAU, _LEAST_INSIDE = 0.05, 4, 500
# Aspect ratios of a pixel above which to warn and to refuse.
MAX_STRETCH, MOST_STRETCH = 1.5, 8.0
# Largest rotation of a grid's axes against the patient's, and largest shear, without a warning.
MAX_TURN_DEGREES, MAX_LEAN_DEGREES = 30, 5
# Names of images whose files do not state their sequence: nnU-Net numbers them.
_NUMBERED, _NAMELESS = re.compile(r"channel(\d+)"), ("image", "series")


def conform(case: Case, description: Description) -> Case:
    """Return the study with the model's channels, in its order and under its names, and with warnings.

    Args:
        case: Case from a reader.
        description: Description of the model.

    Raises:
        TooLarge: If it has more than `MAX_SLICES` slices.
        UserError: If a sequence is missing or duplicated, an intensity is not finite, or the bundle refuses the study.
    """
    if case.shape[0] > MAX_SLICES:
        raise TooLarge(f"a study must have at most {MAX_SLICES} slices", case.shape[0])
    if case.image.dtype.kind == "f" and not np.isfinite(case.image).all():
        raise UserError("the intensities of a study must be finite numbers", "NaN or infinity")
    case = with_channels(case, description.channels, description.origin.cohort_format)
    return replace(case, warnings=tuple(dict.fromkeys([*case.warnings, *warnings_about(case, description)])))


def with_channels(case: Case, channels: tuple[str, ...], cohort_format: str) -> Case:
    """Return the study with a model's channels, in its order and under its names.

    Args:
        case: Case from a reader.
        channels: The model's channels.
        cohort_format: Format of its training cohort; images that a study numbers are channels of a NIfTI cohort.

    Raises:
        UserError: If a sequence is missing or duplicated.
    """
    case = _with_known_names(case, channels, cohort_format)
    wanted, given = [sequence_of(name) for name in channels], [sequence_of(name) for name in case.channels]
    if any(given.count(sequence) != 1 for sequence in wanted):
        raise UserError(
            f"a study must have the model's channels, {', '.join(channels)}, each once",
            f"one with {', '.join(case.channels)}",
            hint="add what is missing, or say which file or series a channel is, as channel NAME=SERIES",
        )
    if case.channels == channels:
        return case
    unused = [name for name, sequence in zip(case.channels, given, strict=True) if sequence not in wanted]
    return replace(
        case,
        image=np.ascontiguousarray(case.image[..., [given.index(sequence) for sequence in wanted]]),
        channels=channels,
        warnings=(*case.warnings, *([f"the model does not use {', '.join(unused)}"] if unused else [])),
    )


def warnings_about(case: Case, description: Description) -> list[str]:
    """Return warnings about the study, one sentence each.

    Raises:
        UserError: If the bundle refuses such a study.
    """
    return [
        *_plane_warnings(case),
        *_direction_warnings(case),
        *_channel_warnings(case),
        *_scaling_warnings(case, description),
        *_clipping_warnings(case),
        *_lone_slice_warnings(case, description),
        *_order_warnings(case),
        *_skull_warnings(case, description),
    ]


def _with_known_names(case: Case, channels: tuple[str, ...], cohort_format: str) -> Case:
    """Return a study with numbered images, or a single unnamed one, under the model's channels."""
    numbers = [match[1] for name in case.channels if (match := _NUMBERED.fullmatch(name))]
    if len(numbers) == len(case.channels) == len(channels) and cohort_format == "nifti":
        if all(int(number) < len(channels) for number in numbers):
            names = tuple(channels[int(number)] for number in numbers)
            known = ", ".join(f"{number} as {name}" for number, name in zip(numbers, names, strict=True))
            return _renamed(case, names, f"the numbered images are taken as the model was trained: {known}")
    if len(case.channels) == len(channels) == 1 and sequence_of(case.channels[0]) in _NAMELESS:
        return _renamed(case, channels, f"the image has no sequence's name: taken for {channels[0]}")
    return case


def _renamed(case: Case, channels: tuple[str, ...], warning: str) -> Case:
    if case.channels == channels:
        return case
    return replace(case, channels=channels, warnings=(*case.warnings, warning))


def check_prepared(image: NDArray[np.floating[Any]], drift: Mapping[str, float], description: Description) -> list[str]:
    """Return warnings about the intensities of a study, one sentence each.

    Args:
        image: (S, h, w, C), the input of the network.
        drift: Result of `measure_drift` for this image.
        description: Description of the model.

    Raises:
        UserError: If a number is not finite, or the bundle refuses such intensities.
    """
    if not np.isfinite(image).all():
        hint = "send intensities as the scanner stores them"
        raise UserError("the intensities of a study must be small enough to compute with", hint=hint)
    far = {name: deviations for name, deviations in drift.items() if deviations > MAX_USUAL_DRIFT}
    if not far:
        return []
    shown = ", ".join(f"{name} by {deviations:.0f}" for name, deviations in far.items())
    limit = description.entry.max_drift
    if limit is not None and max(far.values()) > limit and image.shape[0] >= MIN_VOLUME_SLICES:
        rule = f"the intensities of a study must be within {limit:g} standard deviations of the training cohort's"
        hint = "check that they are not inverted, scaled or windowed, and that each sequence has its own name"
        raise UserError(rule, shown, hint=hint)
    return [
        f"the intensities are unlike those of the training cohort (standard deviations away: {shown}): the answer may "
        "be wrong; check scaling, windowing and the order of the sequences"
    ]


def swap_warnings(image: NDArray[np.floating[Any]], channels: Sequence[str], description: Description) -> list[str]:
    """Return warnings about channels of a prepared volume (S, h, w, C) whose names seem to be swapped.

    A few slices are not enough to judge.
    """
    known = description.channel_looks or ()
    pairs = find_swapped(image, channels, known) if image.shape[0] >= MIN_VOLUME_SLICES else []
    rule = "seem to be under each other's names: the answer may be wrong; check which file is which sequence"
    return [f"{one} and {other} {rule}" for one, other in pairs]


def _channel_warnings(case: Case) -> list[str]:
    if case.shape[0] >= MIN_VOLUME_SLICES and is_constant(case.image):
        raise UserError("the images of a study must show something", "one value in all voxels of each sequence")
    blank = blank_channels(case.image, case.channels)
    copies = {name: of for name, of in find_copies(case.image, case.channels).items() if name not in blank}
    return [
        *(
            f"{name} is a copy of {'FLAIR' if of == 'flair' else of}: the sequence seems to be missing"
            for name, of in copies.items()
        ),
        *(f"{name} is blank" for name in blank),
    ]


def _scaling_warnings(case: Case, description: Description) -> list[str]:
    """Warn of a sequence in 0..1 beside others that are not, where the model takes intensities as they are stored."""
    if not any(isinstance(step, UnitScale) and not step.takes_unit_range for step in description.preprocess):
        return []
    tops = {name: float(case.image[..., k].max()) for k, name in enumerate(case.channels)}
    scaled = [name for name, top in tops.items() if 0 < top <= 1 and max(tops.values()) > MIN_STORED_TOP]
    rule = "holds nothing above 1, and other sequences do: the answer may be wrong; check whether it was scaled"
    return [f"{name} {rule}" for name in scaled]


def _clipping_warnings(case: Case) -> list[str]:
    rule = "the study seems to be clipped or inverted: the answer may be wrong; send intensities as the scanner does"
    shares = {name: share_at_top(case.image[..., k]) for k, name in enumerate(case.channels)}
    return [
        f"{name} holds its highest value in {share:.0%} of the voxels above its lowest: {rule}"
        for name, share in shares.items()
        if share > MAX_AT_TOP
    ]


def share_at_top(channel: NDArray[np.generic]) -> float:
    """Return the share of the voxels of a channel (S, H, W) above its minimum that hold its maximum.

    It is 0 where the value below the maximum is about as frequent, as in an image of few gray values, and where there
    are too few voxels to judge.
    """
    sample = np.asarray(channel[:, ::2, ::2], np.float32)
    inside = sample[sample > sample.min()] if sample.size else sample
    if inside.size < _LEAST_INSIDE:
        return 0.0
    count = np.count_nonzero(inside == inside.max())
    below = inside[inside < inside.max()]
    if not below.size or count <= _PLATEAU * np.count_nonzero(below == below.max()):
        return 0.0
    return float(count / inside.size)


def _lone_slice_warnings(case: Case, description: Description) -> list[str]:
    needs: list[str] = [step.step for step in description.preprocess if isinstance(step, VOLUME_STEPS)]
    needs += [description.model.architecture] if ARCHITECTURES[description.model.architecture].dims == 3 else []
    if case.shape[0] > 1 or not needs:
        return []
    rule = f"the model needs a whole volume ({', '.join(needs)})"
    if description.entry.lone_slice == "refuse":
        raise UserError(rule, "a single slice", hint="give all slices of the study")
    return [f"{rule}: on a single slice its answer is less reliable"]


def _order_warnings(case: Case) -> list[str]:
    warnings = []
    if case.spacing_mm is None:
        warnings.append("the spacing is unknown: sizes are in pixels, and what needs millimeters is left out")
    numbers = case.slice_numbers
    if missing := numbers[-1] - numbers[0] + 1 - len(numbers):
        shown = "1 slice number is" if missing == 1 else f"{missing} slice numbers are"
        warnings.append(f"{shown} missing between the first and the last")
    if out_of_order(case.image):
        warnings.append("neighboring slices are less alike than distant ones: the slices seem to be out of order")
    return warnings


def _skull_warnings(case: Case, description: Description) -> list[str]:
    trained_without = description.origin.cohort_format in STRIPPED
    removed = any(isinstance(step, BrainMask) for step in description.preprocess)
    if not trained_without or removed or not has_skull(case.image):
        return []
    if description.entry.skull == "refuse":
        rule = "the model needs skull-stripped images, like those it was trained on"
        raise UserError(rule, "images that seem to show skull and scalp", hint="strip the skull first")
    return ["the images seem to show skull or scalp, and the model was trained on images without them"]


def _plane_warnings(case: Case) -> list[str]:
    """Warn of a scan in thick slices of another plane: read as axial slices, its pixels are elongated."""
    if case.spacing_mm is None:
        return []
    check_spacing_mm(case.spacing_mm)
    short, long = sorted(case.spacing_mm[1:])
    if long > MOST_STRETCH * short:
        rule = f"the pixels of axial slices must be at most {MOST_STRETCH:g} times as long as wide"
        hint = "give a scan with thinner slices, or an axial one"
        raise UserError(rule, f"{long:g} by {short:g} mm", hint=hint)
    if long <= MAX_STRETCH * short:
        return []
    shown = f"{long:.3g} mm by {short:.3g} mm"
    return [f"a pixel of the axial slices is {shown}, as in scans of another plane: the answer is less reliable"]


def _direction_warnings(case: Case) -> list[str]:
    """Warn of a grid that is rotated against the patient's axes or sheared: its slices do not look axial."""
    if case.grid.affine is None:
        return []
    steps = np.asarray(case.grid.affine[:3, :3], np.float64)
    directions = steps / np.linalg.norm(steps, axis=0)
    turn = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0).min(), 0, 1))))
    across = np.abs(directions.T @ directions - np.eye(3)).max()
    lean = float(np.degrees(np.arcsin(np.clip(across, 0, 1))))
    if lean > MAX_LEAN_DEGREES:
        return [f"the axes of the images lean by {lean:.0f} degrees toward each other: the answer is less reliable"]
    if turn > MAX_TURN_DEGREES:
        return [f"the slices are turned by {turn:.0f} degrees against axial ones: the answer is less reliable"]
    return []


def out_of_order(image: NDArray[np.generic]) -> bool:
    """Return whether slices differ from their neighbors about as much as from distant ones.

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
    """Return whether a bright ring surrounds the brain in the middle slices, by morphology: an approximation.

    Args:
        image: (S, H, W, C).
    """
    from glioflow.data.preprocessing.brain_shape import approximate_brain

    count = image.shape[0]
    middle = np.asarray(image[slice(count // 3, max(count // 3 + 1, 2 * count // 3), max(1, count // 24))], np.float32)
    gray = middle.mean(axis=-1)
    head = gray > 0.15 * np.percentile(gray, 99)
    outside = head & ~approximate_brain(middle, 5)
    return bool(outside.sum() > MAX_OUTSIDE_BRAIN * max(1, head.sum()))
