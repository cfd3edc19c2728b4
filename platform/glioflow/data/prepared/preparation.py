"""Preparation of cohorts: each case is preprocessed once, in parallel; writing the manifest completes the folder."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from glioflow import atomic
from glioflow.cluster.remote_home import fetch
from glioflow.data.checks.remarks import doubtful_persons
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import INCOMPLETE
from glioflow.data.formats.junk import is_junk
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.prepared.agreement import check_labels, check_made_with
from glioflow.data.prepared.case_preparation import CASES, Job, prepare_case
from glioflow.data.prepared.cohort import PreparedCohort, check_files, is_prepared
from glioflow.data.prepared.digests import digest_cases, digest_reading
from glioflow.data.prepared.index import write_index
from glioflow.data.prepared.manifest import (
    VERSION,
    CaseRecord,
    WholeManifest,
    fingerprint_of,
)
from glioflow.data.preprocessing.pipeline import Step
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError

_ELSEWHERE = "choose another folder for the prepared cohort"
MapCases = Callable[[Callable[[Job], CaseRecord], Iterable[Job]], Iterable[CaseRecord]]


def find_or_prepare(
    source: Path | Cohort | PreparedCohort,
    steps: Sequence[Step],
    *,
    home: Path,
    target: TargetSettings | None = None,
    map_cases: MapCases = map,
) -> PreparedCohort:
    """Open the prepared form of `source`; prepare it in `home` first if necessary.

    Args:
        source: A cohort, or its folder; if it is prepared, its steps must be `steps`.
        steps: The experiment's preprocessing.
        home: Folder of prepared cohorts, one folder for each fingerprint.
        target: Target whose labels must be those of the cohort; checked before any case is read.
        map_cases: Runs a function over items, in order; on a cluster, as Ray tasks.

    Raises:
        UserError: From the readers and steps, or if a prepared cohort was made with other steps, or its labels are not
            those of the target.
    """
    if isinstance(source, Path) and is_prepared(source):
        source = PreparedCohort(source)
    if isinstance(source, PreparedCohort):
        check_made_with(source, steps, target)
        return source
    cohort = open_cohort(source) if isinstance(source, Path) else source
    if target is not None:
        check_labels(target, cohort.labels, steps, cohort.path)
    return prepare_in(cohort, steps, home=home, map_cases=map_cases)


def prepare_in(cohort: Cohort, steps: Sequence[Step], *, home: Path, map_cases: MapCases = map) -> PreparedCohort:
    """Prepare a raw cohort in its folder below `home` if necessary; raises as `prepare` does."""
    digests = digest_cases(cohort, steps)
    folder = _folder_of(cohort, digests, steps, home)
    if is_prepared(folder) and _has_others(PreparedCohort(folder, verify=False), cohort):
        cohort = replace(cohort, read_anew=True)
        folder = _folder_of(cohort, digests, steps, home)
    return prepare(cohort, folder, steps, map_cases=map_cases, digests=digests)


def check_place(cohort: Cohort, steps: Sequence[Step], home: Path) -> None:
    """Refuse a read-only folder of prepared cohorts, unless it has the cohort already; raises `UserError`."""
    try:
        atomic.check_folder(home, "the folder of prepared cohorts")
    except UserError:
        if not is_prepared(_folder_of(cohort, digest_cases(cohort, steps), steps, home)):
            raise


def _folder_of(cohort: Cohort, digests: dict[str, str], steps: Sequence[Step], home: Path) -> Path:
    """Return the folder of a cohort below `home`, copied there first if another node made it."""
    folder = home / fingerprint_of(digests, steps, digest_reading(cohort))
    if not is_prepared(folder):
        fetch(folder)
    return folder


def _has_others(prepared: PreparedCohort, cohort: Cohort) -> bool:
    """Return whether an earlier version read other persons from the same files, or read a mask as an image."""
    cases = {case.id: case for case in cohort.cases}
    return any(
        entry.patient != cases[entry.id].patient
        or (cohort.format == "nifti" and entry.volume_px is None and cohort.roles.only("mask", cases[entry.id].files))
        for entry in prepared.entries()
    )


def prepare(
    cohort: Cohort,
    out: Path,
    steps: Sequence[Step],
    *,
    map_cases: MapCases = map,
    progress: Callable[[int, int], None] | None = None,
    digests: dict[str, str] | None = None,
) -> PreparedCohort:
    """Preprocess a cohort case by case into `out`; keep cases that an interrupted call has finished.

    Args:
        cohort: A raw cohort.
        out: Folder of the prepared cohort, complete once its manifest is written.
        steps: Preprocessing, in order.
        map_cases: Runs a function over items, in order.
        progress: Called with the number of finished cases and the number of all cases.
        digests: Digest of the files of each case by id, if known.

    Raises:
        UserError: From the reader and the steps, or if `out` holds a cohort with other sources or settings.
    """
    digests, reading = digests or digest_cases(cohort, steps), digest_reading(cohort)
    fingerprint = fingerprint_of(digests, steps, reading)
    if is_prepared(out):
        prepared = PreparedCohort(out)
        if prepared.manifest.fingerprint != fingerprint or _has_others(prepared, cohort):
            rule = f"{out} holds a prepared cohort of other sources or settings"
            raise UserError(rule, out, hint="choose another folder")
        _copy_table(cohort, out)
        return prepared
    _check_out(cohort, out)
    is_new = not out.exists()
    try:
        records = _prepare_cases(cohort, out, steps, digests, reading, map_cases, progress)
        if digest_cases(cohort, steps) != digests or digest_reading(cohort) != reading:
            rule = f"{cohort.path} must not change while it is prepared"
            raise UserError(rule, "other files than at the beginning", hint="prepare it again")
    except UserError:
        if is_new:  # keep the cases of an earlier, interrupted call
            shutil.rmtree(out, ignore_errors=True)
        raise
    _copy_table(cohort, out)
    manifest = WholeManifest(
        version=VERSION,
        fingerprint=fingerprint,
        source_fingerprint=fingerprint_of(digests, ()),
        format=cohort.format,
        source=cohort.path.name,
        labels=cohort.labels,
        steps=tuple(steps),
        doubts=tuple(doubtful_persons(cohort)),
        cases=tuple(records),
    )
    atomic.write_text(out / "manifest.json", manifest.model_dump_json(indent=1))
    write_index(out, manifest, manifest.cases)
    return PreparedCohort(out)


def check_outside(source: Path, out: Path) -> None:
    """Refuse a folder for a prepared cohort in its source, whose files and folders are read as cases, unless hidden.

    Raises:
        UserError: If `out` lies in the folder `source`.
    """
    inside = out.resolve().relative_to(source.resolve()).parts if out.resolve().is_relative_to(source.resolve()) else ()
    if inside and not is_junk(inside[0]):  # such as `.glioflow`
        rule = f"{out} lies in the raw cohort, whose files and folders are read as cases"
        raise UserError(rule, out, hint=_ELSEWHERE)


def _check_out(cohort: Cohort, out: Path) -> None:
    hint = _ELSEWHERE
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, and a prepared cohort is a folder", out, hint=hint)
    if out.resolve() == cohort.path.resolve():
        raise UserError(f"{out} is the raw cohort itself", out, hint=hint)
    if cohort.format == "lgg":
        check_outside(cohort.path, out)
    if out.is_dir() and not (out / CASES).is_dir() and any(out.iterdir()):
        raise UserError(f"{out} must be new or hold prepared cases, but it holds other files", out, hint=hint)


def _prepare_cases(
    cohort: Cohort,
    out: Path,
    steps: Sequence[Step],
    digests: Mapping[str, str],
    reading: str,
    map_cases: MapCases,
    progress: Callable[[int, int], None] | None,
) -> list[CaseRecord]:
    """Write every case below `out`, and return their records by id."""
    alone = replace(cohort, cases=())  # a job carries the files of its case, not those of the whole cohort
    # Large cases first, so that no worker finishes long after the others.
    ordered = sorted(cohort.cases, key=_bytes_of, reverse=True)
    several = len(ordered) > 1
    jobs = [Job(alone, case, out, tuple(steps), digests[case.id], reading, several=several) for case in ordered]
    records: list[CaseRecord] = []
    for record in map_cases(prepare_case, jobs):
        records.append(record)
        if progress:
            progress(len(records), len(jobs))
    records = _with_one_order(records, jobs, map_cases)
    records.sort(key=lambda record: record.id)
    _same_channels(records)
    for record in records:
        check_files(record, out / record.folder)
    return records


def _with_one_order(records: list[CaseRecord], jobs: Sequence[Job], map_cases: MapCases) -> list[CaseRecord]:
    """Prepare cases again whose channels are in another order than the first case's, since scanners number series."""
    order = min(records, key=lambda record: record.id).source_channels if records else ()
    others = {record.id for record in records if record.source_channels != order}
    others &= {record.id for record in records if sorted(record.source_channels) == sorted(order)}
    again = [replace(job, channels=order) for job in jobs if job.case.id in others]
    made = {record.id: record for record in map_cases(prepare_case, again)} if again else {}
    for record in records:
        if record.id in made:
            shutil.rmtree(jobs[0].out / record.folder, ignore_errors=True)
    return [made.get(record.id, record) for record in records]


def _copy_table(cohort: Cohort, out: Path) -> None:
    """Update the copy of the clinical table from the source, so that a changed cell needs no new preparation."""
    copy = out / "clinical.csv"
    content = None if cohort.clinical is None else cohort.clinical.read_bytes()
    if content is None:
        copy.unlink(missing_ok=True)
    elif not copy.exists() or copy.read_bytes() != content:
        atomic.write_bytes(copy, content)


def _bytes_of(case: CaseFiles) -> int:
    return sum(path.stat().st_size for path in case.files)


def _same_channels(records: Sequence[CaseRecord]) -> None:
    for record in records:
        if (record.channels, record.source_channels) != (records[0].channels, records[0].source_channels):
            shown = (f"{', '.join(each.source_channels)} in {each.id}" for each in (records[0], record))
            raise UserError("all cases of a cohort must have the same channels", " and ".join(shown), hint=INCOMPLETE)
