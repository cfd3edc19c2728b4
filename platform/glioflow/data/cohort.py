"""What a cohort on disk consists of, by format: which cases, which files. Reads no pixel before a case is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glioflow.data.case import Case
from glioflow.errors import UserError, unknown_name


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
        format: Key in `FORMATS`.
        path: The folder.
        cases: Sorted by id.
        labels: Name of every label value that a mask may hold besides 0, e.g. `{1: "tumor"}`.
        clinical: The clinical table beside the cases, if there is one.
    """

    format: str
    path: Path
    cases: tuple[CaseFiles, ...]
    labels: dict[int, str]
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
        return _format(self.format).read(case)


class Format(Protocol):
    """A cohort format: a module with these three functions."""

    def detect(self, path: Path) -> bool:
        """Say whether the folder looks like this format, from names alone."""

    def open(self, path: Path) -> Cohort:
        """List the cases; raises `UserError` where the folder breaks a rule of the format."""

    def read(self, case: CaseFiles) -> Case:
        """Read one case."""


def reason(error: Exception) -> str:
    """Return what a library said of a file, in one short line."""
    if isinstance(error, LookupError):  # says no more than which place was not there
        return "cut short or damaged"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _lgg() -> Format:
    from glioflow.data import lgg

    return lgg


def _brats() -> Format:
    from glioflow.data import brats

    return brats


def _nifti() -> Format:
    from glioflow.data import nifti

    return nifti


def _dicom() -> Format:
    from glioflow.data import dicom

    return dicom


def _slices() -> Format:
    from glioflow.data import slices

    return slices


# Order matters for detection: the first that recognizes a folder takes it.
FORMATS: dict[str, Callable[[], Format]] = {
    "lgg": _lgg,
    "brats": _brats,
    "nifti": _nifti,
    "dicom": _dicom,
    "slices": _slices,
}


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise unknown_name("cohort format", name, FORMATS)
    return FORMATS[name]()


def open_cohort(path: Path, *, format: str | None = None) -> Cohort:
    """List the cases of a cohort folder.

    Args:
        path: The folder; of LGG the one holding `data.csv` and a folder per case.
        format: Key in `FORMATS`; None looks at the folder.

    Raises:
        UserError: If the folder is missing, empty, or of no known format.
    """
    if not path.is_dir():
        raise UserError("a cohort is a folder", path)
    if not any(path.iterdir()):
        raise UserError("a cohort folder holds at least one case", f"the empty folder {path}")
    if format is not None:
        return _format(format).open(path)
    for reader in FORMATS.values():
        if reader().detect(path):
            return reader().open(path)
    raise UserError(f"no known cohort format in {path}", choices=FORMATS)
