"""Accepted corrections with a cohort's preprocessing, matched to the cohort's cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from glioflow.data.case import Case
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.writing import word_of
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.prepared.joining import find_same_images, same_mask
from glioflow.data.prepared.preparation import prepare_in
from glioflow.data.preprocessing.pipeline import LabelMap
from glioflow.errors import UserError
from glioflow.runs.retrain.placement import Correction, UnusedCorrection


@dataclass(frozen=True)
class Recognized:
    """Corrections that fit a cohort, their cases by id, and those that do not fit."""

    corrections: list[Correction]
    cases: dict[str, PreparedCase]
    unused: list[UnusedCorrection]


def recognize(
    accepted: Sequence[tuple[Cohort, CaseFiles]], base: PreparedCohort, *, names: Mapping[int, str], home: Path
) -> Recognized:
    """Prepare accepted corrections with a cohort's steps, and match them to its cases by their images.

    Args:
        accepted: Corrections in the order of their acceptance, each with the cohort that reads it.
        base: The cohort.
        names: Meaning of the labels in the corrected model's masks.
        home: Folder of prepared cohorts.
    """
    known = [(case, case.signatures()) for case in base.cases(base.records.ids())]
    recognized = Recognized([], {}, [])
    for cohort, files in accepted:
        if files.id in recognized.cases:  # earlier versions numbered the cases of each kind
            why = f"another accepted case has its name; rename one, and its files, to {files.patient}_NUMBER"
            recognized.unused.append(UnusedCorrection(files.id, why))
            continue
        if cohort.labels != names:
            unused = UnusedCorrection(files.id, f"its labels mean {_shown(cohort.labels)}, not {_shown(names)}")
            recognized.unused.append(unused)
            continue
        try:
            prepared = _prepared(cohort, files, base, home)
        except UserError as error:
            recognized.unused.append(UnusedCorrection(files.id, str(error)))
            continue
        case = prepared.case(files.id)
        twin = find_same_images(case, known)
        recognized.corrections.append(
            Correction(
                id=files.id,
                key=files.patient,
                digest=prepared.manifest.source_fingerprint,
                study=files.id if twin is None else twin.record.id,
                images=case.record.digest,
                known=twin is not None and twin.record.id not in recognized.cases and same_mask(case, twin),
            )
        )
        recognized.cases[files.id] = case
        known.append((case, case.signatures()))
    return recognized


def _prepared(cohort: Cohort, files: CaseFiles, base: PreparedCohort, home: Path) -> PreparedCohort:
    """Prepare one correction with a cohort's channels and steps; its labels already match the model's."""
    channels = base.source_channels
    reader: Any = partial(_read_with, cohort, channels)
    chosen = tuple((name, word_of(name)) for name in channels)
    alone = replace(cohort, cases=(files,), reader=reader, chosen=chosen)
    return prepare_in(alone, [step for step in base.manifest.steps if not isinstance(step, LabelMap)], home=home)


def _read_with(cohort: Cohort, channels: Sequence[str], files: CaseFiles) -> Case:
    """Read a correction with its channels named and ordered as in the cohort; file names contain the channel names."""
    case = cohort.read_files(files)
    words = [word_of(name) for name in case.channels]
    if sorted(words) != sorted(map(word_of, channels)):
        rule = f"a correction must have the channels of the cohort: {', '.join(channels)}"
        raise UserError(rule, ", ".join(case.channels))
    order = [words.index(word_of(name)) for name in channels]
    return replace(case, image=case.image[..., order], channels=tuple(channels))


def _shown(labels: Mapping[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in sorted(labels.items()))
