"""Checks that a cohort suits an experiment: its labels and its preprocessing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.preprocessing.pipeline import Step, renamed, renamed_tissues
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError


def check_made_with(prepared: PreparedCohort, steps: Sequence[Step], target: TargetSettings | None) -> None:
    """Refuse a prepared cohort with other preprocessing steps or labels than the experiment's.

    Raises:
        UserError: With the differences.
    """
    if prepared.manifest.steps != tuple(steps):
        rule = "a prepared cohort can be used only with the preprocessing it was made with"
        hint = "give the raw cohort, or the preprocessing of this one"
        raise UserError(rule, _difference(prepared, steps), file=prepared.path, hint=hint)
    if target is not None:
        check_labels(target, prepared.manifest.labels, steps, prepared.path)


def check_labels(target: TargetSettings, labels: Mapping[int, str], steps: Sequence[Step], origin: Path) -> None:
    """Refuse a target that does not suit the labels of a cohort after `steps`; raises `UserError`."""
    target.check_labels(renamed(labels, steps), origin, renamed_tissues(labels, steps))


def _difference(prepared: PreparedCohort, steps: Sequence[Step]) -> str:
    dump = TypeAdapter(tuple[Step, ...]).dump_json
    return f"{dump(tuple(steps)).decode()} where the cohort has {dump(prepared.manifest.steps).decode()}"
