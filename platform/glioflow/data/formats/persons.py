"""The person of a case, by its name: persons of public sets, of BIDS, and those before a visit. Reads no file."""

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from glioflow.errors import UserError

# The text after it is a visit or a kind of image.
_PUBLIC = re.compile(
    r"^(?:BraTS-[A-Z]+(?:-RT)?-\d+|UPENN-GBM-\d{5}|UCSF-PDGM-\d+|UCSD-PTGBM-\d+|TCGA-\w\w-\w{4}|RHUH-\d{4}"
    r"|PatientID_\d{4}|sub-[A-Za-z0-9]+)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_BIDS_PERSON = re.compile(r"^sub-[^_]+(?=_|$)")
_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", "(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_NAMED_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?)"
)
_TIME = r"(?:[-_.T ]?\d\d[-_.]?\d\d(?:[-_.]?\d\d)?)?"
_DIGITS = re.compile(rf"(?P<day>{_YEAR}\d{{4}}){_TIME}")
# Six digits in a row are more likely the number of a person.
_DATE = re.compile(
    rf"{_YEAR}[-_.]{_MONTH}[-_.]?{_DAY}{_TIME}|{_YEAR}{_MONTH}{_DAY}{_TIME}"
    rf"|(?:{_DAY}[-_.]{_MONTH}|{_MONTH}[-_.]{_DAY})[-_.]{_YEAR}"
    rf"|(?:\d{{1,2}}[-_ ]?)?{_NAMED_MONTH}[-_ ]?(?:\d{{1,2}}[-_ ]?)?{_YEAR}"
    rf"|{_YEAR}[-_ ]?{_NAMED_MONTH}(?:[-_ ]?\d{{1,2}})?",
    re.IGNORECASE,
)
_TREATMENT = "op(?:erati(?:ve|on))?|surg(?:ery|ical)|c?rt|radiotherapy|chemo(?:therapy)?|therapy|treatment"
_UNIT = "(?:days?|wks?|weeks?|mos?|months?|yrs?|years?)"
_VISIT = re.compile(
    r"(?:visit|session|ses|time(?:point)?|tp|week|wk|month|year|yr|day|follow[-_ ]?up|fu)[_ -]?\d{1,4}(?:[_-]\d+)?"
    rf"|(?:(?:follow[-_ ]?up|fu)[_ -]?)?\d{{1,3}}[_ -]?{_UNIT}|(?:baseline|bl|follow[-_ ]?up|fu)[_ -]?\d?"
    rf"|(?:(?:pre|post|intra)[-_ ]?(?:{_TREATMENT})|pre|post|recurrence|relapse|progression)(?:[_ -]?\d{{1,2}})?"
    rf"|{_YEAR}[-_.]{_MONTH}",
    re.IGNORECASE,
)
# Corrections accepted from an endpoint: the key of a person, and a number in place of a date.
_ACCEPTED = re.compile(r"^(?P<person>P[0-9a-f]{16})_\d{8}$")
# Words before the number of a person: eight digits after them are that number, even if they form a date.
_PERSONS = r"mrn|id|pid|pat(?:ient)?s?|subj?(?:ect)?s?|person"
_NUMBERED = re.compile(
    rf"(?:{_PERSONS}|case|study|exam|scan|session|mri?|acc(?:ession)?|record|anon|no|nr|number"
    r"|volume|image|brain|glioma)(?:[_ -]?(?:id|no|nr|number))?",
    re.IGNORECASE,
)
# The end of a name after which eight digits are a person's number, whatever is before it: `site1_MRN`, not `P7_scan`
# or `P7_anon`. An id in a list may have folders, as in `site1/MRN`.
_ENDS_NUMBERED = re.compile(rf".*[_/-](?:{_PERSONS})(?:[_ -]?(?:id|no|nr|number))?", re.IGNORECASE)


def person_of(name: str) -> str:
    """Return the person of a case: by the rules of a public set, or the part before a visit or day, or the name.

    `P7` for `P7_19960909` and `P7_visit2`. Digits that are no day, or follow a word such as `MRN`, are a number.
    """
    if accepted := _ACCEPTED.match(name):
        return accepted["person"]
    return public_person(name) or _before_visit(name) or name


def _before_visit(name: str) -> str | None:
    """Return the part of a name before a visit at its end, if that can be a person's name."""
    for split in (each.start() for each in re.finditer(r"[_-]", name)):
        person, visit = name[:split], name[split + 1 :]
        digits, dated = _DIGITS.fullmatch(visit), _DATE.fullmatch(visit)
        named = re.search(r"\d", person) or (dated and person and not _NUMBERED.fullmatch(person))
        if digits and _ENDS_NUMBERED.fullmatch(person):
            continue
        if named and (_is_day(digits["day"]) if digits else is_visit(visit)):
            return person
    return None


def _is_day(digits: str) -> bool:
    """Return whether eight digits are a plausible day of a scan: MRNs have eight digits, too."""
    try:
        return 1970 <= datetime.strptime(digits, "%Y%m%d").year <= 2100
    except ValueError:
        return False


def public_person(name: str) -> str | None:
    """Return the person in a BraTS name, `BraTS-GLI-00005` for `BraTS-GLI-00005-100`; None for any other name."""
    return match[0] if (match := _PUBLIC.match(name)) else None


def person_in(name: str) -> str | None:
    """Return the person in a BIDS name, `sub-1` for `sub-1_ses-2`; None for any other name."""
    return match[0] if (match := _BIDS_PERSON.match(name)) else None


def check_persons(names: Iterable[str], folder: Path) -> None:
    """Refuse a case with files of several persons of BIDS or of a public set, by their names.

    Raises:
        UserError: Names two of them, and the folder.
    """
    known = (person_in(name) or public_person(name) for name in names)
    refuse_persons((person for person in known if person is not None), folder)


def refuse_persons(found: Iterable[str], folder: Path) -> None:
    """Refuse a case with files of several persons, whatever the case of their letters; raises `UserError`."""
    persons = sorted({person.casefold(): person for person in found}.values())
    if len(persons) > 1:
        rule = f"{folder}: the files of a case must be of one person"
        hint = f"put each person's files into another folder, or give {folder} itself if it is the cohort"
        raise UserError(rule, " and ".join(persons[:2]), hint=hint)


def is_visit(folder: str) -> bool:
    """Return whether a folder in a person's folder is a visit, by its name: `2019-03-01`, `week-12`, `baseline`."""
    return bool(_VISIT.fullmatch(folder) or _DATE.fullmatch(folder))
