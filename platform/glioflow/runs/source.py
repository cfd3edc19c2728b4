"""The cohort of a run before Ray starts: listed, split and tried on one case, so that mistakes show early."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from glioflow import audit
from glioflow.cluster.storage import data_folder, prepared_home
from glioflow.config import Experiment
from glioflow.data.checks.remarks import doubtful_persons
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.record import Cohort
from glioflow.data.prepared.agreement import check_labels, check_made_with
from glioflow.data.prepared.cohort import PreparedCohort, is_prepared
from glioflow.data.prepared.digests import digest_cases
from glioflow.data.prepared.index import Entry
from glioflow.data.prepared.manifest import fingerprint_of
from glioflow.data.prepared.preparation import check_place
from glioflow.data.prepared.remote import local_folder
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.pipeline import Step, preprocess
from glioflow.data.splits import Split, check_patients, make_split
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError

# A raw cohort whose images were not read yet, or a prepared one.
Source = Cohort | PreparedCohort


def list_source(experiment: Experiment, source: str | Path, *, folds: int = 0) -> Source:
    """Return the cohort of an experiment; raises `UserError` as `list_cohort`, or for fewer patients than `folds`."""
    cohort = list_cohort(source, experiment.preprocess, experiment.target)
    if isinstance(cohort, Cohort):
        check_patients(len({case.patient for case in cohort.cases}), folds)
    return cohort


def list_cohort(source: str | Path, steps: Sequence[Step], target: TargetSettings) -> Source:
    """Return the cases of a raw cohort, or a prepared one, fetched where it lies behind a URI.

    Raises:
        UserError: As the formats do, without a look into any image; or if the cohort has not the labels of the target,
            or was prepared with other steps.
    """
    folder = local_folder(source, prepared_home())
    if is_prepared(folder):
        prepared = PreparedCohort(folder)
        check_made_with(prepared, steps, target)
        return prepared
    cohort = open_cohort(folder)
    check_labels(target, cohort.labels, steps, folder)
    return cohort


def deal_early(experiment: Experiment, source: Source) -> Split:
    """Deal a cohort's cases, of a raw one as if all of them were labeled; raises `UserError` as `make_split`."""
    entries = entries_of(source)
    split = make_split(entries, experiment.split, folder=data_folder())
    if experiment.split.method == "file":  # in other formats, a case without a mask may seem to leak
        check_leaks(split, entries)
    return split


def doubts_of(source: Source) -> list[str]:
    """Return what a split rests on without certainty: persons who may be one."""
    if isinstance(source, PreparedCohort):
        return [f"{doubt} of the original cohort, and prepare it again" for doubt in source.manifest.doubts]
    return doubtful_persons(source)


def check_leaks(split: Split, entries: Sequence[Entry]) -> None:
    """Refuse a split with a person in two parts; raises `UserError`."""
    if leaks := audit.find_split_leaks(split, entries):
        raise UserError(leaks[0].rule, leaks[0].value)


def entries_of(source: Source) -> list[Entry]:
    """Return what a split needs to know about a cohort's cases; those of a raw one seem to be labeled."""
    if isinstance(source, PreparedCohort):
        return source.entries()
    return [Entry(case.id, case.patient, case.institution, 0, None) for case in source.cases]


@dataclass(frozen=True)
class Tried:
    """The effect of preprocessing steps on a cohort: the channels of its cases, and its approximate size on disk."""

    channels: tuple[str, ...]
    size: float = 0.0


def try_steps(source: Source, chains: Collection[Sequence[Step]]) -> list[Tried]:
    """Preprocess the smallest case of a raw cohort by each chain of steps; of a prepared one, tell what it has.

    Raises:
        UserError: If a chain asks for what the case does not have, such as a channel, or a mask that another lacks; or
            if the home has no room for what they make.
    """
    if isinstance(source, PreparedCohort):
        return [Tried(source.channels)] * len(chains)
    for chain in chains:
        check_place(source, chain, prepared_home())
    for step in {step for chain in chains for step in chain if isinstance(step, BrainMask)}:
        for case in source.cases:
            step.check_file(case.files, case.id)
    sizes = {case.id: sum(path.stat().st_size for path in case.files) for case in source.cases}
    smallest = min(source.cases, key=lambda case: sizes[case.id])
    read, share = source.read_files(smallest), sum(sizes.values()) / max(1, sizes[smallest.id])
    made = [preprocess(read, tuple(chain)) for chain in chains]
    # Images are stored in half precision.
    own = [2 * each.image.size + (0 if each.mask is None else each.mask.nbytes) for each in made]
    return [Tried(each.channels, size * share) for each, size in zip(made, own, strict=True)]


def fingerprint_early(source: Source, steps: Sequence[Step]) -> str:
    """Return the fingerprint of a cohort's files, which a prepared one has on record."""
    if isinstance(source, PreparedCohort):
        return source.manifest.source_fingerprint
    return fingerprint_of(digest_cases(source, steps), ())
