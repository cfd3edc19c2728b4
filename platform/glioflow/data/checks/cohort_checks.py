"""Checks of a cohort or study: the problems of its cases, and those between cases."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

from glioflow.data.channel_choice import NONE_CHOSEN
from glioflow.data.checks.case_checks import CaseReport, Problem, check_case
from glioflow.data.checks.comparisons import (
    find_other_channels,
    find_shared_images,
    find_unlabeled,
    find_unused_labels,
)
from glioflow.data.checks.remarks import SHOWN, remarks_on
from glioflow.data.formats import lgg, listed, nnunet
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.links import walk
from glioflow.data.formats.png import is_png
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.study import open_source
from glioflow.errors import TooLarge, UserError
from glioflow.survival.clinical_csv import patient_key, patients_of
from glioflow.survival.clinical_table import read_clinical

# Formats in which a layout or a list, not a file's name, identifies the masks.
_KNOWING = ("published", "listed")


class ProblemRecord(TypedDict):
    """A `Problem` in JSON."""

    severity: str
    file: str
    rule: str
    value: str


class FilesRecord(TypedDict, total=False):
    """Which file of one case is what, by name, as an example for all."""

    case: str
    images: list[str]
    masks: list[str]
    brain_masks: list[str]


class CheckRecord(TypedDict):
    """A `CheckReport` in JSON."""

    format: str
    patients: int
    slices: int
    positive_slices: int
    files: FilesRecord
    problems: list[ProblemRecord]
    layout: str
    remarks: list[str]


@dataclass(frozen=True)
class CheckReport:
    """The contents of a cohort and the problems with it.

    Attributes:
        format: Key in `FORMATS`.
        patients: Number of persons.
        slices: Number of slices that could be read.
        positive_slices: Number of slices with tumor in their mask.
        problems: Problems of the cohort and its cases.
        files: Roles of the files of the first case.
        layout: The public data set that it was recognized as; empty if it is none.
        remarks: Remarks that apply to all cases.
    """

    format: str
    patients: int
    slices: int
    positive_slices: int
    problems: tuple[Problem, ...]
    files: FilesRecord = field(default_factory=FilesRecord)
    layout: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> CheckRecord:
        """Return the report for JSON."""
        return {
            "format": self.format,
            "patients": self.patients,
            "slices": self.slices,
            "positive_slices": self.positive_slices,
            "files": self.files,
            "problems": [
                {"severity": each.severity, "file": each.file, "rule": each.rule, "value": each.value}
                for each in self.problems
            ],
            "layout": self.layout,
            "remarks": list(self.remarks),
        }


MapCases = Callable[[Callable[[CaseFiles], CaseReport], Iterable[CaseFiles]], Iterable[CaseReport]]


def check(
    path: Path,
    *,
    format: str | None = None,
    channels: Mapping[str, str] = NONE_CHOSEN,
    skip_incomplete: bool = False,
    map_cases: MapCases = map,
) -> CheckReport:
    """Read a whole cohort or study and report every problem.

    Args:
        path: Folder of a cohort or a study, or a file.
        format: Key in `FORMATS`; None detects it.
        channels: Series that the user chose, by channel, from `channel_choice.parse_choices`.
        skip_incomplete: Whether to skip cases that lack a sequence; the report names them.
        map_cases: `map`, or a function like it that distributes the cases over processes.

    Raises:
        UserError: If `path` does not exist or is of no known format.
    """
    if skip_incomplete:
        cohort, problems = open_cohort(path, format=format, skip_incomplete=True), _empty_folders(path)
    else:
        cohort, problems = _survey(path, format)
    cohort = cohort.with_channels(channels)
    reports = list(map_cases(partial(check_case, cohort), cohort.cases))
    for report in reports:
        problems += report.problems
    problems += find_unlabeled(cohort.cases, reports)
    problems += find_other_channels(cohort.cases, reports)
    problems += find_unused_labels(cohort, reports)
    problems += find_shared_images(cohort.cases, reports)
    problems += _check_table(cohort)
    # A case that could not be read counts as a patient, too.
    return CheckReport(
        format=cohort.format,
        patients=len({case.patient for case in cohort.cases}),
        slices=sum(report.slices for report in reports),
        positive_slices=sum(report.positive_slices for report in reports),
        problems=tuple(problems),
        files=_files(cohort),
        layout=cohort.layout,
        remarks=remarks_on(cohort, path, [report.notes for report in reports]),
    )


def _files(cohort: Cohort) -> FilesRecord:
    """Return the roles of the first case's files; a brain mask is not among its files, but beside them."""
    if not cohort.cases or cohort.format == "dicom":  # whose files have any names
        return {}
    case, roles = cohort.cases[0], cohort.roles
    alone = len({other.files[0].parent for other in cohort.cases}) == len(cohort.cases)
    beside = roles.only("brain_mask", sorted(case.files[0].parent.iterdir()))
    images, masks = roles.only("image", case.files), roles.only("mask", case.files)
    with suppress(UserError):
        if cohort.format == "lgg":
            images, masks = (list(files.values()) for files in lgg.split_masks(case.files))
        elif cohort.format in _KNOWING:
            images = list(cohort.read_files(case).files)
            masks = [file for file in case.files if file not in images]
    record: FilesRecord = {"case": case.id, "images": _shown(images)}
    if masks:
        record["masks"] = _shown(masks)
    if brains := [file for file in beside if alone or file.name.startswith(case.id)]:
        record["brain_masks"] = _shown(brains)
    return record


def _shown(files: Sequence[Path]) -> list[str]:
    more = [f"and {len(files) - SHOWN} more"] if len(files) > SHOWN else []
    return [*(file.name for file in files[:SHOWN]), *more]


def _survey(path: Path, format: str | None) -> tuple[Cohort, list[Problem]]:
    """List all cases that can be listed, and the problems of the others."""
    if path.is_dir() and format in (None, "lgg") and not nnunet.has_pictures(path):
        root = lgg.root_of(path)
        flat = lgg.flat_cases(root)
        single = len(flat) < 2 and any(not is_png(file) for file in lgg.slice_files(root))
        if len(flat) > 1 or (lgg.parts_of(root) != [root] and lgg.detect(path)):
            return lgg.open(path), []
        if single or lgg.detect(path):
            return _survey_lgg(root, [root] if single else lgg.case_folders(root))
    try:
        return (open_source(path) if format is None else open_cohort(path, format=format)), _empty_folders(path)
    except TooLarge:
        raise
    except UserError as error:
        if listed.detect(path):  # its cases are not those of the folders
            raise
        folders = lgg.case_folders(path) if path.is_dir() else []
        parts = []
        problems = []
        for folder in folders:
            try:
                parts.append(open_cohort(folder, format=format))
            except UserError as problem:
                problems.append(Problem.of(problem, folder, path))
        if not parts:
            raise error
        cases = _distinct_cases(parts)
        cohort = Cohort(parts[0].format, path, cases, parts[0].labels, parts[0].reader)
        whole = Problem.of(error, path, path)
        known = any(problem.rule == whole.rule for problem in problems)
        return cohort, problems if known else [whole, *problems]


def _distinct_cases(parts: Sequence[Cohort]) -> tuple[CaseFiles, ...]:
    """Return the cases of folders opened one by one; of equal ids, all but the first begin with their folder."""
    known: dict[str, CaseFiles] = {}
    for part in parts:
        for case in part.cases:
            name = case.id if case.id not in known else f"{part.path.name}_{case.id}"
            known.setdefault(name, replace(case, id=name))
    return tuple(known.values())


def _survey_lgg(root: Path, folders: list[Path]) -> tuple[Cohort, list[Problem]]:
    cases, problems = [], []
    for folder in folders:
        files = tuple(lgg.slice_files(folder))
        patient, institution = lgg.patient_of(folder.name)
        if files:
            cases.append(CaseFiles(folder.name, patient, files, institution))
        else:
            problems.append(Problem("error", folder.name, lgg.NO_SLICES, "none"))
    return lgg.cohort_of(root, cases), problems


def _empty_folders(path: Path) -> list[Problem]:
    """Report empty folders, such as an interrupted copy leaves."""
    folders = lgg.case_folders(path) if path.is_dir() else []
    empty = [folder.name for folder in folders if not any(files for _, _, files in walk(folder, path))]
    return [Problem("warning", name, "a case folder should hold files", "none") for name in empty]


def _check_table(cohort: Cohort) -> list[Problem]:
    """Compare the patients of the clinical table with those of the cases."""
    table = cohort.clinical
    if table is None:
        return []
    try:
        keys = patients_of(table)
    except UserError as error:
        return [replace(Problem.of(error, table, cohort.path), severity="warning")]  # segmentation needs none
    if empty := keys.count(""):
        rule = "every row of the table should name its patient: it cannot be used for survival"
        return [Problem("warning", table.name, rule, f"{empty} empty")]
    known = {patient_key(name) for case in cohort.cases for name in (case.patient, case.id)}
    problems = [
        Problem("warning", table.name, "a key of the table matches no case", key) for key in keys if key not in known
    ]
    twice = sorted(key for key, times in Counter(keys).items() if times > 1)
    rule = "a key of the table should appear once: it cannot be used for survival"
    problems += [Problem("warning", table.name, rule, key) for key in twice]
    if not twice:
        try:
            read_clinical(table)
        except UserError as error:
            problems.append(replace(Problem.of(error, table, cohort.path), severity="warning"))
    if cohort.format == "lgg":
        rest = sorted({patient_key(case.patient) for case in cohort.cases} - set(keys))
        problems += [Problem("warning", table.name, "a patient has no row in the table", key) for key in rest]
    return problems
