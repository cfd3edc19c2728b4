"""The record of a cohort on disk: its cases, their files, and the function that reads a case. Knows no format."""

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from glioflow.data.case import Case, check_spacing_mm, unknown_case
from glioflow.data.formats.file_roles import NO_ROLES, FileRoles
from glioflow.errors import UserError, one_line, option
from glioflow.label_schemes import LabelScheme

# Formats in which several series or files may be one sequence; in the others each channel has a fixed name.
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


# Keys of `cohort.yaml` for persons.
PERSONS = ("each_case_is_a_person", "visits")


def with_persons(cases: Iterable[CaseFiles], roles: FileRoles, root: Path) -> tuple[CaseFiles, ...]:
    """Return the cases with the persons that `cohort.yaml` declares in their names or in their folders below `root`."""
    if roles.each_case_is_a_person:
        return tuple(replace(case, patient=case.id) for case in cases)
    return tuple(replace(case, patient=_declared_person(case, roles.visits, root)) for case in cases)


def folders_of(case: CaseFiles, root: Path) -> str:
    """Return the folders below `root` of a case's first file, `P1_scan1` for `P1/scan1/flair.nii.gz`."""
    folder = case.files[0].parent if case.files else root
    return "_".join(folder.relative_to(root).parts) if root in folder.parents else ""


def find_table(path: Path, cases: Iterable[CaseFiles], names: Sequence[str]) -> tuple[Path | None, tuple[str, ...]]:
    """Return the clinical table in `path`, or the only one in a folder between it and the cases; and a note on several.

    Args:
        path: Folder of the cohort, which may be above that of the data set.
        cases: Its cases.
        names: Names of such tables; in `path`, the first of them is used.
    """
    if own := [path / name for name in names if (path / name).is_file()]:
        return own[0], ()
    folders = {file.parent for case in cases for file in case.files[:1]}
    between = sorted({above for folder in folders for above in (folder, *folder.parents) if path in above.parents})
    found = [table for folder in between for name in names if (table := folder / name).is_file()]
    if len(found) < 2:
        return next(iter(found), None), ()
    shown = ", ".join(str(table.relative_to(path)) for table in found[:4])
    return None, (f"{len(found)} clinical tables, of which none is used: give the folder of one data set: {shown}",)


def _declared_person(case: CaseFiles, visits: Iterable[str], root: Path) -> str:
    for name in (case.id, folders_of(case, root)) if visits else ():
        for start in range(1, len(name)):
            if any(fnmatchcase(name[start:], visit) for visit in visits):
                return name[:start]
    return case.patient


@dataclass(frozen=True)
class Cohort:
    """A folder of cases in one format.

    Attributes:
        format: Key in `detect.FORMATS`.
        path: The folder.
        cases: Sorted by id.
        labels: Name of every label value that a mask may hold besides 0, e.g. `{1: "tumor"}`.
        reader: The format's function that reads the files of one case.
        clinical: The clinical table beside the cases, if there is one.
        roles: Declared roles of files.
        chosen: Series or file that the user named, by channel.
        inputs: Further files that decide how the cases are read.
        layout: The public data set that it was recognized as, in `layouts`; empty if it is none of these.
        regions: Regions of the labels that the cohort itself declares; None if it declares none.
        mask_threshold: Value of a mask above which a pixel is tumor; None if masks have two values.
        notes: Notes about all cases, one sentence each.
        read_anew: Whether earlier versions read other persons or masks from it; their prepared cohorts are not reused.
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
    regions: LabelScheme | None = None
    mask_threshold: int | None = None
    read_anew: bool = False

    def __post_init__(self) -> None:
        """Refuse two cases with the same id, which no reader may return."""
        counts = Counter(case.id for case in self.cases)
        if twice := [f"{name} {count} times" for name, count in counts.items() if count > 1]:
            raise UserError("the id of a case must be unique in its cohort", ", ".join(twice[:8]), file=self.path)

    def with_channels(self, chosen: Mapping[str, str]) -> "Cohort":
        """Return the cohort with the user's series or files for some channels; see `sequences`.

        Raises:
            UserError: If the format does not allow a choice.
        """
        if not chosen:
            return self
        if self.format not in _WITH_CHOICE:
            rule = f"{option('channel')} needs DICOM or NIfTI, where several series or files may be one sequence"
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
        """Read a case of this cohort from its files; raises `UserError` as `read`, or for a spacing of no scan."""
        read = self.reader(case)
        check_spacing_mm(read.spacing_mm, case.files[0] if len(case.files) == 1 else case.files[0].parent)
        return read


def reason(error: Exception) -> str:
    """Return a library's error about a file in one short line."""
    if isinstance(error, LookupError | struct.error):  # their messages hold only an internal index, key or size
        return "cut short or damaged"
    return one_line(error, most=120)
