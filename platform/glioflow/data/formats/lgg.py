"""The LGG cohort on disk: a folder of TIFF slices per case, masks beside them, one `data.csv`. Knows no other format.

A case is `TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_<n>.tif` with `..._<n>_mask.tif`; the patient is `TCGA_CS_4941`.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.formats import tiff
from glioflow.data.formats.record import CaseFiles, Cohort, accepted_person
from glioflow.errors import UserError

CHANNELS = ("pre", "flair", "post")
LABELS = {1: "tumor"}
# What is wrong with a case folder, in the words of reader and checks.
NO_SLICES = "a case folder must hold slices named <case>_<n>.tif"
NO_SLICE_OF_MASK = "a mask has no slice of its number"
NO_MASK_OF_SLICE = "a slice has no mask, and others have one"

_SLICE = re.compile(r"^(?P<case>.+)_(?P<number>-?\d{1,6})(?P<mask>_mask)?\.tiff?$", re.IGNORECASE)
_TCGA = re.compile(r"^(?P<patient>TCGA_(?P<institution>[A-Z0-9]{2})_[A-Z0-9]{4})_\d{8}$")
_DATED = re.compile(r"_(?P<date>\d{8})$")


def detect(path: Path) -> bool:
    """Return whether `path`, or the `kaggle_3m` in it, holds a folder of numbered TIFF slices."""
    return any(_is_case(folder) for folder in root_of(path).iterdir() if folder.is_dir())


def open(path: Path) -> Cohort:
    """List the cases in `path`, or in the `kaggle_3m` in it.

    Raises:
        UserError: If there is no case, a case folder is empty, a slice has no mask while others have, a mask has no
            slice, or two files have one slice number.
    """
    root = root_of(path)
    folders = case_folders(root)
    if not folders:
        raise UserError("an LGG cohort must hold one folder for each case", "no folder", file=path)
    table = root / "data.csv"
    cases = tuple(sorted((open_case(folder) for folder in folders), key=lambda case: case.id))
    return Cohort("lgg", root, cases, dict(LABELS), read, table if table.is_file() else None)


def case_folders(root: Path) -> list[Path]:
    """Return the folders in `root`, hidden ones left out, sorted."""
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def open_case(folder: Path) -> CaseFiles:
    """List the files of one case folder: the slices by number, each followed by its mask if there are masks.

    Raises:
        UserError: As `open`.
    """
    images, masks = pair_slices(folder.iterdir())
    if not images:
        raise UserError(NO_SLICES, file=folder)
    for number in masks.keys() - images.keys():
        raise UserError(NO_SLICE_OF_MASK, file=masks[number])
    for number in sorted(images.keys() - masks.keys()) if masks else ():
        raise UserError(NO_MASK_OF_SLICE, file=images[number])
    files = tuple(file for number in sorted(images) for file in (images[number], masks.get(number)) if file is not None)
    patient, institution = patient_of(folder.name)
    return CaseFiles(folder.name, patient, files, institution)


def read(case: CaseFiles) -> Case:
    """Read the slices of one case, (S, H, W, 3) uint8, and its mask, 0 and 1, or None where it has none.

    Raises:
        UserError: If a file cannot be read, is not 8-bit RGB, differs in size from the others, or a mask is not binary.
    """
    images, masks = pair_slices(case.files)
    numbers = sorted(images)
    slices = [read_slice(images[number]) for number in numbers]
    for number, pixels in zip(numbers, slices, strict=True):
        if pixels.shape != slices[0].shape:
            rule = "all slices of a case must have the same size"
            raise UserError(rule, f"{pixels.shape[:2]}, not {slices[0].shape[:2]}", file=images[number])
    mask = None
    if masks:
        mask = np.stack([read_mask(masks[number], slices[0].shape[:2]) for number in numbers])
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
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
        files=case.files,
    )


def pair_slices(files: Iterable[Path]) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return the slices and the masks among the files, by number; files of other names are left out.

    Raises:
        UserError: If two files have the same number, as `_1.tif` and `_01.tif`.
    """
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    for file in sorted(files):
        match = _SLICE.match(file.name)
        if not match or file.name.startswith("."):
            continue
        group = masks if match["mask"] else images
        number = int(match["number"])
        if number in group:
            raise UserError(f"slice number {number} must belong to one file", f"{group[number].name} too", file=file)
        group[number] = file
    return images, masks


def slice_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are named like slices or masks, by number, masks after their slices."""
    named = [(match, file) for file in folder.iterdir() if (match := _SLICE.match(file.name)) and file.name[0] != "."]
    return [file for _, file in sorted(named, key=lambda pair: (int(pair[0]["number"]), pair[1].name))]


def patient_of(case_id: str) -> tuple[str, str | None]:
    """Return patient and institution of a case, by its name; without a TCGA id, the patient is the name less a date."""
    match = _TCGA.match(case_id)
    if match:
        return match["patient"], match["institution"]
    if accepted := accepted_person(case_id):
        return accepted, None
    dated = _DATED.search(case_id)
    return (case_id[: dated.start()] if dated and _is_date(dated["date"]) else "") or case_id, None


def _is_date(digits: str) -> bool:
    """Return whether eight digits are a day on which someone can have been scanned: MRNs have eight digits, too."""
    try:
        return 1970 <= datetime.strptime(digits, "%Y%m%d").year <= 2100
    except ValueError:
        return False


def read_slice(path: Path) -> NDArray[np.uint8]:
    """Read one slice, (H, W, 3) uint8; raises `UserError` if the file is unreadable or another kind of image."""
    pixels = read_tiff(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != len(CHANNELS):
        rule = "a slice must be an 8-bit image with three channels"
        raise UserError(rule, f"shape {pixels.shape} and type {pixels.dtype}", file=path)
    return pixels.astype(np.uint8, copy=False)


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read one mask as (H, W) of 0 and 1; raises `UserError` if it is not binary or not of `shape`."""
    return to_binary(read_tiff(path), shape, path)


def to_binary(pixels: NDArray[np.generic], shape: tuple[int, ...], path: Path) -> NDArray[np.uint8]:
    """Return a mask of 0 and 255 (or 1), read from `path`, as 0 and 1; raises `UserError` as `read_mask`."""
    if pixels.shape != shape:
        raise UserError("a mask must have the size of its slice", f"{pixels.shape}, not {shape}", file=path)
    foreground = pixels != 0
    if foreground.any():
        values = pixels[foreground]
        if values.min() != values.max() or values[0] not in (1, 255):
            raise UserError("a mask must hold only 0 and 255, or 0 and 1", np.unique(pixels)[:5].tolist(), file=path)
    return np.asarray(foreground, np.uint8)


def read_tiff(path: Path) -> NDArray[np.generic]:
    """Read the only image of a TIFF, completely or not at all.

    Raises:
        UserError: As `tiff.read_pages`, or if the file holds several images.
    """
    return tiff.read_pages(path, most=1)[0]


def root_of(path: Path) -> Path:
    """Return the folder that holds the cases: `path`, or the `kaggle_3m` in it."""
    nested = path / "kaggle_3m"
    return nested if nested.is_dir() else path


def _is_case(folder: Path) -> bool:
    return any(_SLICE.match(file.name) for file in folder.iterdir())
