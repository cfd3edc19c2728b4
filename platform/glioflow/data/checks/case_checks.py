"""What is wrong with one case, found by reading it file by file. Knows nothing of the other cases."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.checks.channel_checks import blank_channels, copies_of_flair
from glioflow.data.formats import lgg, nifti
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.preprocessing.brain_mask import BrainMask, approximate_brain
from glioflow.errors import UserError

# Real masks reach a little beyond the filled head where a tumor touches the skull, and the brain is approximated: of
# 65 LGG patients none has 2 % of its mask outside the head, 30 % in a single slice, or 15 % outside that brain.
MAX_OUTSIDE = 0.1
MAX_OUTSIDE_SLICE = 0.5
MAX_OUTSIDE_BRAIN = 0.3


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        severity: `error` where results would be wrong, `warning` where a person should know.
        file: Which file, or which case's folder, relative to the source.
        rule: What should hold.
        value: What was found instead.
    """

    severity: Literal["error", "warning"]
    file: str
    rule: str
    value: str


@dataclass(frozen=True)
class Finding:
    """What reading one case told.

    Attributes:
        slices: How many could be read.
        positive_slices: How many of them have tumor in their mask.
        labeled: Whether there is a mask; None where nothing could be read.
        problems: In the order they were met.
        digests: Number and digest of every slice that is not blank.
    """

    slices: int
    positive_slices: int
    labeled: bool | None
    problems: tuple[Problem, ...]
    digests: tuple[tuple[int, bytes], ...]


def check_case(cohort: Cohort, case: CaseFiles) -> Finding:
    """Read one case file by file and look at what could be read."""
    problems: list[Problem] = []
    if cohort.format == "lgg":
        image, mask, numbers = _read_slices(cohort.path, case, problems)
        channels: tuple[str, ...] = lgg.CHANNELS
    else:
        read = _read_case(cohort, case, problems)
        if read is None:
            return Finding(0, 0, None, tuple(problems), ())
        image, mask, numbers, channels = read.image, read.mask, list(read.slice_numbers), read.channels
    name = case.files[0].parent.relative_to(cohort.path).as_posix() if case.files[0].parent != cohort.path else case.id
    digests = []
    if len(image):
        digests = _check_image(name, image, numbers, channels, blank_slices=cohort.format != "lgg", problems=problems)
        if mask is not None:
            _check_mask(name, image, mask, numbers, whole_heads=cohort.format in ("lgg", "dicom"), problems=problems)
    positive = 0 if mask is None else int((mask > 0).any(axis=(1, 2)).sum())
    labeled = mask is not None if len(image) else None
    return Finding(len(image), positive, labeled, tuple(problems), tuple(digests))


def _read_slices(
    root: Path, case: CaseFiles, problems: list[Problem]
) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None, list[int]]:
    """Read the slices of an LGG case one by one; those that fail are reported and left out."""
    images, masks, doubled = _pairs(case.files)
    problems += [problem_of(error, file, root) for file, error in doubled]
    if wrong := [file for file in case.files if not file.name.startswith(f"{case.id}_")]:
        problems.append(found(wrong[0], root, "a slice is named after its folder", f"{len(wrong)} of another name"))
    numbers = sorted(images.keys() | masks.keys())
    if gaps := sorted(set(range(1, numbers[-1] + 1)) - set(numbers)):
        problems.append(
            found(case.files[0].parent, root, "slice numbers run from 1 without a gap", f"{gaps[:10]} missing")
        )
    planes: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    for number in numbers:
        if number not in images:
            problems.append(found(masks[number], root, "every mask belongs to a slice", "no slice of this number"))
            continue
        if masks and number not in masks:
            problems.append(found(images[number], root, "every slice has a mask, or none has", "no mask"))
        try:
            plane = lgg.read_slice(images[number])
            if planes and plane.shape != planes[0].shape:
                raise UserError("all slices of a case have one size", f"{plane.shape[:2]}, not {planes[0].shape[:2]}")
        except UserError as error:
            problems.append(problem_of(error, images[number], root))
            continue
        label = np.zeros(plane.shape[:2], np.uint8)
        if number in masks:
            try:
                label = lgg.read_mask(masks[number], plane.shape[:2])
            except UserError as error:
                problems.append(problem_of(error, masks[number], root))
        planes.append(plane)
        labels.append(label)
        kept.append(number)
    if not planes:
        return np.zeros((0, 1, 1, 3), np.uint8), None, []
    return np.stack(planes), np.stack(labels) if masks else None, kept


def _pairs(files: Iterable[Path]) -> tuple[dict[int, Path], dict[int, Path], list[tuple[Path, UserError]]]:
    """Pair slices and masks one file at a time, so that a doubled number is reported and the rest still read."""
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    doubled = []
    for file in files:
        image, mask = lgg.pair_slices([file])
        for group, found in ((images, image), (masks, mask)):
            for number, path in found.items():
                if number in group:
                    error = UserError("every slice number appears once", f"number {number} as {group[number].name}")
                    doubled.append((path, error))
                else:
                    group[number] = path
    return images, masks, doubled


def _read_case(cohort: Cohort, case: CaseFiles, problems: list[Problem]) -> Case | None:
    """Read a case of volumes; where that fails, each of its NIfTI files is tried alone to name every bad one."""
    try:
        return cohort.read_files(case)
    except UserError as error:
        broken = []
        for file in case.files:
            if nifti.is_nifti(file.name):
                try:
                    nifti.read_volume(file)
                except UserError as problem:
                    broken.append(problem_of(problem, file, cohort.path))
        problems += broken or [problem_of(error, case.files[0].parent, cohort.path)]
        return None


def _check_image(
    name: str,
    image: NDArray[np.generic],
    numbers: list[int],
    channels: tuple[str, ...],
    *,
    blank_slices: bool,
    problems: list[Problem],
) -> list[tuple[int, bytes]]:
    """Look for blank and doubled slices and for channels that are copies; return the digests of the slices."""
    digests: dict[bytes, int] = {}
    blank = []
    for number, plane in zip(numbers, image, strict=True):
        if plane.min() == plane.max():
            blank.append(number)
            continue
        digest = hashlib.blake2b(np.ascontiguousarray(plane).tobytes(), digest_size=16).digest()
        if digest in digests:
            value = f"slice {number} is slice {digests[digest]}"
            problems.append(Problem("error", name, "no two slices of a case are the same image", value))
        else:
            digests[digest] = number
    if len(blank) == len(image) or (blank and not blank_slices):
        problems.append(Problem("error", name, "an image is not blank", f"slices {blank[:10]}"))
    if len(blank) == len(image):
        return []
    blank_ones, copies = blank_channels(image, channels), copies_of_flair(image, channels)
    for channel in channels:
        if channel in blank_ones:
            problems.append(Problem("error", name, "a channel is not blank", channel))
        elif channel in copies:
            rule = "a channel is a sequence of its own"
            problems.append(Problem("warning", name, rule, f"{channel} is a copy of flair"))
    return [(number, digest) for digest, number in digests.items()]


def _check_mask(
    name: str,
    image: NDArray[np.generic],
    mask: NDArray[np.uint8],
    numbers: list[int],
    *,
    whole_heads: bool,
    problems: list[Problem],
) -> None:
    """Look where a mask lies: in the head, slice by slice too, and in the brain where there is more than brain."""
    marked = mask > 0
    if not marked.any():
        problems.append(Problem("warning", name, "a mask marks something", "an empty mask"))
        return
    beside = marked & ~_head(image)
    areas = marked.sum(axis=(1, 2))
    slices = np.flatnonzero(beside.sum(axis=(1, 2)) > MAX_OUTSIDE_SLICE * areas)
    outside = float(beside.sum() / marked.sum())
    if outside > MAX_OUTSIDE or len(slices):
        where = f", slices {[numbers[s] for s in slices[:10]]}" if len(slices) else ""
        value = f"{outside:.0%} of its voxels on background{where}"
        problems.append(Problem("error", name, "a mask lies inside the head", value))
    elif whole_heads:
        brain = approximate_brain(np.asarray(image, np.float32), BrainMask().opening_px)
        if (outside := float((marked & ~brain).sum() / marked.sum())) > MAX_OUTSIDE_BRAIN:
            value = f"{outside:.0%} of its voxels outside of a brain that is approximated"
            problems.append(Problem("warning", name, "a mask lies inside the brain", value))


def _head(image: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return where there is a head, (S, H, W): brighter than the background in some channel, holes filled."""
    from scipy import ndimage

    sample = np.asarray(image[::2, ::4, ::4], np.float32)
    limit = np.percentile(sample, 99, axis=(0, 1, 2)).astype(np.float32) * np.float32(0.06)
    bright = np.greater(image, limit).any(axis=-1)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in bright])


def problem_of(error: UserError, file: Path, root: Path) -> Problem:
    """Return a reader's error as a problem of the error's own file, else of `file`; paths are relative to `root`."""
    value = (error.value or "").replace(f"{root}/", "")
    return found(error.file or file, root, error.rule, value or "not so")


def found(file: Path, root: Path, rule: str, value: str) -> Problem:
    """Return an error about `file`, named relative to `root`."""
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) and file != root else file.name
    return Problem("error", name, rule, value)
