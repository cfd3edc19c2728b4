"""Cohorts whose files are named in a list: a csv with columns of paths, MONAI's datalist, MONAI Label's datastore.

A csv has a row for each case: `patient`, `case`, a column of paths for each sequence, and `mask`. A datalist is MONAI's
`{"training": [{"image": [...], "label": ...}]}`. The path is the list itself, or a folder with one named in `NAMES`.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from glioflow.data.case import Case
from glioflow.data.formats import brats
from glioflow.data.formats.dataset_json import labels_in, stacked_names
from glioflow.data.formats.file_roles import FileRoles, declared_in, roles_for
from glioflow.data.formats.listed_csv import MASK, columns_of_paths, entries_in, read_rows
from glioflow.data.formats.listed_entries import PATIENT, Entry, case_of, path_in, person_of_case
from glioflow.data.formats.missing import settle_incomplete
from glioflow.data.formats.nifti import assemble, join
from glioflow.data.formats.nifti_names import channel_in
from glioflow.data.formats.record import CaseFiles, Cohort, reason
from glioflow.data.formats.segments import compare_numbers, segments_of_slicer
from glioflow.data.formats.volume_files import read_stack
from glioflow.data.formats.volume_names import is_volume, stem
from glioflow.errors import UserError
from glioflow.label_schemes import SCHEMES
from glioflow.text_files import read_text

NAMES = ("cohort.csv", "datalist.json", "datastore_v2.json")
_DATASTORE = "datastore_v2.json"
_NUMBERED = "channel{}"
_PARTS = ("training", "validation", "testing", "test")


def list_in(path: Path) -> Path | None:
    """Return the list at `path`, or in it under a known name; None if there is none."""
    if path.is_file():
        return path if path.suffix.lower() in (".csv", ".json") else None
    lists = (path / name for name in NAMES if (path / name).is_file())
    # A clinical table may have the same name, in any encoding.
    return next((file for file in lists if file.suffix != ".csv" or columns_of_paths(read_rows(file, "replace"))), None)


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether `path` is or contains a list of cases."""
    return list_in(path) is not None


def open(path: Path, *, skip_incomplete: bool = False, masks: bool = True) -> Cohort:
    """List the cases of a list, with the masks that it names if `masks`.

    A case is complete if it has every column of a csv, or in other lists the sequences that most cases have; with
    `skip_incomplete`, the others are left out.

    Raises:
        UserError: If it cannot be read, names a file that does not exist, or a case or a file twice.
    """
    file = list_in(path)
    if file is None:
        raise UserError("a list of cases must be a csv or a datalist", path, NAMES)
    root = file.parent
    roles = roles_for("listed", root, "scheme", "labels", "resample_to", "skip_incomplete", "fill_missing")
    description: Mapping[str, Any] = {}
    columns: Sequence[str] = ()
    if file.suffix.lower() == ".csv":
        columns, entries = entries_in(file, incomplete=skip_incomplete or roles.skip_incomplete or roles.fill_missing)
    elif file.name == _DATASTORE:
        entries = list(_from_datastore(root))
    else:
        description = _read_json(file)
        entries = list(_from_datalist(file, description))
    if not entries:
        raise UserError("a list must name at least one case", file=file)
    _check_files(entries, file)
    if not masks:
        entries = [_without_mask(entry) for entry in entries]
    if roles.fill_missing:
        _check_named(entries, file)
    labels = _labels(root, roles, description, entries)
    by_id = {entry.case.id: (entry.channels, entry.has_mask, entry.stacked) for entry in entries}
    cases = tuple(sorted((entry.case for entry in entries), key=lambda case: case.id))
    reader: Callable[..., Case] = partial(read, known=by_id, labels=labels, resample_to=roles.resample_to)
    cases, reader, incomplete = settle_incomplete(
        cases, reader, lambda case: by_id[case.id][0], roles=roles, skip_incomplete=skip_incomplete, wanted=columns
    )
    segments = segments_of_slicer(entry.case.files[-1] for entry in entries if entry.has_mask)
    return Cohort(
        "listed",
        root,
        cases,
        labels,
        reader,
        inputs=(file, *declared_in(root)),
        notes=(f"the cases are those that {file.name} lists", *incomplete, *compare_numbers(segments)),
    )


def _check_files(entries: Sequence[Entry], listed_in: Path) -> None:
    """Refuse a list in which two cases have the same image or mask."""
    owners: dict[str, str] = {}
    for case in (entry.case for entry in entries):
        for file in case.files:
            if (owner := owners.setdefault(os.path.normpath(file), case.id)) != case.id:
                value = f"{file.name} for {owner} and {case.id}"
                raise UserError("a file must be listed for one case alone", value, file=listed_in)


def _check_named(entries: Sequence[Entry], listed_in: Path) -> None:
    """Refuse cases with fewer images than others if no name says which sequence is missing; raises `UserError`."""
    numbers = {len(entry.channels) for entry in entries if entry.channels[0] == _NUMBERED.format(0)}
    if len(numbers) > 1:
        rule = "for fill_missing, the names of the images must tell their sequences, such as case_t1.nii.gz"
        hint = "leave such cases out with `skip_incomplete: true`, or list them in a csv with a column a sequence"
        raise UserError(rule, f"{min(numbers)} to {max(numbers)} images a case", hint=hint, file=listed_in)


def _without_mask(entry: Entry) -> Entry:
    images = entry.case.files[:-1] if entry.has_mask else entry.case.files
    return replace(entry, case=replace(entry.case, files=images), has_mask=False)


def read(
    case: CaseFiles,
    *,
    known: Mapping[str, tuple[Sequence[str], bool, bool]] | None = None,
    labels: Collection[int] = (1,),
    resample_to: str | None = None,
) -> Case:
    """Read the images of a case as the channels that the list names, and its mask if it has one; see `nifti.assemble`.

    Raises:
        UserError: If a file is damaged, the grids differ, or the mask holds another label.
    """
    names, has_mask, stacked = (known or {}).get(case.id, ((), False, False))
    masks = case.files[-1:] if has_mask else ()
    images = case.files[: len(case.files) - len(masks)]
    if stacked:
        volumes = read_stack(images[0], names)
        stack = {name: (images[0], volume) for name, volume in zip(names, volumes, strict=True)}
        return join(case, stack, masks, labels, resample_to)
    by_name = dict(zip(names, images, strict=True))
    return assemble(case, by_name, masks, labels, resample_to=resample_to, guessed=names)


def folds_in(file: Path) -> dict[str, int]:
    """Return the fold of each case in a datalist, whose files may be elsewhere; empty if it has none."""
    description = _read_json(file)
    items = description.get("training", [])
    folds = {}
    entries = _from_datalist(file, {**description, **{part: [] for part in _PARTS[1:]}}, locate=_path_named)
    for entry, item in zip(entries, items, strict=True):
        if isinstance(item, dict) and "fold" in item:
            fold = str(item["fold"])
            if not fold.isdecimal() or int(fold) >= len(items):
                raise UserError("the fold of a case must be a number from 0, below that of cases", fold, file=file)
            folds[entry.case.id] = int(fold)
    return folds


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(file))
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError("the list must be valid JSON", reason(error), file=file) from error
    if not isinstance(value, dict) or not all(isinstance(value.get(part, []), list) for part in _PARTS):
        rule = 'a datalist must hold {"training": [{"image": ..., "label": ...}]}'
        raise UserError(rule, type(value).__name__, file=file)
    return value


def _path_named(value: str, file: Path, where: str) -> Path:
    """Return the path that a list names, whether there is such a file or not."""
    return file.parent / value.replace("\\", "/")


def _from_datalist(
    file: Path, description: Mapping[str, Any], *, locate: Callable[[str, Path, str], Path] = path_in
) -> Iterable[Entry]:
    stack = stacked_names(description)
    for part in _PARTS:
        for number, item in enumerate(description.get(part, [])):
            item = item if isinstance(item, dict) else {"image": item}
            where = f"{part}[{number}]"
            named = item.get("image")
            named = [named] if isinstance(named, str) else named
            if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
                raise UserError(f"{where}.image must be a path or a list of paths", type(named).__name__, file=file)
            images = [locate(name, file, f"{where}.image") for name in named]
            mask = _mask_of(item, where, file, locate)
            case = str(item.get("id") or case_of(images))
            patient = next((str(item[key]) for key in PATIENT if item.get(key)), None)
            patient = patient or person_of_case(case, images[0])
            files = CaseFiles(case, patient, (*images, *mask))
            if stack and len(images) == 1 and len(stack) > 1:
                yield Entry(files, tuple(stack), bool(mask), stacked=True)
            else:
                yield Entry(files, _channels(images), bool(mask))


def _mask_of(item: Mapping[str, Any], where: str, file: Path, locate: Callable[[str, Path, str], Path]) -> list[Path]:
    """Return the mask of a case: a path, or a list of one, under `label` or another name of masks; none without it."""
    for key in ("label", *MASK):
        named = [value] if isinstance(value := item.get(key), str) else value
        if not named or not isinstance(named, list):  # `label` may be a class
            continue
        if len(named) > 1 or not isinstance(named[0], str):
            hint = "join the masks of a case into one file"
            raise UserError(
                f"{where}.{key} must be the path of one mask", f"a list of {len(named)}", hint=hint, file=file
            )
        return [locate(named[0], file, f"{where}.{key}")]
    return []


def _from_datastore(root: Path) -> Iterable[Entry]:
    """List the images of MONAI Label's datastore, with the masks in `labels/final`, not those of a model."""
    masks = {stem(file): file for file in sorted((root / "labels" / "final").glob("*"), reverse=True)}
    for image in sorted(file for file in root.iterdir() if is_volume(file.name)):
        mask = masks.get(stem(image))
        files = (image, *([mask] if mask else []))
        yield Entry(
            CaseFiles(stem(image), person_of_case(stem(image), image), files), _channels([image]), mask is not None
        )


def _channels(images: Sequence[Path]) -> tuple[str, ...]:
    """Return the channel in the name of each image, or numbers if one has none or two have the same."""
    names = [channel_in(stem(image)) for image in images]
    if all(names) and len(set(names)) == len(names):
        return tuple(str(name) for name in names)
    return ("image",) if len(images) == 1 else tuple(_NUMBERED.format(number) for number in range(len(images)))


def _labels(root: Path, roles: FileRoles, description: Mapping[str, Any], entries: Sequence[Entry]) -> dict[int, str]:
    if roles.scheme:
        return dict(SCHEMES[roles.scheme].labels)
    if roles.labels or description.get("labels"):
        return roles.labels or labels_in(description)
    labeled = [entry.case.id for entry in entries if entry.has_mask]
    if labeled and all(brats.is_named(case) for case in labeled):
        return brats.labels_of(labeled, root)
    return {1: "tumor"}
