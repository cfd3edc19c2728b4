"""Cohorts: make, download, check, describe and prepare them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glioflow import cluster
from glioflow.api.inputs import Overrides, check_beside, check_number, read_experiment
from glioflow.api.results import Result
from glioflow.atomic import check_folder
from glioflow.cluster.remote_home import check_home
from glioflow.cluster.storage import is_uri, prepared_home
from glioflow.config import Experiment
from glioflow.data import download as public_sets
from glioflow.data.channel_choice import parse_choices
from glioflow.data.checks import cohort_checks
from glioflow.data.checks.remarks import doubtful_persons
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import is_prepared
from glioflow.data.prepared.preparation import check_outside, prepare_in
from glioflow.data.prepared.preparation import prepare as prepare_cohort
from glioflow.data.prepared.remote import check_store, push
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.data.synthetic.layouts import EXAMPLES, synthesize_layout
from glioflow.errors import UserError, argument, option, unknown_name
from glioflow.progress import Say, print_progress
from glioflow.quantities import count
from glioflow.reports import cohort_page
from glioflow.reports.tables import Table


@dataclass(frozen=True)
class SynthesizedCohort(Result):
    """A synthetic cohort on disk."""

    path: str
    patients: int
    slices: int


@dataclass(frozen=True)
class DownloadedCohort(Result):
    """A public data set on disk, its license, and what to cite."""

    path: str
    license: str
    cite: str


@dataclass(frozen=True)
class CheckResult(cohort_checks.CheckReport, Result):
    """The contents of a cohort or a study, and its problems; `ok` if none of them is an error."""

    @property
    def _size(self) -> str:
        return f"{count(self.patients, 'patient')}, {count(self.slices, 'slice')}"

    def tables(self) -> list[Table]:
        """Return the problems."""
        rows = [[p.severity, p.file, p.rule, p.value] for p in self.problems]
        title = f"{self.format}: {self._size}"
        tables = [Table(title, ["severity", "file", "rule", "value"], rows)]
        if self.files:
            files = {
                "images": self.files["images"],
                "masks": self.files.get("masks"),
                "brain masks": self.files.get("brain_masks"),
            }
            roles = [[kind, ", ".join(names)] for kind, names in files.items() if names]
            tables.append(Table(f"files of {self.files['case']}", ["", ""], roles))
        return tables

    def notes(self) -> list[str]:
        """Return remarks on all cases, and a line if nothing is wrong."""
        sound = f"{self.format}: {self._size}, no problems"
        return [*self.remarks, *([] if self.problems else [sound])]


@dataclass(frozen=True)
class DescribeResult(cohort_page.Described, Result):
    """The report on a cohort, and the counts at its beginning."""


@dataclass(frozen=True)
class PreparedResult(Result):
    """A prepared cohort: its path, its fingerprint (of files and preprocessing), its contents, and how long it took.

    `path` is a folder or a URI; `train` and the others take it as their data.
    """

    path: str
    fingerprint: str
    patients: int
    slices: int
    seconds: float


def synthesize(
    kind: str,
    out: str | Path,
    *,
    patients: int | None = None,
    seed: int = 0,
    size: int | None = None,
    say: Say = print_progress,
) -> SynthesizedCohort:
    """Write a synthetic cohort that looks like the real one on disk.

    Args:
        kind: `lgg` or `brats`, or a tiny copy of a public data set (see `docs/data-sets.md`), such as `upenn-gbm`.
        out: New folder.
        patients: How many; None makes 12, or the two or three of a tiny copy.
        seed: The same seed gives the same files.
        size: Side of a slice in pixels; None takes the real one.
        say: Called with the part of the work that is done, and now and then with a line.

    Raises:
        UserError: If `kind` is unknown, `out` exists and is not empty, or a number is out of its range.
    """
    if kind not in ("lgg", "brats", *EXAMPLES):
        raise unknown_name("cohort to synthesize", kind, ["lgg", "brats", *EXAMPLES])
    check_number(option("seed"), seed, 0)
    number = 12 if patients is None else patients
    if kind in EXAMPLES:
        persons, slices = synthesize_layout(kind, Path(out), patients=patients, seed=seed, size=size or 32)
        return SynthesizedCohort(str(out), persons, slices)
    with cluster.ending():
        if kind == "lgg":
            made = synthesize_lgg(
                Path(out), patients=number, seed=seed, size=size or 256, map_cases=partial(cluster.map_cases, say=say)
            )
        else:
            made = synthesize_brats(
                Path(out), patients=number, seed=seed, size=size or 240, map_cases=partial(cluster.map_cases, say=say)
            )
    return SynthesizedCohort(**made)


def download(name: str, out: str | Path) -> DownloadedCohort:
    """Download a public data set, or say how to get it by hand.

    Args:
        name: `lgg`, `brats2020`, `decathlon` or another public set.
        out: New folder.

    Raises:
        UserError: If `name` is unknown, `out` is not new, or it cannot be downloaded: says what to do.
    """
    path = str(public_sets.download(name, Path(out)))
    known = public_sets.SETS[public_sets.key_of(name)]
    return DownloadedCohort(path, known.license, known.cite)


def check(
    source: str | Path, *, channels: Iterable[str] = (), skip_incomplete: bool = False, say: Say = print_progress
) -> CheckResult:
    """Read a cohort or a single study, and report every problem.

    Args:
        source: Folder of a cohort, or one study: a folder or a file.
        channels: `NAME=SERIES` texts that say which DICOM series a channel is, by its description, number or UID.
        skip_incomplete: Whether cases that lack a sequence are left out, and named.
        say: Called with the part of the work that is done, and now and then with a line.

    Raises:
        UserError: If it does not exist, or has no known format.
    """
    with cluster.ending():
        chosen = parse_choices(channels)
        report = cohort_checks.check(
            _original_files(source),
            channels=chosen,
            skip_incomplete=skip_incomplete,
            map_cases=partial(cluster.map_cases, say=say),
        )
    return CheckResult(**vars(report))


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    experiment: Experiment | str | Path | None = None,
    overrides: Overrides = (),
    channels: Iterable[str] = (),
    skip_incomplete: bool = False,
    say: Say = print_progress,
) -> PreparedResult:
    """Preprocess a cohort once, in parallel; skip cases that are already prepared.

    Args:
        source: The cohort's folder.
        out: Folder, or a URI such as `s3://bucket/cohort`.
        experiment: The experiment, or its file, whose preprocessing is used; None takes the default.
        overrides: `section.key=value` texts, or values by dotted key.
        channels: As for `check`.
        skip_incomplete: As for `check`.
        say: Called with the part of the work that is done, and now and then with a line.

    Raises:
        UserError: If the cohort cannot be read.
    """
    steps = read_experiment(Experiment() if experiment is None else experiment, overrides).preprocess
    began, chosen = time.monotonic(), parse_choices(channels)
    if is_uri(out):
        check_home()
        check_store(str(out))
    else:
        check_folder(Path(out), argument("out"))
        if not is_prepared(Path(out)):
            check_outside(Path(source), Path(out))
    with cluster.ending():
        cohort = open_cohort(_original_files(source), skip_incomplete=skip_incomplete).with_channels(chosen)
        for doubt in doubtful_persons(cohort):
            say(f"warning: {doubt}")
        if is_uri(out):
            made = prepare_in(cohort, steps, home=prepared_home(), map_cases=partial(cluster.map_cases, say=say))
            push(made, str(out))
        else:
            made = prepare_cohort(cohort, Path(out), steps, map_cases=partial(cluster.map_cases, say=say))
    return PreparedResult(
        path=str(out),
        fingerprint=made.manifest.fingerprint,
        patients=len({record.patient for record in made.records}),
        slices=made.num_slices,
        seconds=round(time.monotonic() - began, 3),
    )


def describe(
    source: str | Path,
    out: str | Path,
    *,
    experiment: Experiment | str | Path | None = None,
    overrides: Overrides = (),
    say: Say = print_progress,
) -> DescribeResult:
    """Write a report on a cohort: class balance, tumor sizes, channels, missing values, preprocessing examples.

    Args:
        source: The cohort's folder.
        out: Folder for `index.html` and its figures.
        experiment: The experiment, or its file, whose preprocessing is shown; None shows a tour of steps.
        overrides: As for `prepare`.
        say: As for `prepare`.

    Raises:
        UserError: If a case cannot be read; `check` lists every problem.
    """
    steps = None if experiment is None else read_experiment(experiment, overrides).preprocess
    check_beside(out, option("out"), source)
    with cluster.ending():
        done = cohort_page.describe(
            _original_files(source), Path(out), steps=steps, map_cases=partial(cluster.map_cases, say=say)
        )
    return DescribeResult(**vars(done))


def _original_files(source: str | Path) -> Path:
    if is_uri(source):
        rule = "the source must be the folder of the original files of a cohort, not a prepared cohort at an address"
        raise UserError(rule, source, hint="give a folder of this machine")
    return Path(source)
