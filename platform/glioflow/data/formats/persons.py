"""Whose a case is, by its name: persons of public sets, of BIDS, and visits in folders of their own. Knows no file."""

import re

# What comes after it is a visit, or a kind of image.
_PUBLIC = re.compile(
    r"^(?:BraTS-[A-Z]+(?:-RT)?-\d+|UPENN-GBM-\d{5}|UCSF-PDGM-\d+|UCSD-PTGBM-\d+|TCGA-\w\w-\w{4}|RHUH-\d{4}"
    r"|PatientID_\d{4}|sub-[A-Za-z0-9]+)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_BIDS_PERSON = re.compile(r"^sub-[^_]+(?=_|$)")
_VISIT = re.compile(
    r"(?:visit|session|ses|time(?:point)?|tp|week|month|day|follow-?up|fu)[_ -]?\d{1,4}(?:[_-]\d+)?"
    r"|baseline|follow-?up|(?:pre|post)-?op(?:erative)?"
    # Dates; six digits in a row are rather the number of a person.
    r"|(?:19|20)\d\d[-_.](?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?"
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])",
    re.IGNORECASE,
)


def public_person(name: str) -> str | None:
    """Return the person in the name of a case, `BraTS-GLI-00005` of `BraTS-GLI-00005-100`; None in any other name."""
    return match[0] if (match := _PUBLIC.match(name)) else None


def person_in(name: str) -> str | None:
    """Return the person in a name of BIDS, `sub-1` for `sub-1_ses-2`; None in any other."""
    return match[0] if (match := _BIDS_PERSON.match(name)) else None


def is_visit(folder: str) -> bool:
    """Return whether a folder in that of a person is a visit, by its name: `2019-03-01`, `week-12`, `baseline`."""
    return bool(_VISIT.fullmatch(folder))
