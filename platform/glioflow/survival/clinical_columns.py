"""The columns of clinical tables: their names in files, their types and ranges, and what their codes mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from glioflow.errors import UserError

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
LOWER_GRADES = {"1": "2", "2": "3"}  # codes of data.csv, verified against the same patients' grades in words
# Grades by how they are written in words.
GRADES = {
    word: str(grade) for grade, words in enumerate(("G1 I", "G2 II", "G3 III", "G4 IV"), 1) for word in words.split()
}
# Spellings of whether an event was observed, by pandas, people and cBioPortal.
_FLAGS = {
    **dict.fromkeys("true yes y dead died deceased event 1:deceased 1:progressed 1:progression".split(), "1"),
    **dict.fromkeys("false no n alive living censored 0:living 0:alive 0:censored".split(), "0"),
}
MISSING = {"", "na", "n/a", "nan", "none", "null", "[not available]", "[discrepancy]", "[unknown]"}
MISSING |= {"unknown", "not available", "not reported", "[not evaluated]", "[not applicable]"}


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
    "grade": Column("number", 1, 4, {"neoplasm_histologic_grade": GRADES | LOWER_GRADES, "grade": GRADES}),
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
