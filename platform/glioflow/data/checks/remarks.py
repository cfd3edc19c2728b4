"""Remarks on a whole cohort: its layout, cases that share a patient, and files that were left out."""

import re
from collections.abc import Sequence
from pathlib import Path

from glioflow.data.formats import brats
from glioflow.data.formats.file_roles import DECLARED
from glioflow.data.formats.nifti_names import unlike_owners
from glioflow.data.formats.record import CaseFiles, Cohort, folders_of
from glioflow.data.formats.tree import find_beside
from glioflow.data.formats.volume_names import stem
from glioflow.quantities import count

# Names shown in one remark.
SHOWN = 8


# Ends of names that may number the scans of one person, or persons.
_SCAN = re.compile(
    r"(?P<owner>.*\d.*)(?P<scan>[_-](?:scan|exam(?:ination)?|study|mri?|[mtv])[_ -]?\d{1,3})", re.IGNORECASE
)
# So may bare numbers, unless a site has many of them.
_NUMBERED = re.compile(r"(?P<owner>.*\d.*)(?P<scan>[_-]\d{1,2})")
_MOST_SCANS = 4

# Formats in which the name of a case may identify its person, and what to do if it does not.
_HOW_TO_SEPARATE = dict.fromkeys(
    ("lgg", "nifti", "brats", "dicom"), f"write `each_case_is_a_person: true` into {DECLARED}"
)


_HOW_TO_SEPARATE["listed"] = "name the patient of each case in the list"


def _recognized(cohort: Cohort) -> list[str]:
    return [f"recognized as {cohort.layout}"] if cohort.layout else []


def _with_names_of_their_own(cohort: Cohort) -> Sequence[CaseFiles]:
    """Return the cases whose names may state their persons, by no rule of a public set."""
    if cohort.format == "brats":
        return [case for case in cohort.cases if not brats.is_named(case.id)]
    return cohort.cases if cohort.format in _HOW_TO_SEPARATE else ()


def _of_one_person(cohort: Cohort) -> list[str]:
    """Report which cases belong to one person if names may have decided it, and how to declare otherwise."""
    cases: dict[str, list[str]] = {}
    for case in _with_names_of_their_own(cohort):
        cases.setdefault(case.patient, []).append(case.id)
    several = {patient: ids for patient, ids in cases.items() if len(ids) > 1}
    if not several:
        return []
    shown = "; ".join(f"{patient} ({', '.join(ids[:SHOWN])})" for patient, ids in list(several.items())[:SHOWN])
    more = f"; and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    return [f"cases of one person: {shown}{more}; if they are not, {_HOW_TO_SEPARATE[cohort.format]}"]


def doubtful_persons(cohort: Cohort) -> list[str]:
    """Report where names leave doubt: scans of one person that are several, and cases that may be of several."""
    if cohort.roles.declares_persons:
        return []
    return [*_may_be_one(cohort), *_may_be_several(cohort)]


def _may_be_several(cohort: Cohort) -> list[str]:
    """Report the cases with files whose names begin with different words, which may be persons."""
    if cohort.format != "nifti":
        return []
    found = [
        f"{case.id} ({', '.join(pair)})"
        for case in cohort.cases
        if (pair := unlike_owners(stem(file) for file in cohort.roles.only("image", case.files))) is not None
    ]
    if not found:
        return []
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    how = "put each person's files into another folder"
    return [
        f"cases with images of different names: {'; '.join(found[:SHOWN])}{more}; if they are of two persons, {how}"
    ]


def _may_be_one(cohort: Cohort) -> list[str]:
    """Report which cases belong to different persons although their names may be those of one person's scans."""
    cases: dict[str, list[tuple[str, str]]] = {}
    numbered: dict[str, list[tuple[str, str]]] = {}
    for case in _with_names_of_their_own(cohort):
        # `P1_scan1`, or the case `scan1` in `P1`
        names = [name for name in (case.id, folders_of(case, cohort.path)) if case.patient == case.id]
        for pattern, found in ((_SCAN, cases), (_NUMBERED, numbered)):
            if named := next(filter(None, map(pattern.fullmatch, names)), None):
                found.setdefault(named["owner"], []).append((named[0], named["scan"]))
                break
    if sum(map(len, numbered.values())) <= _MOST_SCANS * len(numbered):  # else they are the persons of a site
        cases |= numbered
    several = [sorted(scans) for scans in cases.values() if len(scans) > 1]
    if not several:
        return []
    shown = "; ".join(", ".join(name for name, _ in scans[:SHOWN]) for scans in several[:SHOWN])
    more = f"; and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    ends = sorted({end for scans in several for _, end in scans})
    declared = f"visits: [{', '.join(map(repr, ends[:SHOWN]))}{', ...' if len(ends) > SHOWN else ''}]"
    how = (
        f"write `{declared}` into {DECLARED}, and otherwise {_HOW_TO_SEPARATE[cohort.format]}"
        if cohort.format != "listed"
        else _HOW_TO_SEPARATE["listed"]
    )
    return [f"cases of different persons: {shown}{more}; if they are scans of one person, {how}"]


def _left_out(path: Path) -> list[str]:
    """Report, once, what is not read: files of other programs, archives, and links to nothing or in a circle."""
    return [
        f"{why}: {', '.join(files[:SHOWN])}{f' and {len(files) - SHOWN} more' if len(files) > SHOWN else ''}"
        for why, files in find_beside(path).items()
        if files
    ]


def _assumed(notes: Sequence[tuple[str, ...]]) -> list[str]:
    """Report what the readers assumed about the first case that has such a note, and how many have one."""
    noted = [each for each in notes if each]
    more = f" ({len(noted)} of {count(len(notes), 'case')} have such a remark)" if len(noted) > 1 else ""
    return [f"{note}{more}" for note in noted[0]] if noted else []


def remarks_on(cohort: Cohort, path: Path, notes: Sequence[tuple[str, ...]] = ()) -> tuple[str, ...]:
    """Return what applies to the cohort in `path`, a sentence each; `notes` are those of each case's reader."""
    persons = (*_of_one_person(cohort), *doubtful_persons(cohort))
    return (*_recognized(cohort), *persons, *cohort.notes, *_assumed(notes), *_left_out(path))
