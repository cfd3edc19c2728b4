"""Checks of one case, file by file, independent of the other cases."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from glioflow.data.case import Case
from glioflow.data.checks.channel_checks import blank_channels, copies_of_flair
from glioflow.data.formats import lgg, lgg_pixels
from glioflow.data.formats.nnunet import is_picture
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.volume_files import read_volume
from glioflow.data.formats.volume_names import is_volume
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.errors import UserError
from glioflow.quantities import count

# Real masks extend a little beyond the filled head if a tumor touches the skull, and the brain is approximated. None of
# 65 LGG patients has 2 % of the mask outside the head, 30 % in a single slice, or 15 % outside this brain.
MAX_OUTSIDE = 0.1
MAX_OUTSIDE_SLICE = 0.5
MAX_OUTSIDE_BRAIN = 0.3


@dataclass(frozen=True)
class Problem:
    """A problem that a check has found.

    Attributes:
        severity: `error` if results would be wrong, else `warning`.
        file: The file, or the folder of the case, relative to the source.
        rule: The rule that is broken, or what is wrong.
        value: The value that breaks the rule.
    """

    severity: Literal["error", "warning"]
    file: str
    rule: str
    value: str

    @classmethod
    def about(cls, path: Path, root: Path, rule: str, value: str = "") -> "Problem":
        """Return an error about `path`, which is named relative to `root`."""
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) and path != root else path.name
        return cls("error", name, rule, value)

    @classmethod
    def of(cls, error: UserError, path: Path, root: Path) -> "Problem":
        """Return a reader's error as a problem of the file that it names, or else of `path`, with what to do."""
        rule = f"{error.rule}; {error.hint}" if error.hint else error.rule
        return cls.about(error.file or path, root, rule, (error.value or "").replace(f"{root}/", ""))


@dataclass(frozen=True)
class CaseReport:
    """The result of checking one case.

    Attributes:
        slices: Number of slices that could be read.
        positive_slices: Number of these slices with tumor in their mask.
        labeled: Whether there is a mask; None if nothing could be read.
        problems: Problems in the order of reading.
        digests: Slice number and digest of every slice that is not blank.
        labels: The labels of its mask.
        channels: Names of its channels; none if nothing could be read.
        notes: What its reader assumed.
    """

    slices: int
    positive_slices: int
    labeled: bool | None
    problems: tuple[Problem, ...]
    digests: tuple[tuple[int, bytes], ...]
    labels: tuple[int, ...] = ()
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_case(cohort: Cohort, case: CaseFiles) -> CaseReport:
    """Read one case file by file, and check what can be read."""
    problems: list[Problem] = []
    if cohort.format == "lgg":
        image, mask, numbers = _read_slices(cohort, case, problems)
        channels: tuple[str, ...] = lgg.CHANNELS
        notes: tuple[str, ...] = ()
        missing: tuple[str, ...] = ()
    else:
        read = _read_case(cohort, case, problems)
        if read is None:
            return CaseReport(0, 0, None, tuple(problems), ())
        image, mask, numbers, channels = read.image, read.mask, list(read.slice_numbers), read.channels
        notes, missing = read.warnings, read.missing
    name = _name_of(case, cohort.path)
    digests = []
    if len(image):
        blank_slices = cohort.format != "lgg"
        digests = _check_image(name, image, numbers, channels, missing, blank_slices=blank_slices, problems=problems)
        if mask is not None:
            _check_mask(name, image, mask, numbers, whole_heads=cohort.format in ("lgg", "dicom"), problems=problems)
    positive = 0 if mask is None else int((mask > 0).any(axis=(1, 2)).sum())
    labeled = mask is not None if len(image) else None
    labels = () if mask is None else tuple(int(value) for value in np.unique(mask) if value)
    return CaseReport(len(image), positive, labeled, tuple(problems), tuple(digests), labels, channels, notes)


def _name_of(case: CaseFiles, root: Path) -> str:
    """Return the folder of a case, relative to its cohort, or its id if it has no folder of its own."""
    folder = case.files[0].parent
    inside = folder.relative_to(root) if folder.is_relative_to(root) else Path()
    return inside.as_posix() if any(part in case.id or case.id in part for part in inside.parts) else case.id


def _read_slices(
    cohort: Cohort, case: CaseFiles, problems: list[Problem]
) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None, list[int]]:
    """Read the slices of an LGG case one by one; report and skip unreadable ones."""
    root = cohort.path
    images, masks = _pair_slices(case.files, root, problems)
    if wrong := [file for file in case.files if not file.name.startswith(f"{case.id}_")]:
        rule = "a slice must be named after its folder"
        problems.append(Problem.about(wrong[0], root, rule, f"{count(len(wrong), 'file')} with another name"))
    numbers = sorted(images.keys() | masks.keys())
    if gaps := lgg.missing_numbers(numbers, 1):
        rule = "slice numbers must run from 1 without a gap"
        problems.append(Problem.about(case.files[0].parent, root, rule, f"{gaps[:10]} missing"))
    planes: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    for number in numbers:
        if number not in images:
            problems.append(Problem.about(masks[number], root, lgg.NO_SLICE_OF_MASK, f"number {number}"))
            continue
        if masks and number not in masks:
            problems.append(Problem.about(images[number], root, lgg.NO_MASK_OF_SLICE, f"number {number}"))
        try:
            plane = lgg_pixels.read_slice(images[number])
            if planes and plane.shape != planes[0].shape:
                rule = "all slices of a case must have the same size"
                raise UserError(rule, f"{plane.shape[:2]}, not {planes[0].shape[:2]}")
        except UserError as error:
            problems.append(Problem.of(error, images[number], root))
            continue
        label = np.zeros(plane.shape[:2], np.uint8)
        if number in masks:
            try:
                label = lgg_pixels.read_mask(masks[number], plane.shape[:2], cohort.mask_threshold)
            except UserError as error:
                problems.append(Problem.of(error, masks[number], root))
        planes.append(plane)
        labels.append(label)
        kept.append(number)
    if not planes:
        return np.zeros((0, 1, 1, 3), np.uint8), None, []
    return np.stack(planes), np.stack(labels) if masks else None, kept


def _pair_slices(files: Iterable[Path], root: Path, problems: list[Problem]) -> tuple[dict[int, Path], dict[int, Path]]:
    """Pair slices and masks one file at a time; report a number that occurs twice, and continue with the rest."""
    files = list(files)
    if len({file.parent for file in files}) > 1:  # masks in a separate folder, without twins
        return lgg.split_masks(files)
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    for file in files:
        image, mask = lgg.pair_slices([file])
        for group, of_file in ((images, image), (masks, mask)):
            for number in of_file:
                if number in group:
                    rule = f"slice number {number} must belong to one file"
                    problems.append(Problem.about(file, root, rule, f"{group[number].name} too"))
                else:
                    group[number] = file
    return images, masks


def _read_case(cohort: Cohort, case: CaseFiles, problems: list[Problem]) -> Case | None:
    """Read a case of volumes; if that fails, read each of its NIfTI files alone, to report every bad one."""
    try:
        return cohort.read_files(case)
    except UserError as error:
        broken = []
        for file in case.files:
            if is_volume(file.name) or (cohort.format == "nifti" and is_picture(file.name)):
                try:
                    read_volume(file)
                except UserError as problem:
                    broken.append(Problem.of(problem, file, cohort.path))
        problems += broken or [Problem.of(error, case.files[0].parent, cohort.path)]
        return None


def _check_image(
    name: str,
    image: NDArray[np.generic],
    numbers: list[int],
    channels: tuple[str, ...],
    missing: tuple[str, ...],
    *,
    blank_slices: bool,
    problems: list[Problem],
) -> list[tuple[int, bytes]]:
    """Report blank and equal slices, blank channels and copies of FLAIR; return the digests of the slices."""
    digests: dict[bytes, int] = {}
    blank = []
    for number, plane in zip(numbers, image, strict=True):
        if plane.min() == plane.max():
            blank.append(number)
            continue
        digest = hashlib.blake2b(np.ascontiguousarray(plane).tobytes(), digest_size=16).digest()
        if digest in digests:
            value = f"slice {number} equals slice {digests[digest]}"
            problems.append(Problem("error", name, "two slices of a case must not be the same image", value))
        else:
            digests[digest] = number
    if len(blank) == len(image) or (blank and not blank_slices):
        problems.append(Problem("error", name, "an image must not be blank", f"slices {blank[:10]}"))
    if len(blank) == len(image):
        return []
    blank_ones, copies = blank_channels(image, channels), copies_of_flair(image, channels)
    for channel in channels:
        if channel in missing:
            continue
        if channel in blank_ones:
            problems.append(Problem("error", name, "a channel must not be blank", channel))
        elif channel in copies:
            rule = "a channel should be a sequence of its own"
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
    """Report a mask outside the head, also in single slices, or outside the brain if the image shows the whole head."""
    marked = mask > 0
    if not marked.any():
        problems.append(Problem("warning", name, "a mask should mark a tumor", "an empty mask"))
        return
    beside = marked & ~_head(image)
    areas = marked.sum(axis=(1, 2))
    slices = np.flatnonzero(beside.sum(axis=(1, 2)) > MAX_OUTSIDE_SLICE * areas)
    outside = float(beside.sum() / marked.sum())
    if outside > MAX_OUTSIDE or len(slices):
        where = f", slices {[numbers[s] for s in slices[:10]]}" if len(slices) else ""
        value = f"{outside:.0%} of its voxels on background{where}"
        problems.append(Problem("error", name, "a mask must lie inside the head", value))
    elif whole_heads:
        from glioflow.data.preprocessing.brain_shape import approximate_brain

        brain = approximate_brain(np.asarray(image, np.float32), BrainMask().opening_px)
        if (outside := float((marked & ~brain).sum() / marked.sum())) > MAX_OUTSIDE_BRAIN:
            value = f"{outside:.0%} of its voxels outside an approximation of the brain"
            problems.append(Problem("warning", name, "a mask should lie inside the brain", value))


def _head(image: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return the mask of the head, (S, H, W): brighter than the background in any channel, with holes filled."""
    sample = np.asarray(image[::2, ::4, ::4], np.float32)
    limit = np.percentile(sample, 99, axis=(0, 1, 2)).astype(np.float32) * np.float32(0.06)
    bright = np.greater(image, limit).any(axis=-1)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in bright])
