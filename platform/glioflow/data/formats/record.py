"""The record of a cohort on disk: which cases, which files, and how one is read. Knows no format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glioflow.data.case import Case
from glioflow.errors import UserError


@dataclass(frozen=True)
class CaseFiles:
    """One case before any pixel is read.

    Attributes:
        id: Name of the case; unique in the cohort.
        patient: The person, the unit of every split.
        files: Every file the case consists of, images and masks, in the reader's order.
        institution: Where it came from, if the name or a table says so.
    """

    id: str
    patient: str
    files: tuple[Path, ...]
    institution: str | None = None


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
    """

    format: str
    path: Path
    cases: tuple[CaseFiles, ...]
    labels: dict[int, str]
    reader: Callable[[CaseFiles], Case]
    clinical: Path | None = None

    def case(self, case_id: str) -> CaseFiles:
        """Return the entry of `case_id`; raises `UserError` naming some of those that exist."""
        for case in self.cases:
            if case.id == case_id:
                return case
        raise UserError(f"no case {case_id!r} in {self.path}", choices=[case.id for case in self.cases[:8]])

    def read(self, case_id: str) -> Case:
        """Read one case from its files; raises `UserError` with file and rule."""
        return self.read_files(self.case(case_id))

    def read_files(self, case: CaseFiles) -> Case:
        """Read a case that is already at hand; raises `UserError` as `read`."""
        return self.reader(case)


def reason(error: Exception) -> str:
    """Return what a library said of a file, in one short line."""
    if isinstance(error, LookupError):  # says no more than which place was not there
        return "cut short or damaged"
    return " ".join(str(error).split())[:120] or type(error).__name__
