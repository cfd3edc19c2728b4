"""The record of a cohort on disk: its cases, their files, and the function that reads one. Knows no format."""

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from glioflow.data.case import Case, unknown_case
from glioflow.data.formats.file_roles import NO_ROLES, FileRoles
from glioflow.errors import UserError, one_line

# Formats in which several series or files may be one sequence; the readers of the others know each channel's place.
_WITH_CHOICE = ("dicom", "nifti")


@dataclass(frozen=True)
class CaseFiles:
    """One case before any pixel is read.

    Attributes:
        id: Name of the case; unique in the cohort.
        patient: The person, the unit of every split.
        files: Every file of the case, images and masks, in the reader's order.
        institution: Where it came from, if its name or a table states it.
    """

    id: str
    patient: str
    files: tuple[Path, ...]
    institution: str | None = None

    def __post_init__(self) -> None:
        """Refuse a case or a person without a name."""
        if not (self.id.strip() and self.patient.strip()):
            shown = self.files[0] if self.files else None
            raise UserError("a case and its patient must have a name", "an empty one", file=shown)


def each_a_person(cases: Iterable[CaseFiles]) -> tuple[CaseFiles, ...]:
    """Return the cases, each as one of a person of its own."""
    return tuple(replace(case, patient=case.id) for case in cases)


@dataclass(frozen=True)
class Cohort:
    """A folder of cases in one format.

    Attributes:
        format: Key in `detect.FORMATS`.
        path: The folder.
        cases: Sorted by id.
        labels: Name of every label value that a mask may hold besides 0, e.g. `{1: "tumor"}`.
        reader: Reads the files of one case; the format's own function.
        clinical: The clinical table beside the cases, if there is one.
        roles: What the cohort says about which file is what.
        chosen: Channels whose series or file a person said, with what they called it.
        inputs: Further files that decide how the cases are read.
        layout: The public data set that it was recognized as, in `layouts`; empty where it is none of these.
        mask_threshold: Above which a value of a mask is tumor; None where masks have two values.
        notes: What a person should know about all cases, one sentence each.
        read_anew: Whether what an earlier version prepared of it has other persons or masks, and stays as it is.
    """

    format: str
    path: Path
    cases: tuple[CaseFiles, ...]
    labels: dict[int, str]
    reader: Callable[[CaseFiles], Case]
    clinical: Path | None = None
    roles: FileRoles = NO_ROLES
    chosen: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Path, ...] = ()
    layout: str = ""
    notes: tuple[str, ...] = ()
    mask_threshold: int | None = None
    read_anew: bool = False

    def __post_init__(self) -> None:
        """Refuse two cases of one id, which no reader may give."""
        counts = Counter(case.id for case in self.cases)
        if twice := [f"{name} {count} times" for name, count in counts.items() if count > 1]:
            raise UserError("the id of a case must be unique in its cohort", ", ".join(twice[:8]), file=self.path)

    def with_channels(self, chosen: Mapping[str, str]) -> "Cohort":
        """Return the cohort with the series or files of some channels said by a person; see `sequences`.

        Raises:
            UserError: If the format leaves no choice.
        """
        if not chosen:
            return self
        if self.format not in _WITH_CHOICE:
            rule = "--channel needs DICOM or NIfTI, where several series or files may be one sequence"
            raise UserError(rule, f"the format {self.format}")
        reader: Callable[..., Case] = self.reader
        return replace(self, reader=partial(reader, chosen=dict(chosen)), chosen=tuple(sorted(chosen.items())))

    def case(self, case_id: str) -> CaseFiles:
        """Return the entry of `case_id`; raises `UserError` with the nearest id, or some that exist."""
        for case in self.cases:
            if case.id == case_id:
                return case
        raise unknown_case(case_id, self.path, (case.id for case in self.cases))

    def read(self, case_id: str) -> Case:
        """Read one case from its files; raises `UserError` as the format's reader."""
        return self.read_files(self.case(case_id))

    def read_files(self, case: CaseFiles) -> Case:
        """Read a case of this cohort from its files; raises `UserError` as `read`."""
        return self.reader(case)


def reason(error: Exception) -> str:
    """Return a library's error about a file in one short line."""
    if isinstance(error, LookupError | struct.error):  # their texts hold an index, a key or a size of our own
        return "cut short or damaged"
    return one_line(error, most=120)
