"""The rows of a clinical CSV file as text, and the patient of each. Values are typed in `clinical_table`."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from glioflow.errors import UserError, not_found, one_line
from glioflow.text_files import read_text

_SEPARATOR_LINE = re.compile(r'\s*"?sep=(?P<separator>[,;\t|])"?[ ,;]*\r?\n', re.IGNORECASE)
PATIENT_COLUMNS = ("Patient", "BraTS20ID", "BraTS21ID", "participant_id", "id")


def patient_key(case_id: str) -> str:
    """Return the patient of a case id: `TCGA_CS_4941` for `TCGA-CS-4941` and `TCGA_CS_4941_19960909`, else the id."""
    tcga = re.fullmatch(r"(TCGA)[_-](\w\w)[_-](\w{4})([_-]\d{8})?", case_id.strip())
    return "_".join(tcga.groups()[:3]) if tcga else case_id.strip()


def patients_of(path: Path) -> list[str]:
    """Return the patient of each row of a clinical csv, by `patient_key`, without reading its values.

    Raises:
        UserError: If it is not a text file, has no column of patients, or has a column twice.
    """
    names, rows = read_rows(path)
    column = names.index(patient_column(names, path))
    return [patient_key(row[column]) for row in rows]


def patient_column(columns: Sequence[str], path: Path) -> str:
    """Return the column of patients among `columns`, as it is spelled there; raises `UserError` if there is none."""
    spelled = {name.casefold(): name for name in columns}
    key = next((spelled[name.casefold()] for name in PATIENT_COLUMNS if name.casefold() in spelled), None)
    if key is None:
        rule = "a clinical table must have a column of patients, such as Patient"
        named = f"columns {', '.join(map(str, columns))[:120]}" if any(columns) else "no columns"
        raise UserError(rule, named, PATIENT_COLUMNS, file=path)
    return key


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the columns of a csv and its rows, each with a cell for every column.

    Raises:
        UserError: If it is no csv or not in UTF-8, has a column twice, or a row has more cells than there are columns.
    """
    hint = "give the path of a CSV file"
    if not path.exists():
        raise not_found(path, hint=hint, what="the clinical table")
    if not path.is_file():
        raise UserError(f"the clinical table {path} is not a file", path, hint=hint)
    try:
        text, separator = without_separator_line(read_text(path, wide=True))
        header = next((line for line in text.splitlines() if line.strip()), "")
        separator = separator or separator_of(header)
        *cells, last = csv.reader(io.StringIO(f"{text}\n\n", newline=""), delimiter=separator)
        if last:  # the blank line at the end is inside a cell, like all rows before it
            raise csv.Error(f"a quote that never ends in the row of {last[0][:40]}")
        names, *rows = [row for row in cells if len(row) > 1 or "".join(row).strip()] or [[]]
    except (OSError, csv.Error) as error:
        raise UserError("a clinical table must be a readable csv", one_line(error, most=120), file=path) from None
    _check_header(names, path)
    for row in rows:
        if any(cell.strip() for cell in row[len(names) :]):
            rule = "a row of the table must have no more cells than it has columns"
            raise UserError(rule, f"{len(row)} for {len(names)} in the row of {row[0][:40]}", file=path)
    return [name.strip() for name in names], [[*row[: len(names)], *[""] * (len(names) - len(row))] for row in rows]


def _check_header(columns: Sequence[str], path: Path) -> None:
    """Refuse a csv in which two columns have the same name in any case, since it is ambiguous which one counts."""
    names: dict[str, list[str]] = {}
    for name in (column.strip() for column in columns):
        names.setdefault(name.casefold(), []).append(name)
    if twice := [", ".join(dict.fromkeys(same)) for name, same in sorted(names.items()) if name and len(same) > 1]:
        hint = "remove or rename one; upper and lower case are equal"
        raise UserError("a column of the table must appear once", "; ".join(twice), hint=hint, file=path)


def separator_of(header: str) -> str:
    """Return the column separator of a table, comma, semicolon or tab, by its first line."""
    return max(",;\t", key=header.count)


def without_separator_line(text: str) -> tuple[str, str | None]:
    """Return a table's text without the first line by which Excel knows the separator (`sep=;`), and the separator."""
    match = _SEPARATOR_LINE.match(text)
    return (text[match.end() :], match["separator"]) if match else (text, None)
