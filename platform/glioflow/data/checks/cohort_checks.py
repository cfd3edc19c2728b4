"""The report on a whole cohort or study: the problems of its cases, and those that only show between them."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glioflow.data.checks.case_checks import Finding, Problem, check_case, problem_of
from glioflow.data.formats import lgg
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.study import open_source
from glioflow.errors import UserError


@dataclass(frozen=True)
class CheckReport:
    """What a cohort holds and what is wrong with it."""

    format: str
    patients: int
    slices: int
    positive_slices: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and dicts, for JSON."""
        return asdict(self) | {"problems": [asdict(problem) for problem in self.problems]}


MapCases = Callable[[Callable[[CaseFiles], Finding], Iterable[CaseFiles]], Iterable[Finding]]


def check(path: Path, *, format: str | None = None, map_cases: MapCases = map) -> CheckReport:
    """Read a cohort or a single study whole and report every problem.

    Args:
        path: Folder of a cohort or a study, or a file.
        format: Key in `FORMATS`; None looks at the folder.
        map_cases: `map`, or one like it that spreads the cases over processes.

    Raises:
        UserError: If `path` is missing or of no known format.
    """
    cohort, problems = _survey(path, format)
    findings = list(map_cases(partial(check_case, cohort), cohort.cases))
    for finding in findings:
        problems += finding.problems
    problems += _unlabeled(cohort.cases, findings)
    problems += _shared_images(cohort.cases, findings)
    problems += _check_table(cohort)
    # A case of which nothing could be read is still a patient.
    return CheckReport(
        format=cohort.format,
        patients=len({case.patient for case in cohort.cases}),
        slices=sum(finding.slices for finding in findings),
        positive_slices=sum(finding.positive_slices for finding in findings),
        problems=tuple(problems),
    )


def _survey(path: Path, format: str | None) -> tuple[Cohort, list[Problem]]:
    """List the cases, as many as can be listed, and what kept the others from it."""
    if path.is_dir() and format in (None, "lgg"):
        root = lgg.root_of(path)
        single = any(lgg.slice_files(root))
        if single or lgg.detect(path):
            return _survey_lgg(root, [root] if single else lgg.case_folders(root))
    try:
        return (open_source(path) if format is None else open_cohort(path, format=format)), _empty_folders(path)
    except UserError as error:
        folders = lgg.case_folders(path) if path.is_dir() else []
        parts = []
        problems = []
        for folder in folders:
            try:
                parts.append(open_cohort(folder, format=format))
            except UserError as problem:
                problems.append(problem_of(problem, folder, path))
        if not parts:
            raise error
        cases = tuple(case for part in parts for case in part.cases)
        return Cohort(parts[0].format, path, cases, parts[0].labels, parts[0].reader), problems or [
            problem_of(error, path, path)
        ]


def _survey_lgg(root: Path, folders: list[Path]) -> tuple[Cohort, list[Problem]]:
    cases, problems = [], []
    for folder in folders:
        files = tuple(lgg.slice_files(folder))
        patient, institution = lgg.patient_of(folder.name)
        if files:
            cases.append(CaseFiles(folder.name, patient, files, institution))
        else:
            rule = "a case folder holds slices named <case>_<n>.tif"
            problems.append(Problem("error", folder.name, rule, "none"))
    table = root / "data.csv"
    return Cohort("lgg", root, tuple(cases), dict(lgg.LABELS), lgg.read, table if table.is_file() else None), problems


def _empty_folders(path: Path) -> list[Problem]:
    """Report folders without a file: what a copy that was cut short leaves."""
    folders = lgg.case_folders(path) if path.is_dir() else []
    empty = [folder.name for folder in folders if not any(file.is_file() for file in folder.rglob("*"))]
    return [Problem("warning", name, "a case folder holds files", "none") for name in empty]


def _unlabeled(cases: tuple[CaseFiles, ...], findings: list[Finding]) -> list[Problem]:
    """Report the cases without a mask where others have one."""
    if not any(finding.labeled for finding in findings):
        return []
    return [
        Problem("warning", case.id, "every case has a mask, or none has", "no mask")
        for case, finding in zip(cases, findings, strict=True)
        if finding.labeled is False
    ]


def _shared_images(cases: tuple[CaseFiles, ...], findings: list[Finding]) -> list[Problem]:
    """Report every pair of patients who have a slice in common."""
    first: dict[bytes, tuple[CaseFiles, int]] = {}
    pairs: dict[tuple[str, str], list[int]] = {}
    for case, finding in zip(cases, findings, strict=True):
        for number, digest in finding.digests:
            owner, _ = first.setdefault(digest, (case, number))
            if owner.id != case.id:
                pairs.setdefault((case.id, owner.id), []).append(number)
    rule = "no two cases have the same image"
    return [
        Problem("error", one, rule, f"{len(numbers)} slices also in {other}, the first is {numbers[0]}")
        for (one, other), numbers in pairs.items()
    ]


def _check_table(cohort: Cohort) -> list[Problem]:
    """Compare the clinical table's keys, its first column, with the patients."""
    table = cohort.clinical
    if table is None:
        return []
    try:
        if cohort.format == "lgg":
            keys = [row["Patient"] for row in lgg.clinical_rows(table)]
        else:
            with table.open(encoding="utf-8-sig", newline="") as file:
                keys = [row[0] for row in list(csv.reader(file))[1:] if row]
    except (OSError, UnicodeDecodeError, csv.Error, UserError) as error:
        return [
            problem_of(
                error if isinstance(error, UserError) else UserError("a table is readable text"), table, cohort.path
            )
        ]
    known = {case.patient for case in cohort.cases} | {case.id for case in cohort.cases}
    problems = [
        Problem("warning", table.name, "every key of the table is a case", key) for key in keys if key not in known
    ]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    problems += [Problem("error", table.name, "every key of the table appears once", key) for key in twice]
    if cohort.format == "lgg":
        rest = sorted({case.patient for case in cohort.cases} - set(keys))
        problems += [Problem("warning", table.name, "every patient has a row in the table", key) for key in rest]
    return problems
