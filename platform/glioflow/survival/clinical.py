"""Clinical tables of several origins, read into one typed table by patient. Independent of models."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from glioflow.errors import UserError, not_found, one_line
from glioflow.text_files import read_text

if TYPE_CHECKING:
    import pandas as pd

_GENDERS = {"1": "female", "2": "male"}
_HISTOLOGIES = {"1": "astrocytoma", "2": "oligoastrocytoma", "3": "oligodendroglioma"}
# Spellings of sexes in the languages of hospitals. Numbers stay: 1 is a man in ISO 5218, and a woman in data.csv.
_SEXES = {
    **dict.fromkeys(
        "f female w woman women girl weiblich frau femme feminin féminin féminine mujer femenino femenina donna femmina"
        " femminile feminino feminina vrouw vrouwelijk kvinna kvinde kvinne nainen kobieta žena nő ж женский женщина"
        " 女 女性 여 여성".split(),
        "female",
    ),
    **dict.fromkeys(
        "m male man men boy männlich maennlich mann homme masculin hombre masculino uomo maschio maschile homem"
        " mannelijk mand mies mężczyzna muž férfi м мужской мужчина 男 男性 남 남성".split(),
        "male",
    ),
    **dict.fromkeys("other o d diverse divers nonbinary non-binary intersex intersexual".split(), "other"),
}
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(?P<separator>[,;\t|])"?[ ,;]*\r?\n', re.IGNORECASE)
_DECIMAL_COMMA, _THOUSANDS = re.compile(r"[-+]?\d+,\d+"), re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+")
_LOWER_GRADES = {"1": "2", "2": "3"}  # codes of data.csv, verified against the same patients' grades in words
_GRADES = {
    word: str(grade) for grade, words in enumerate(("G1 I", "G2 II", "G3 III", "G4 IV"), 1) for word in words.split()
}
# Columns of data.csv whose numbers are codes there, and may be others or none in other tables.
_CODED = ("gender", "histological_type", "neoplasm_histologic_grade")
_CLUSTERED = re.compile(r"(?:RNASeq|methylation|miRNA|CN|RPPA|oncosign|COC)cluster", re.IGNORECASE)
# Spellings of whether an event was observed, by pandas, people and cBioPortal.
_FLAGS = {
    **dict.fromkeys("true yes y dead died deceased event 1:deceased 1:progressed 1:progression".split(), "1"),
    **dict.fromkeys("false no n alive living censored 0:living 0:alive 0:censored".split(), "0"),
}

ShapeFeatures = Mapping[str, Mapping[str, float | None]]
NOBODY: Mapping[str, str] = MappingProxyType({})
PATIENT_COLUMNS = ("Patient", "BraTS20ID", "BraTS21ID", "participant_id", "id")
MISSING = {"", "na", "n/a", "nan", "none", "null", "[not available]", "[discrepancy]", "[unknown]"}
MISSING |= {"unknown", "not available", "not reported", "[not evaluated]", "[not applicable]"}
# BraTS 2020's original csv has "ALIVE (361 days later)" here; copies with only the number have lost this.
_FLATTENED = {("BraTS20_Training_084", 361.0)}


@dataclass(frozen=True)
class Column:
    """A column of the typed table.

    Attributes:
        kind: Numbers are checked against the range, categories are lower-case words.
        low: Smallest plausible value.
        high: Largest plausible value.
        sources: Its names in files (and in requests), in any case, each with the codes of that source.
    """

    kind: Literal["number", "category"]
    low: float = 0.0
    high: float = 1.0
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


COLUMNS: dict[str, Column] = {
    "age_years": Column("number", 0, 120, {"age_at_initial_pathologic": {}, "Age": {}}),
    "gender": Column("category", sources={"gender": _GENDERS, "sex": {}}),
    "grade": Column("number", 1, 4, {"neoplasm_histologic_grade": _GRADES | _LOWER_GRADES, "grade": _GRADES}),
    "histology": Column("category", sources={"histological_type": _HISTOLOGIES, "histology": {}}),
    "resection": Column("category", sources={"Extent_of_Resection": {}}),
    "institution": Column("category"),
    "death01": Column("number", 0, 1, {"death01": {}}),
    "os_days": Column("number", 0, 36525, {"OS_days": {}, "Survival_days": {}}),
    "os_event": Column("number", 0, 1, {"OS_event": _FLAGS}),
    "pfi_days": Column("number", 0, 36525, {"PFI_days": {}}),
    "pfi_event": Column("number", 0, 1, {"PFI_event": _FLAGS}),
}
# The typed column of each name in files, and the name's codes, by the name without regard to case.
_SOURCES = {
    source.casefold(): (typed, column.sources.get(source, {}))
    for typed, column in COLUMNS.items()
    for source in dict.fromkeys((typed, *column.sources))
}
TARGETS = ("death01", "os_days", "os_event", "pfi_days", "pfi_event")
_WHOLE = ("grade", "death01", "os_event", "pfi_event")


def patient_key(case_id: str) -> str:
    """Return the patient of a case id: `TCGA_CS_4941` for `TCGA-CS-4941` and `TCGA_CS_4941_19960909`, else the id."""
    tcga = re.fullmatch(r"(TCGA)[_-](\w\w)[_-](\w{4})([_-]\d{8})?", case_id.strip())
    return "_".join(tcga.groups()[:3]) if tcga else case_id.strip()


def typed_value(name: str, value: object, *, codes: Mapping[str, str] | None = None) -> float | str | None:
    """Return one clinical value in its column's type; None if it is missing.

    Args:
        name: Key in `COLUMNS`.
        value: Value in the file or the request.
        codes: Meaning of this source's codes.

    Raises:
        UserError: If a value of a numeric column is not a number or is outside the column's range, or a sex is none.
    """
    column = COLUMNS[name]
    text = "" if value is None else str(value).strip()
    if column.kind == "category" and name == "resection" and text.upper() == "NA":
        return "na"  # BraTS's "not applicable", which is a category, not a missing value
    if text.lower() in MISSING:
        return None
    if name in TARGETS and name in _WHOLE:
        text = _FLAGS.get(text.lower(), text)
    text = (codes or {}).get(text.removesuffix(".0").upper(), text)
    if name == "gender":
        return _sex(text, value)
    if column.kind == "category":
        return text.lower()
    try:
        number = float(text)
    except ValueError:
        raise UserError(f"{name} must be a number from {column.low:g} to {column.high:g}", repr(value)) from None
    if not column.low <= number <= column.high or (name in _WHOLE and number != int(number)):
        whole = "whole " if name in _WHOLE else ""
        raise UserError(f"{name} must be a {whole}number from {column.low:g} to {column.high:g}", repr(value))
    return number


def _sex(text: str, value: object) -> str:
    """Return `female`, `male` or `other` for any spelling of it, and a number as it is; raises `UserError`."""
    word = text.lower().removesuffix(".").removesuffix(".0")
    if word.isdecimal():
        return word
    if word not in _SEXES:
        raise UserError("gender must be a known word", repr(value), choices=["female", "male", "other"])
    return _SEXES[word]


def spelled_as(name: str, level: str) -> str:
    """Return how a category is spelled in tables now: GlioFlow 0.1 left `f` of a column of sexes as it was."""
    return _SEXES.get(level, level) if name == "gender" else level


def clinical_name(name: str) -> str | None:
    """Return the typed column for `name` (its own or a source's, in any case), or None."""
    return _SOURCES.get(name.casefold(), (None, {}))[0]


def column_of(name: str, table: "pd.DataFrame") -> str:
    """Return the column of a typed table that `name` means: the one of this name, or else its typed one."""
    return name if name in table else clinical_name(name) or name


def codes_of(name: str) -> Mapping[str, str]:
    """Return the codes of LGG's tables in the column `name`; empty if it has none."""
    return _SOURCES.get(name.casefold(), ("", {}))[1]


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


def features_of_patients(
    clinical: "pd.DataFrame", features: ShapeFeatures, persons: Mapping[str, str] = NOBODY
) -> "pd.DataFrame":
    """Return the shape features of the patients in a clinical table, which may name them by a case.

    Args:
        clinical: The table of `read_clinical`.
        features: Shape features by case, e.g. of `MaskFeatures.volume`; those of a patient's cases are averaged.
        persons: The patient of each case; a case that is not in it is a separate patient.

    Raises:
        UserError: If no patient is in both, or the table has several rows for one.
    """
    import pandas as pd

    rows: dict[str, str] = {}  # rows of the table, by case
    row_of: dict[str, str] = {}  # by person
    for case in features:
        person = persons.get(case, case)
        keys = [key for name in (case, person) if (key := patient_key(name)) in clinical.index]
        if not keys:
            continue
        rows[case] = keys[0]
        if row_of.setdefault(patient_key(person), keys[0]) != keys[0]:
            both = f"{row_of[patient_key(person)]} and {keys[0]} for {person}"
            raise UserError("a clinical table must have one row for each patient", both)
    if not rows:
        shown = [str(patient) for patient in clinical.index[:4]]
        rule = "features and clinical table must share at least one patient"
        raise UserError(rule, list(features)[:4], choices=shown)
    shapes = pd.DataFrame.from_dict({case: dict(features[case]) for case in rows}, orient="index").astype(float)
    return shapes.groupby(pd.Index([rows[case] for case in shapes.index], name="patient")).mean()


def join_features(
    clinical: "pd.DataFrame", features: ShapeFeatures, persons: Mapping[str, str] = NOBODY
) -> "pd.DataFrame":
    """Return the clinical rows of the patients that have features, with their features as further columns.

    A column of the table that is named like a feature is not that feature: it gets the ending `_table`.

    Arguments and errors are those of `features_of_patients`.
    """
    shapes = features_of_patients(clinical, features, persons)
    return clinical.merge(shapes, how="inner", left_index=True, right_index=True, suffixes=("_table", ""))


def _read_one(path: Path) -> "pd.DataFrame":
    import pandas as pd

    names, rows = read_rows(path)
    raw = pd.DataFrame(rows, columns=names, dtype=str).loc[:, [bool(name) for name in names]]
    key = _patient_column([*raw.columns], path)
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
    unclear = cells[cells.str.strip().str.removesuffix(".0").isin([*_LOWER_GRADES])]
    if not unclear.empty:
        rule = "1 and 2 may be grades, or LGG's codes of the grades 2 and 3"
        raise UserError(rule, f"{unclear.iloc[0]!r} of {unclear.index[0]}", hint="name a column of grades grade")
    return _GRADES


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


def patients_of(path: Path) -> list[str]:
    """Return the patient of each row of a clinical csv, by `patient_key`, without reading its values.

    Raises:
        UserError: If it is not a text file, has no column of patients, or has a column twice.
    """
    names, rows = read_rows(path)
    column = names.index(_patient_column(names, path))
    return [patient_key(row[column]) for row in rows]


def _patient_column(columns: Sequence[str], path: Path) -> str:
    spelled = {name.casefold(): name for name in columns}
    key = next((spelled[name.casefold()] for name in PATIENT_COLUMNS if name.casefold() in spelled), None)
    if key is None:
        rule = "a clinical table must have a column of patients, such as Patient"
        named = f"columns {', '.join(map(str, columns))[:120]}" if any(columns) else "no columns"
        raise UserError(rule, named, PATIENT_COLUMNS, file=path)
    return key


def separator_of(header: str) -> str:
    """Return the column separator of a table, comma, semicolon or tab, by its first line."""
    return max(",;\t", key=header.count)


def without_separator_line(text: str) -> tuple[str, str | None]:
    """Return a table's text without the first line by which Excel knows the separator (`sep=;`), and the separator."""
    match = _SEPARATOR_LINE.match(text)
    return (text[match.end() :], match["separator"]) if match else (text, None)


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
