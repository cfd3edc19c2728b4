"""Clinical tables of several origins, read into one typed table by patient. Independent of models."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glioflow.errors import UserError
from glioflow.survival.clinical_columns import (
    COLUMNS,
    GRADES,
    LOWER_GRADES,
    MISSING,
    clinical_name,
    codes_of,
    typed_value,
)
from glioflow.survival.clinical_csv import patient_column, patient_key, read_rows

if TYPE_CHECKING:
    import pandas as pd

_DECIMAL_COMMA, _THOUSANDS = re.compile(r"[-+]?\d+,\d+"), re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+")
# Columns of data.csv whose numbers are codes there, and may be others or none in other tables.
_CODED = ("gender", "histological_type", "neoplasm_histologic_grade")
_CLUSTERED = re.compile(r"(?:RNASeq|methylation|miRNA|CN|RPPA|oncosign|COC)cluster", re.IGNORECASE)
# BraTS 2020's original csv has "ALIVE (361 days later)" here; copies with only the number have lost this.
_FLATTENED = {("BraTS20_Training_084", 361.0)}


def read_clinical(path: Path, *, outcomes: Path | None = None) -> "pd.DataFrame":
    """Read a clinical csv (comma or semicolon) into the typed table.

    Args:
        path: `data.csv` of LGG, BraTS's `survival_info.csv`, or any csv with a patient column.
        outcomes: A second csv with times and events, e.g. `lgg_outcomes.csv`; it fills gaps of the first.

    Returns:
        One row per patient, the index `patient` sorted: the columns of `COLUMNS` that the files hold, then all others
        unchanged (as numbers if every value is one). Missing values are NaN or None, never a word.

    Raises:
        UserError: If there is no patient column, a patient has two rows, a value is outside its range, or the tables
            have no patient in common or differ about one.
    """
    table = _read_one(path)
    if outcomes is not None:
        second = _read_one(outcomes)
        if table.index.intersection(second.index).empty:
            shown = [str(patient) for patient in table.index[:4]]
            rule = f"the table must have at least one patient of {path.name}"
            raise UserError(rule, ", ".join(map(str, second.index[:4])), choices=shown, file=outcomes)
        second = second.reindex(table.index)
        for name in map(str, table.columns.intersection(second.columns)):
            _check_same(name, table[name], second[name], f"{path.name} and {outcomes.name} both have {name}", outcomes)
        table = table.combine_first(second)
    return table[[name for name in COLUMNS if name in table] + [name for name in table if name not in COLUMNS]]


def _read_one(path: Path) -> "pd.DataFrame":
    import pandas as pd

    names, rows = read_rows(path)
    raw = pd.DataFrame(rows, columns=names, dtype=str).loc[:, [bool(name) for name in names]]
    key = patient_column([*raw.columns], path)
    raw.index = pd.Index([patient_key(patient) for patient in raw.pop(key)], name="patient")
    if (empty := int((raw.index == "").sum())) > 0:
        raise UserError(f"every row must name its patient in the column {key}", f"{empty} empty", file=path)
    if raw.index.has_duplicates:
        again = raw.index[raw.index.duplicated()][0]
        raise UserError("a clinical table must have one row for each patient", f"{again} again", file=path)
    _check_points(raw, path)
    table = pd.DataFrame(index=raw.index)
    spelled = {str(name).casefold(): str(name) for name in raw}
    coded = any(map(_CLUSTERED.fullmatch, names)) or all(re.match("TCGA_", patient) for patient in raw.index)
    for name, column in COLUMNS.items():
        known = (source.casefold() for source in (name, *column.sources))
        sources = [spelled[source] for source in dict.fromkeys(known) if source in spelled]
        for source in sources:
            cells = raw.pop(source)
            if source.casefold() == "survival_days":
                cells, table["os_event"] = _split_alive(cells)
            try:
                values = _typed(name, cells, _codes_in(source, cells, is_data_csv=coded))
            except UserError as error:
                raise error.replace(rule=f"in {path.name}, column {source}: {error.rule}") from None
            if source != sources[0]:
                both = f"the columns {sources[0]} and {source} both mean {name}"
                _check_same(name, table[name], values, both, path)
                values = table[name].combine_first(values)
            table[name] = values
    for other in raw:
        table[other] = _as_numbers(raw[other])
    if "institution" not in table:
        institutions = [_institution(patient) for patient in table.index]
        if any(institutions):
            table["institution"] = pd.Series(institutions, index=table.index, dtype=object)
    return table.sort_index()


def _codes_in(source: str, cells: "pd.Series[str]", *, is_data_csv: bool) -> Mapping[str, str]:
    """Return the codes of a column: those of data.csv only in its copies, since 1 is a man in other tables.

    Raises:
        UserError: If a grade may be such a code.
    """
    if is_data_csv or source.casefold() not in _CODED:
        return codes_of(source)
    if clinical_name(source) != "grade":
        return {}
    unclear = cells[cells.str.strip().str.removesuffix(".0").isin([*LOWER_GRADES])]
    if not unclear.empty:
        rule = "1 and 2 may be grades, or LGG's codes of the grades 2 and 3"
        raise UserError(rule, f"{unclear.iloc[0]!r} of {unclear.index[0]}", hint="name a column of grades grade")
    return GRADES


def _typed(name: str, cells: "pd.Series[str]", codes: Mapping[str, str]) -> "pd.Series[float] | pd.Series[str]":
    """Return the cells of a column in its type; raises `UserError` as `typed_value`, or for words beside codes."""
    import pandas as pd

    number = COLUMNS[name].kind == "number"
    values = [typed_value(name, cell, codes=codes) for cell in cells]
    typed = pd.Series(values, index=cells.index, dtype=float if number else object)
    if name == "gender" and 0 < (coded := sum(str(value).isdecimal() for value in values)) < typed.notna().sum():
        rule = "gender must be words or numbers, not both"
        raise UserError(rule, f"{coded} of {typed.notna().sum()} in numbers", hint="write female and male")
    return typed


def _check_same(name: str, first: "pd.Series[Any]", second: "pd.Series[Any]", both: str, path: Path) -> None:
    """Refuse two columns of one meaning that differ; an age may be rounded in one of them.

    Raises:
        UserError: Says what they have in common (`both`), and the first patient in whom they differ.
    """
    known = first.notna() & second.notna()
    differ = (first - second).abs() >= 1 if name == "age_years" else first != second
    if (patients := first.index[known & differ]).size:
        shown = f"{first[patients[0]]} and {second[patients[0]]} of {patients[0]}"
        more = f" and {len(patients) - 1} more" if len(patients) > 1 else ""
        raise UserError(
            f"{both}, and differ", f"{shown}{more}", hint="remove or rename the one that is wrong", file=path
        )


def _check_points(table: "pd.DataFrame", path: Path) -> None:
    """Refuse a number such as 1.234 in a table with decimal commas, where its point may separate thousands.

    Raises:
        UserError: Names the column, the number, and a cell with a comma.
    """
    cells = {str(name): [str(cell).strip() for cell in table[name]] for name in table}
    comma = next((cell for column in cells.values() for cell in column if _DECIMAL_COMMA.fullmatch(cell)), None)
    for name, column in cells.items() if comma is not None else ():
        if (point := next(filter(_THOUSANDS.fullmatch, column), None)) is not None:
            rule = f"in the column {name}, a point may separate thousands: the table has a decimal comma in {comma}"
            hint = "write all numbers with a decimal point and no separator of thousands"
            raise UserError(rule, point, hint=hint, file=path)


def _split_alive(cells: "pd.Series[str]") -> tuple["pd.Series[str]", "pd.Series[float]"]:
    """Separate BraTS's days from its word for a patient who was then alive."""
    alive = cells.str.extract(r"(?i)alive\D*(\d+)", expand=False)
    days = cells.where(alive.isna(), alive)
    flattened = [(patient, _number(day)) in _FLATTENED for patient, day in days.items()]
    return days, (alive.isna() & ~cells.index.isin(cells.index[flattened])).astype(float)


def _number(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None


def _as_numbers(cells: "pd.Series[str]") -> "pd.Series[float] | pd.Series[str]":
    import pandas as pd

    known = cells.where(~cells.str.strip().str.lower().isin(MISSING))
    numbers = pd.to_numeric(known, errors="coerce")
    return numbers.astype(float) if numbers.notna().sum() == known.notna().sum() else known


def _institution(patient: object) -> str | None:
    tcga = re.match(r"TCGA_(\w\w)_", str(patient))
    return tcga.group(1).lower() if tcga else None
