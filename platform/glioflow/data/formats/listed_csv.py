"""Lists of cases as a csv: a row for each case, and columns of paths for its sequences and its mask."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from glioflow.data.formats.file_roles import INCOMPLETE, guess_role
from glioflow.data.formats.listed_entries import PATIENT, Entry, case_of, path_in, person_of_case
from glioflow.data.formats.record import CaseFiles, reason
from glioflow.data.formats.volume_names import is_volume
from glioflow.errors import UserError
from glioflow.survival.clinical_csv import separator_of, without_separator_line
from glioflow.text_files import read_text

_CASE = ("case", "id", "case_id", "caseid")
MASK, _SITE = ("mask", "label", "seg", "segmentation"), ("institution", "site", "center")
_EMPTY = ("", "na", "n/a", "nan", "none", "null")
# What is not the sequence in the name of a column, as in `image_flair` and `t1_path`.
_OF_FILES = "(?:image|img|path|file|scan|volume|nifti)"
_NO_SEQUENCE = re.compile(rf"^{_OF_FILES}[_ -]+|[_ -]+{_OF_FILES}$")


def read_rows(file: Path, errors: str = "strict") -> list[dict[str, str | None]]:
    """Return the rows of a csv, by column; raises `UserError` if it cannot be read."""
    return _read(file, errors)[1]


def _read(file: Path, errors: str = "strict") -> tuple[list[str], list[dict[str | Any, str | None]]]:
    """Return the header of a csv and its rows: of a repeated column the last value, under None what is beyond all."""
    try:
        text, separator = without_separator_line(read_text(file, wide=True, errors=errors))
        header = text.partition("\n")[0]
        separator = separator or ("|" if "|" in header else separator_of(header))
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        return list(reader.fieldnames or ()), list(reader)
    except (OSError, csv.Error) as error:
        raise UserError("the list must be a csv", reason(error), file=file) from error


def _key(name: str) -> str:
    """Return the name of a column in lower case, with underscores: `patient_id` for `Patient ID`."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


def columns_of_paths(rows: Sequence[Mapping[str, str | None]]) -> list[str]:
    """Return the columns of images, spelled as in the header."""
    special = (*_CASE, *PATIENT, *MASK, *_SITE)
    return [
        name
        for name in (rows[0] if rows else {})
        if name and _key(name) not in special and _role(name) == "image" and _holds_paths(rows, name)
    ]


def _column_of_masks(rows: Sequence[Mapping[str, str | None]], file: Path) -> list[str]:
    """Return the columns that may name the mask of a case, in their order of precedence; raises `UserError`."""
    named = {_key(name): name for name in rows[0] if name}
    exact = [named[name] for name in MASK if name in named]
    others = [name for name in rows[0] if name and name not in exact and _role(name) == "mask"]
    guessed = [name for name in others if _holds_paths(rows, name)]
    if len(guessed) > (0 if exact else 1):
        hint = "name one of them mask, and leave out the others"
        raise UserError("a list must have one column of masks", ", ".join((*exact, *guessed)), hint=hint, file=file)
    return exact or guessed


def _role(column: str) -> str:
    """Return the role of the files in a column by its name, as if it were the name of a file."""
    return guess_role(Path(f"{_key(column)}.nii.gz"))


def entries_in(file: Path, *, incomplete: bool = False) -> tuple[tuple[str, ...], list[Entry]]:
    """Return the channels that a csv has a column for, and its cases, with `incomplete` also those without some.

    Raises:
        UserError: If it has no column of paths or several of masks, or names a file that does not exist.
    """
    header, rows = _read(file)
    columns = {name: _key(name) for name in (rows[0] if rows else {}) if name}
    paths = columns_of_paths(rows)
    if not paths:
        rule = "the list must have a column of paths for each sequence, such as flair, and may have patient, case, mask"
        raise UserError(rule, ", ".join(columns) or "no row", file=file)
    masks = _column_of_masks(rows, file)
    used = {*_CASE, *PATIENT, *_SITE, *(_key(name) for name in (*paths, *masks))}
    _check_once((key for name in header if (key := _key(name)) in used), file)
    channels = tuple(_NO_SEQUENCE.sub("", name.strip().lower()) for name in paths)
    _check_once(channels, file)
    with_patients = any((row[name] or "").strip() for row in rows for name in columns if columns[name] in PATIENT)
    entries, is_named = [], False
    for number, row in enumerate(rows, start=2):
        values = {columns[name]: (value or "").strip() for name, value in row.items() if name in columns}
        if any(cell.strip() for cell in row.get(None) or ()):
            raise UserError(f"row {number} must have no more cells than there are columns", len(header), file=file)
        stated = {name: values[columns[name]] for name in (*paths, *masks) if not _is_empty(values[columns[name]])}
        if lacking := [name for name in paths if name not in stated]:
            if not incomplete or len(lacking) == len(paths):
                hint = INCOMPLETE if len(lacking) < len(paths) else "remove the row, or name its files"
                raise UserError(f"row {number} names no file for {' and '.join(lacking)}", file=file, hint=hint)
        images = [path_in(stated[name], file, f"row {number}, column {name}") for name in paths if name in stated]
        mask = next((stated[name] for name in masks if name in stated), None)
        files = [*images, *([path_in(mask, file, f"row {number}, mask")] if mask else [])]
        named = next((values[name] for name in _CASE if values.get(name)), "")
        is_named |= bool(named)
        case = named or case_of(images)
        patient = next((values[name] for name in PATIENT if values.get(name)), "")
        if with_patients and not patient:
            raise UserError(f"row {number} must name its patient, as others do", case, file=file)
        patient = patient or person_of_case(case, images[0])
        site = next((values[name] for name in _SITE if values.get(name)), None)
        own = tuple(channel for channel, name in zip(channels, paths, strict=True) if name in stated)
        entries.append(Entry(CaseFiles(case, patient, tuple(files), site), own, bool(mask)))
    return channels, (entries if is_named else _named_by_patient(entries))


def _check_once(columns: Iterable[str], file: Path) -> None:
    """Refuse two columns of one meaning, of which the last would count; raises `UserError`."""
    if twice := sorted(name for name, times in Counter(columns).items() if name and times > 1):
        raise UserError("a column of the list must appear once", ", ".join(twice), file=file)


def _named_by_patient(entries: Sequence[Entry]) -> list[Entry]:
    """Return cases that the list does not name: after their patients if their files have no different names."""
    ids, patients = {entry.case.id for entry in entries}, {entry.case.patient for entry in entries}
    if len(ids) == len(entries) or len(patients) < len(entries):
        return list(entries)
    return [replace(entry, case=replace(entry.case, id=entry.case.patient)) for entry in entries]


def _holds_paths(rows: Sequence[Mapping[str, str | None]], name: str) -> bool:
    values = [value for row in rows if not _is_empty(value := (row[name] or "").strip())]
    return any(is_volume(value) for value in values)  # another word among them is refused, not ignored


def _is_empty(value: str) -> bool:
    """Return whether a cell is empty, also as pandas and R write it."""
    return value.lower() in _EMPTY
