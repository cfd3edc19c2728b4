"""Reading of one study in any form: a case folder, single slices, NIfTI or DICOM. All input is untrusted."""

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from glioflow.data.case import MAX_FILES, Case
from glioflow.data.channel_choice import NONE_CHOSEN
from glioflow.data.formats import brats, dicom, figshare, lgg, listed, nifti, nnunet, published, slices
from glioflow.data.formats.detect import format_named, open_cohort, why_unusable
from glioflow.data.formats.dicom_files import is_dicom
from glioflow.data.formats.file_roles import NO_ROLES, declared_in, is_mask_name
from glioflow.data.formats.junk import is_junk
from glioflow.data.formats.nifti_names import check_one_owner, check_one_person, owner_of
from glioflow.data.formats.png import is_png
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.volume_names import is_volume, stem, volume_files, without_copies
from glioflow.data.sequences import is_channel_name
from glioflow.errors import TooLarge, UserError, not_found

_MOST_NAMED = 5
# Series number that a DICOM converter puts before a description: `3_AX_T1` and `4_AX_FLAIR` are one person. Numbers of
# persons have leading zeros, or precede several sequences, or only a sequence, as in `1_t1` and `2_flair`.
_NUMBER_OF_SERIES = re.compile(r"[1-9]\d{0,3}")


def open_study(paths: Sequence[Path], *, masks: bool = True) -> Cohort:
    """List the files of a single study as a cohort of one case.

    Args:
        paths: One folder, or files of one kind: `.tif` or `.png` slices, NIfTI modalities, DICOM.
        masks: Whether to include masks.

    Raises:
        UserError: If a path does not exist, the kinds are mixed, or there is more than one study.
    """
    if not paths:
        raise UserError("a study must have at least one file")
    if missing := [path for path in paths if not path.exists()]:
        raise not_found(missing[0], hint="give the files or the folder of a study")
    if len(paths) > 1 or not paths[0].is_dir():
        cohort = _open_files(sorted(choose_files(paths)[0]), masks=masks)
    elif not masks and (inside := _files_in(paths[0])):
        cohort = _open_as_files(paths[0], inside)
    else:
        cohort = _open_folder(paths[0], masks=masks)
    if len(cohort.cases) != 1:
        hint = "give the files or the folder of one case"
        raise UserError("a study must be one case", f"{len(cohort.cases)} cases", file=paths[0], hint=hint)
    case = cohort.cases[0]
    if len(case.files) > MAX_FILES:
        raise TooLarge(f"a study must have at most {MAX_FILES} files", len(case.files))
    # The name appears in responses and file names, so only safe characters are kept.
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", case.id).strip("._")[:100] or "study"
    return replace(cohort, cases=(replace(case, id=name),)) if name != case.id else cohort


def read_study(paths: Sequence[Path], *, channels: Mapping[str, str] = NONE_CHOSEN, masks: bool = True) -> Case:
    """Read a single study, with the series that the user chose for `channels`; see `open_study`.

    Skips files that do not belong to it, with a warning that names them, and masks that were not requested, with one
    that counts them.
    """
    cohort = open_study(paths, masks=masks).with_channels(channels)
    files = cohort.cases[0]
    case = cohort.read_files(files)
    given = _files_in(paths[0]) if len(paths) == 1 and paths[0].is_dir() and not masks else list(paths)
    notes = []
    if left_out := _left_out(given or paths, files):
        names = sorted({file.name for file in left_out})
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        notes.append(f"files that are not images of the study were left out: {', '.join(names[:_MOST_NAMED])}{more}")
    if count := sum(is_mask_name(path.name) for path in given) if not masks else 0:
        shown = "1 mask among the files was" if count == 1 else f"{count} masks among the files were"
        notes.append(f"{shown} not looked at")
    return replace(case, warnings=(*case.warnings, *notes)) if notes else case


def _left_out(paths: Sequence[Path], case: CaseFiles) -> list[Path]:
    """Return the files that are not part of a study: other kinds, and volumes outside its layout; no hidden ones."""
    given, others = choose_files(paths) if len(paths) > 1 else (list(volume_files(paths[0])), [])
    taken = {*case.files}
    unused = [file for file in given if is_volume(file.name) and not is_mask_name(file.name) and file not in taken]
    return [file for file in (*others, *unused) if not file.name.startswith(".")]


def _files_in(folder: Path) -> list[Path]:
    """Return the files of a folder that is one study to be read as its files are: without folders in it, or roles.

    Empty for other folders, such as cases of BIDS, stacks of nnU-Net, and those with a `cohort.yaml`.
    """
    if volumes := _one_a_sequence(folder):
        return volumes
    inside = sorted(folder.iterdir())
    nested = any(each.is_dir() and not is_junk(each.name) for each in inside)
    if nested or declared_in(folder) or nnunet.has_pictures(folder):
        return []
    return [each for each in inside if each.is_file()]


def _one_a_sequence(folder: Path) -> list[Path]:
    """Return the volumes of a study with a folder for each sequence, as in `T1/p1_T1.nii.gz`; empty for others."""
    inside = [each for each in sorted(folder.iterdir()) if not is_junk(each.name)]
    folders = [each for each in inside if each.is_dir()]
    if not all(is_channel_name(each.name) for each in folders) or any(is_volume(each.name) for each in inside):
        return []
    volumes = [[file for file in each.iterdir() if is_volume(file.name) and file.is_file()] for each in folders]
    one_each = len(folders) > 1 and all(len(files) == 1 for files in volumes)
    return [file for (file,) in volumes] if one_each else []


def _open_as_files(folder: Path, files: Sequence[Path]) -> Cohort:
    """List a folder as its files would be, under the name that it has as a folder, if it is one case there, too."""
    cohort = _open_files(sorted(choose_files(files)[0]), masks=False)
    with contextlib.suppress(UserError):  # a cohort asks for more than a study
        known = _open_folder(folder, masks=False).cases
        if len(known) == len(cohort.cases) == 1:
            as_folder, case = known[0], cohort.cases[0]
            own = replace(case, id=as_folder.id, patient=as_folder.patient, institution=as_folder.institution)
            return replace(cohort, cases=(own,))
    return cohort


def choose_files(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the study's images and masks, and the skipped files: notes, viewers, previews.

    Raises:
        UserError: If there are images of several kinds, or none.
    """
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kinds.setdefault(_kind_of(path), []).append(path)
    left_out = kinds.pop("", [])
    if "dicom" in kinds or ("nifti" in kinds and all(is_png(path) for path in kinds.get("slices", ()))):
        left_out += kinds.pop("slices", [])  # screenshots or pictures from quality checks
    if len(kinds) == 1:
        return next(iter(kinds.values())), left_out
    if not kinds and (unusable := why_unusable(left_out)) is not None:
        raise unusable
    choices = ["one folder", ".tif or .png slices", ".nii or .nii.gz modalities", "DICOM files", "a .zip of them"]
    shown = ", ".join(path.name for path in list(paths)[:4])
    raise UserError("the files of a study must be of one known kind", shown, choices)


def _kind_of(path: Path) -> str:
    if slices.is_slice(path.name):
        return "slices"
    if is_volume(path.name):
        return "" if path.name.startswith(".") else "nifti"
    if figshare.is_slice(path):
        return "matlab"
    return "dicom" if path.is_file() and is_dicom(path) else ""


def open_source(path: Path, *, masks: bool = True) -> Cohort:
    """List the cohort or the single study at `path`; raises `UserError` as `open_cohort` and `open_study` do."""
    if not path.exists():
        raise not_found(path, hint="give the path of a cohort or a study")
    if path.is_dir():
        volumes = [] if masks else _one_a_sequence(path)
        return _open_as_files(path, volumes) if volumes else _open_folder(path, masks=masks)
    return open_cohort(path, masks=masks) if listed.detect(path) else open_study([path], masks=masks)


def _open_folder(path: Path, *, masks: bool) -> Cohort:
    if nnunet.has_pictures(path):
        return open_cohort(path, masks=masks)
    slices_and_masks = lgg.pair_slices(path.iterdir())
    of_tiff = any(not is_png(file) for group in slices_and_masks for file in group.values())
    if of_tiff and len(lgg.flat_cases(path)) < 2:
        case = lgg.open_case(path)
        images = tuple(file for file in case.files if masks or not is_mask_name(file.name))
        return _one("lgg", path, replace(case, files=images or case.files), lgg.LABELS)
    return open_cohort(path, masks=masks)


def _open_files(files: Sequence[Path], *, masks: bool) -> Cohort:
    if not masks:
        images = [file for file in files if not is_mask_name(file.name)]
        if not images and not any(map(is_dicom, files)):
            raise only_masks(files)
        files = images or files
    if all(slices.is_slice(file.name) for file in files):
        return _one("slices", files[0].parent, slices.open_files(files), lgg.LABELS)
    if all(is_volume(file.name) for file in files):
        check_one_owner(file for file in files if not is_mask_name(file.name))
        if known := published.open_files(files, masks=masks):
            return Cohort("published", files[0].parent, known, {}, published.read)
        if brats.is_case(files):
            cases = brats.open_files(files)
            return Cohort("brats", files[0].parent, cases, brats.labels_in(cases, files[0].parent), brats.read)
        files = without_copies(files)
        name = _name_of_volumes([stem(file) for file in files])
        study = _one("nifti", files[0].parent, CaseFiles(name, name, tuple(files)), {1: "tumor"})
        if any(file.parent != study.path for file in files):
            return study
        roles = NO_ROLES.below(study.path)
        return replace(study, roles=roles, reader=partial(nifti.read, roles=roles))
    if all(figshare.is_slice(file) for file in files):
        return figshare.open_files(files, files[0].parent, masks=masks)
    case = dicom.open_files(files)
    return _one("dicom", files[0].parent, case, dicom.labels_of([case]))


def only_masks(files: Sequence[Path]) -> UserError:
    """Return the error for files that are masks by their names, without an image."""
    hint = "give the images, too, or rename them: tumor, seg and mask are names of masks"
    return UserError("a study must have an image", ", ".join(file.name for file in files[:4]), hint=hint)


def _name_of_volumes(names: Sequence[str]) -> str:
    """Return the case of several NIfTI files: the part before their sequences, or the part they share.

    Raises:
        UserError: If they belong to several cases.
    """
    if len(names) == 1:
        return names[0]
    owners = [owner_of(name) for name in names]
    if _are_series(names, owners):
        owners = [""] * len(owners)
    known = sorted({owner for owner in owners if owner}, key=len)
    if known and any(not re.match(rf"{re.escape(known[0])}(?![A-Za-z0-9])", owner) for owner in known):
        rule = "the files of a study must be of one person"
        hint = "send one study at a time, or let the names of its files begin alike"
        raise UserError(rule, f"{len(known)} case names", hint=hint)
    check_one_person(names)
    if None not in owners:
        return known[0] if known else "study"
    columns = zip(*(re.split("([_-])", name) for name in names), strict=False)
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return "".join(column[0] for column in shared).strip("_-") or "study"


def _are_series(names: Sequence[str], owners: Sequence[str | None]) -> bool:
    """Return whether the parts before the sequences are series numbers, each before a scanner's description."""
    if len(set(owners)) < len(owners) or not all(owner and _NUMBER_OF_SERIES.fullmatch(owner) for owner in owners):
        return False
    words = [name.removeprefix(owner or "").strip("_-") for name, owner in zip(names, owners, strict=True)]
    return not all(is_channel_name(each) for each in words)


def _one(format: str, path: Path, case: CaseFiles, labels: dict[int, str]) -> Cohort:
    return Cohort(format, path, (case,), dict(labels), format_named(format).read)
