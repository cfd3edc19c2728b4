"""Remarks on a whole cohort: its layout, cases that share a patient, and files that were left out."""

from collections.abc import Sequence
from pathlib import Path

from glioflow.data.formats.file_roles import DECLARED
from glioflow.data.formats.record import Cohort
from glioflow.data.formats.tree import find_beside
from glioflow.quantities import count

# Names shown in one remark.
SHOWN = 8


# Formats in which the name of a case may identify its person, and what to do if it does not.
_HOW_TO_SEPARATE = dict.fromkeys(("lgg", "nifti", "dicom"), f"write `each_case_is_a_person: true` into {DECLARED}")


_HOW_TO_SEPARATE["listed"] = "name the patient of each case in the list"


def _recognized(cohort: Cohort) -> list[str]:
    return [f"recognized as {cohort.layout}"] if cohort.layout else []


def _of_one_person(cohort: Cohort) -> list[str]:
    """Report which cases belong to one person if names may have decided it, and how to declare otherwise."""
    cases: dict[str, list[str]] = {}
    for case in cohort.cases if cohort.format in _HOW_TO_SEPARATE else ():
        cases.setdefault(case.patient, []).append(case.id)
    several = {patient: ids for patient, ids in cases.items() if len(ids) > 1}
    if not several:
        return []
    shown = "; ".join(f"{patient} ({', '.join(ids[:SHOWN])})" for patient, ids in list(several.items())[:SHOWN])
    more = f"; and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    return [f"cases of one person: {shown}{more}; if they are not, {_HOW_TO_SEPARATE[cohort.format]}"]


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
    return (*_recognized(cohort), *_of_one_person(cohort), *cohort.notes, *_assumed(notes), *_left_out(path))
