"""Detection of the format of a cohort folder. The only module that knows all formats."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from glioflow.data.case import Case
from glioflow.data.formats import brats, dicom, figshare, lgg, listed, nifti, nnunet, published, slices
from glioflow.data.formats.dicom_files import lacks_preamble
from glioflow.data.formats.file_roles import DECLARED, NO_ROLES, read_roles
from glioflow.data.formats.junk import is_packed
from glioflow.data.formats.links import is_broken
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.tree import first_files, is_whole_disk, too_many, whole_disk
from glioflow.errors import UserError, not_found, option, unknown_name

# Formats of images that are not read, and the format to convert them to.
_CONVERTED_TO = {
    **dict.fromkeys((".bmp", ".gif"), "PNG"),
    **dict.fromkeys((".mgz", ".mgh", ".mnc", ".mhd", ".nhdr", ".hdr", ".npy", ".npz", ".h5", ".hdf5"), "NIfTI"),
}
_SLICE_ALONE = re.compile(r"[\d ()_-]+\.(?:tiff?|png)")
_SLICE_OF_BRATS = re.compile(r"volume_\d+_slice_\d+\.h5")


class Format(Protocol):
    """A cohort format: a module with these three functions."""

    def detect(self, path: Path, files: Sequence[Path] = ()) -> bool:
        """Return whether a folder looks like this format, by its entries or by the first `files` below it."""

    def open(self, path: Path) -> Cohort:
        """List the cases; raises `UserError` if the folder breaks a rule of the format."""

    def read(self, case: CaseFiles) -> Case:
        """Read one case."""


# Order matters: the first format that recognizes a folder opens it.
FORMATS: Mapping[str, Format] = {
    "listed": listed,
    "lgg": lgg,
    "published": published,
    "brats": brats,
    "nifti": nifti,
    "dicom": dicom,
    "figshare": figshare,
    "slices": slices,
}


def format_named(name: str) -> Format:
    """Return the format `name`; raises `UserError` if there is no such format."""
    if name not in FORMATS:
        raise unknown_name("cohort format", name, FORMATS)
    return FORMATS[name]


def detect_format(path: Path) -> Format:
    """Return the format of a cohort folder, by names alone; raises `UserError` as `open_cohort` does."""
    if path.is_file() and listed.detect(path):
        return listed
    if not path.is_dir():
        if path.is_file() and is_packed(path.name):
            raise UserError("the files must be unpacked", path.name, hint=f"unpack {path.name}", file=path)
        if not path.exists():
            raise not_found(path, hint="give the folder of a cohort")
        raise UserError(f"{path} is not a folder", path, hint="give the folder of a cohort")
    if is_whole_disk(path):
        raise whole_disk(path)
    if not any(path.iterdir()):
        raise UserError(f"the folder {path} is empty", path, hint="give a folder with at least one case")
    files, last = first_files(path)
    # Its names and labels are only used for NIfTI (including BraTS), lists and known data sets.
    roles = read_roles(path) if (path / DECLARED).is_file() else NO_ROLES
    if not listed.detect(path) and (roles.has_patterns or (roles.labels and not published.detect(path, files))):
        if not nifti.detect(path, files):
            raise UserError(f"a folder whose {DECLARED} names images or masks must hold NIfTI files", "none", file=path)
        return nifti
    if nnunet.has_pictures(path):  # which are numbered like slices of the LGG set
        return nifti
    for candidate in FORMATS.values():
        if candidate.detect(path, files):
            return candidate
    if last is not None:
        raise too_many(path, last)
    if (unusable := why_unusable(files)) is not None:
        raise unusable.replace(file=path)
    hint = "give a folder of NIfTI, DICOM, BraTS or LGG files, or a list of files (see docs/own-data.md)"
    raise UserError(f"{path} holds no files of a known cohort format", path, hint=hint)


def why_unusable(files: Sequence[Path]) -> UserError | None:
    """Return the error for files none of which is read: packed, stored with loss, or in an unsupported form."""
    for file in files:
        name = file.name.lower()
        if is_packed(name):
            return UserError("the files must be unpacked", file.name, hint=f"unpack {file.name}")
        if _SLICE_OF_BRATS.fullmatch(name):
            rule = "slices of BraTS in HDF5 are not read: they lack names of sequences and patients, and are normalized"
            hint = "download BraTS as NIfTI, with `glioflow data download brats2020 OUT`"
            return UserError(rule, file.name, hint=hint)
        if name.endswith(".mat"):
            rule = "MATLAB files are read only if they are Figshare's slices, such as 1.mat, in version 7.3"
            hint = "save them as NIfTI, and list them in a csv with the patient of each"
            return UserError(rule, file.name, hint=hint)
        if (wanted := _CONVERTED_TO.get(Path(name).suffix)) is not None:
            hint = f"convert the files to {wanted}, without loss"
            return UserError(f"GlioFlow does not read {Path(name).suffix} files", file.name, hint=hint)
        if name.endswith((".jpg", ".jpeg", ".jfif", ".webp")):
            hint = "export the images as TIFF, PNG, NIfTI or DICOM: JPEG changes intensities"
            return UserError("images must be stored without loss", file.name, hint=hint)
        if lacks_preamble(file):
            hint = "rewrite the files, such as with `dcmconv IN OUT` of DCMTK"
            return UserError("DICOM files must have a preamble and DICM", file.name, hint=hint)
    if (slice := next((file.name for file in files if _SLICE_ALONE.fullmatch(file.name.lower())), None)) is not None:
        rule = "slices must be named after their case, as <case>_<n>.png: these have lost their patients"
        hint = "name them, or get the set with its patients: without them, no split is by patient"
        return UserError(rule, slice, hint=hint)
    if (broken := next((file for file in files if is_broken(file)), None)) is not None:
        hint = "mount or restore what it leads to"
        return UserError(f"{broken.name} is a link to nothing", os.readlink(broken), hint=hint)
    return None


# Formats that can skip incomplete cases, and formats that can be opened without their masks.
_SKIPPING: Mapping[str, Callable[..., Cohort]] = {
    "brats": brats.open,
    "published": published.open,
    "nifti": nifti.open,
    "dicom": dicom.open,
    "listed": listed.open,
}
_WITHOUT_MASKS: Mapping[str, Callable[..., Cohort]] = {**_SKIPPING, "figshare": figshare.open}


def open_cohort(path: Path, *, format: str | None = None, skip_incomplete: bool = False, masks: bool = True) -> Cohort:
    """List the cases of a cohort folder.

    Args:
        path: The folder; for LGG, the one with `data.csv` and a folder per case.
        format: Key in `FORMATS`; None detects it.
        skip_incomplete: Whether to skip cases that lack a sequence; the cohort's notes name them.
        masks: Whether to list masks. Without them, the meaning of their labels need not be known.

    Raises:
        UserError: If the folder is missing, empty, or of no known format, or the format does not support skipping.
    """
    if skip_incomplete:
        known = detect_format(path) if format is None else format_named(format)
        name = _name_of(known)
        if name not in _SKIPPING:
            needed = "a format with a file or series for each sequence, such as NIfTI or DICOM"
            raise UserError(f"{option('skip_incomplete')} needs {needed}", f"the format {name}")
        return _SKIPPING[name](path, skip_incomplete=True)
    is_named = format is not None and path.is_dir() and any(path.iterdir())
    asked = format_named(str(format)) if is_named else detect_format(path)
    if masks:
        return asked.open(path)
    if (without := _WITHOUT_MASKS.get(_name_of(asked))) is not None:
        return without(path, masks=False)
    cohort = asked.open(path)
    images = {case.id: tuple(cohort.roles.only("image", case.files)) for case in cohort.cases}
    return replace(cohort, cases=tuple(replace(case, files=images[case.id] or case.files) for case in cohort.cases))


def _name_of(format: Format) -> str:
    return next(name for name, each in FORMATS.items() if each == format)
