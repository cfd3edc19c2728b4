"""The layout of the LGG cohort: a folder of TIFF slices per case, masks beside them, one `data.csv`.

A case is `TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_<n>.tif` with `..._<n>_mask.tif`; the patient is `TCGA_CS_4941`.

Copies of it have PNG in place of TIFF, the slices of all cases in one folder or in `images` and `masks`, and masks of
three channels, of 0 and 65535, or blurred by JPEG. The archive holds its cases twice; one copy is read.
"""

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from glioflow.data.case import Case
from glioflow.data.formats.file_roles import declared_in, roles_for
from glioflow.data.formats.junk import is_junk
from glioflow.data.formats.lgg_pixels import read_mask, read_slice
from glioflow.data.formats.links import is_followed, unreadable
from glioflow.data.formats.paired_folders import is_part
from glioflow.data.formats.persons import person_of
from glioflow.data.formats.png import is_png
from glioflow.data.formats.record import PERSONS, CaseFiles, Cohort, with_persons
from glioflow.errors import UserError

CHANNELS = ("pre", "flair", "post")
LABELS = {1: "tumor"}
LAYOUT = "the LGG set of Buda et al."
# Problems of a case folder, for the reader and the checks.
NO_SLICES = "a case folder must hold slices named <case>_<n>.tif"
NO_SLICE_OF_MASK = "a mask has no slice of its number"
NO_MASK_OF_SLICE = "a slice has no mask, and others have one"

_SLICE = re.compile(r"^(?P<case>.+)_(?P<number>-?\d{1,7})(?P<mask>_mask)?\.(?:tiff?|png)$", re.IGNORECASE)
# Folders of masks and of images that are side by side in copies.
_IMAGE_FOLDERS, _MASK_FOLDERS = ("images", "image", "imgs"), ("masks", "mask")
_WRAPPERS = ("kaggle_3m", "lgg-mri-segmentation")
_TCGA = re.compile(r"^(?P<patient>TCGA_(?P<institution>[A-Z0-9]{2})_[A-Z0-9]{4})_\d{8}$")


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether `path`, or `kaggle_3m` in it, holds folders of numbered slices, or slices of several cases."""
    roots = parts_of(root_of(path))
    return any(map(_is_case, itertools.chain.from_iterable(map(case_folders, roots)))) or (
        sum(len(flat_cases(root)) for root in roots) > 1
    )


def open(path: Path) -> Cohort:
    """List the cases in `path`, or in `kaggle_3m` in it.

    Raises:
        UserError: If there is no case, a case folder is empty, a slice has no mask while others have, a mask has no
            slice, or two files have one slice number.
    """
    root = root_of(path)
    parts = parts_of(root)
    cases = [case for part in parts for case in _cases_in(part, flat_from=2 if parts == [root] else 1)]
    if not cases:
        raise UserError("an LGG cohort must hold one folder for each case", "no folder", file=path)
    return cohort_of(root, sorted(cases, key=lambda case: case.id))


def _cases_in(root: Path, *, flat_from: int) -> list[CaseFiles]:
    """Return the cases of one folder: slices of so many cases or more, or else a case in each folder."""
    if len(flat := flat_cases(root)) >= flat_from:
        return [_case(name, *flat[name], root) for name in flat]
    return [open_case(folder) for folder in case_folders(root)]


def parts_of(root: Path) -> list[Path]:
    """Return the folders `train`, `val` and `test` in `root` if there are no others; or else `root`."""
    folders = case_folders(root)
    return folders if folders and all(is_part(folder.name) for folder in folders) else [root]


def cohort_of(root: Path, cases: Iterable[CaseFiles]) -> Cohort:
    """Return the cohort of these cases, with its table and the mask settings of `cohort.yaml`."""
    cases = tuple(cases)
    roles = roles_for("lgg", root, "mask_threshold", *PERSONS)
    table, threshold = root / "data.csv", roles.mask_threshold
    reader = read if threshold is None else partial(read, threshold=threshold)
    notes = (
        () if threshold is None else (f"masks are cut at {threshold}, as cohort.yaml says: their edges are not exact",)
    )
    return Cohort(
        "lgg",
        root,
        with_persons(cases, roles, root),
        dict(LABELS),
        reader,
        table if table.is_file() else None,
        inputs=tuple(declared_in(root)) if threshold is not None or roles.declares_persons else (),
        layout=LAYOUT if all(_TCGA.match(case.id) for case in cases) else "",
        notes=notes,
        mask_threshold=threshold,
        roles=roles.of_persons,
    )


def case_folders(root: Path) -> list[Path]:
    """Return the folders in `root`, sorted, without leftovers of other programs and links that lead in a circle."""
    with os.scandir(root) as entries:  # one call for all entries, not one for each
        folders = [root / entry.name for entry in entries if _is_folder(entry) and not is_junk(entry.name)]
    return [folder for folder in sorted(folders) if is_followed(folder, root)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link that leads to itself is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def open_case(folder: Path) -> CaseFiles:
    """List the files of one case folder: the slices by number, each followed by its mask if there are masks.

    Raises:
        UserError: As `open`.
    """
    return _case(folder.name, *pair_slices(folder.iterdir()), folder)


def _case(name: str, images: Mapping[int, Path], masks: Mapping[int, Path], folder: Path) -> CaseFiles:
    if not images:
        raise UserError(NO_SLICES, file=folder)
    for number in masks.keys() - images.keys():
        raise UserError(NO_SLICE_OF_MASK, file=masks[number])
    for number in sorted(images.keys() - masks.keys()) if masks else ():
        raise UserError(NO_MASK_OF_SLICE, file=images[number])
    files = tuple(file for number in sorted(images) for file in (images[number], masks.get(number)) if file is not None)
    patient, institution = patient_of(name)
    return CaseFiles(name, patient, files, institution)


def flat_cases(root: Path) -> dict[str, tuple[dict[int, Path], dict[int, Path]]]:
    """Return the slices and masks by case of one folder, or of `images` and `masks` in it; empty without any.

    Pictures next to folders of cases, and PNG files without any mask, are not slices: other programs made them.
    """
    below = {folder.name.lower(): folder for folder in case_folders(root)}
    if any(_is_case(folder) for name, folder in below.items() if name not in (*_IMAGE_FOLDERS, *_MASK_FOLDERS)):
        return {}
    images = next((below[name] for name in _IMAGE_FOLDERS if name in below), root)
    masks = next((below[name] for name in _MASK_FOLDERS if name in below), None) if images != root else None
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for folder in (images, *([masks] if masks else [])):
        for file in _of_one_kind(folder.iterdir()):
            match = _SLICE.match(file.name)
            assert match is not None
            is_mask = folder == masks or match["mask"]
            groups.setdefault(match["case"], ([], []))[1 if is_mask else 0].append(file)
    if not any(of_masks or not is_png(files[0]) for files, of_masks in groups.values()):
        return {}
    return {
        case: (_by_number(files), _by_number(of_masks)) for case, (files, of_masks) in sorted(groups.items()) if files
    }


def read(case: CaseFiles, *, threshold: int | None = None) -> Case:
    """Read the slices of one case, (S, H, W, 3) uint8, and its mask, 0 and 1, or None where it has none.

    Args:
        case: The files of the case, a slice followed by its mask.
        threshold: Value of a mask above which a pixel is tumor; None accepts only masks of two values.

    Raises:
        UserError: If a file cannot be read, is not 8-bit RGB, differs in size from the others, or a mask is not binary.
    """
    images, masks = split_masks(case.files)
    numbers = sorted(images)
    slices = [read_slice(images[number]) for number in numbers]
    for number, pixels in zip(numbers, slices, strict=True):
        if pixels.shape != slices[0].shape:
            rule = "all slices of a case must have the same size"
            raise UserError(rule, f"{pixels.shape[:2]}, not {slices[0].shape[:2]}", file=images[number])
    mask = None
    if masks:
        mask = np.stack([read_mask(masks[number], slices[0].shape[:2], threshold) for number in numbers])
    missing = missing_numbers(numbers, numbers[0])
    warnings = (f"slice numbers {missing} are missing between {numbers[0]} and {numbers[-1]}",) if missing else ()
    return Case(
        id=case.id,
        patient=case.patient,
        image=np.stack(slices),
        mask=mask,
        channels=CHANNELS,
        slice_numbers=tuple(numbers),
        institution=case.institution,
        warnings=warnings,
        files=tuple(images[number] for number in numbers),
    )


def missing_numbers(numbers: Sequence[int], first: int, *, most: int = 100) -> list[int]:
    """Return the first of the numbers that are missing between `first` and the last of the ascending `numbers`."""
    known = set(numbers)
    return list(itertools.islice((number for number in range(first, numbers[-1]) if number not in known), most))


def pair_slices(files: Iterable[Path]) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return the slices and the masks among the files, by number; files with other names are skipped.

    Raises:
        UserError: If two files have the same number, as `_1.tif` and `_01.tif`.
    """
    named = _of_one_kind(files)
    return _by_number(file for file in named if not _is_mask(file)), _by_number(
        file for file in named if _is_mask(file)
    )


def split_masks(files: Sequence[Path]) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return the slices and the masks of a case by number; in `masks` beside `images`, both may have the same name."""
    if len({file.parent for file in files}) < 2:
        return pair_slices(files)
    is_mask = [file.parent.name.lower() in _MASK_FOLDERS or _is_mask(file) for file in files]
    pairs = list(zip(files, is_mask, strict=True))
    return _by_number(file for file, mask in pairs if not mask), _by_number(file for file, mask in pairs if mask)


def _is_mask(file: Path) -> bool:
    match = _SLICE.match(file.name)
    return bool(match and match["mask"])


def _of_one_kind(files: Iterable[Path]) -> list[Path]:
    """Return the files that are named like slices or masks: TIFF, or PNG if there is no TIFF."""
    named = sorted(file for file in files if _SLICE.match(file.name) and not is_junk(file.name))
    return [file for file in named if not is_png(file)] or named


def _by_number(files: Iterable[Path]) -> dict[int, Path]:
    group: dict[int, Path] = {}
    for file in files:
        number = int(_SLICE.match(file.name)["number"])  # type: ignore[index]
        if number in group:
            raise UserError(f"slice number {number} must belong to one file", f"{group[number].name} too", file=file)
        group[number] = file
    return group


def slice_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are named like slices or masks, by number, masks after their slices."""
    named = [(match, file) for file in _of_one_kind(folder.iterdir()) if (match := _SLICE.match(file.name))]
    return [file for _, file in sorted(named, key=lambda pair: (int(pair[0]["number"]), pair[1].name))]


def patient_of(case_id: str) -> tuple[str, str | None]:
    """Return patient and institution of a case, by its name; see `person_of`."""
    match = _TCGA.match(case_id)
    return (match["patient"], match["institution"]) if match else (person_of(case_id), None)


def root_of(path: Path) -> Path:
    """Return the folder that holds the cases: `path`, or `kaggle_3m` in it, even if nested."""
    while nested := next((each for each in (path / name for name in _WRAPPERS) if each.is_dir()), None):
        if path.resolve().is_relative_to(nested.resolve()):  # a link to itself
            break
        path = nested
    return path


def _is_case(folder: Path) -> bool:
    """Return whether a folder holds slices: any TIFF, or only PNG files named after the folder."""
    try:
        names = [file.name for file in folder.iterdir() if not is_junk(file.name)]
    except OSError as error:
        raise unreadable(error) from None
    slices = [name for name in names if _SLICE.match(name)]
    if any(not name.lower().endswith(".png") for name in slices):
        return True
    return bool(slices) and all(name.startswith(f"{folder.name}_") and name.lower().endswith(".png") for name in names)
