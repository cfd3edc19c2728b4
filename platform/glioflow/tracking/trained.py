"""The patients that trained a model: its run's split, and whether any given case was in it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from glioflow.data.prepared.index import Entry, Index
from glioflow.data.prepared.manifest import CaseRecord
from glioflow.data.prepared.remote import recorded_cohort
from glioflow.data.splits import Split
from glioflow.errors import UserError
from glioflow.tracking.store import Tracking

SPLIT, CASES, COHORT = "split.json", "cases.json", "cohort.json"
# Artifact of a cross-validation: the cases that trained its ensemble, and those that test it.
ENSEMBLE_SPLIT = "ensemble_split.json"


class KnownCase(BaseModel):
    """Recorded facts about a case: the person, and the digest of its images (None for cohorts prepared before 0.2)."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    patient: str
    digest: str | None = None


_CASES = TypeAdapter(dict[str, KnownCase])


@dataclass(frozen=True)
class Trained:
    """The split of a training.

    Attributes:
        split: Ids by part.
        cases: Facts about them, by id; empty if the run did not record them and its cohort is gone.
    """

    split: Split
    cases: Mapping[str, KnownCase]

    def part_of(self, record: CaseRecord) -> str | None:
        """Return `train`, `val` or `test` if that part contains the case's images, person or id, else None."""
        images = None if record.digest is None else ("digest", record.digest)
        keys = (images, ("patient", record.patient), ("id", record.id))
        parts = {self._parts[key] for key in keys if key is not None and key in self._parts}
        return next((part for part in ("train", "val", "test") if part in parts), None)

    def differs(self, record: CaseRecord) -> bool:
        """Return whether a case of the same id had different images."""
        known = self.cases.get(record.id)
        return known is not None and None not in (known.digest, record.digest) and known.digest != record.digest

    @cached_property
    def _parts(self) -> dict[tuple[str, str], str]:
        parts: dict[tuple[str, str], str] = {}
        for part in ("test", "val", "train"):  # later parts take precedence
            for case_id in getattr(self.split, part):
                known = self.cases.get(case_id)
                parts[("id", case_id)] = part
                if known is not None:
                    parts[("patient", known.patient)] = part
                if known is not None and known.digest is not None:
                    parts[("digest", known.digest)] = part
        return parts


def cases_text(entries: Iterable[Entry]) -> str:
    """Return the artifact that records the cases of a cohort."""
    return json.dumps({each.id: {"patient": each.patient, "digest": each.digest} for each in entries}, indent=1)


def read_trained(tracking: Tracking, run_id: str, digest: str) -> Trained | None:
    """Read the training split of a run, or of the search it belongs to; None if it was not recorded.

    Args:
        tracking: Store of the run.
        run_id: Id of the training run.
        digest: Digest of the split, as in the bundle.
    """
    parent = tracking.run(run_id).data.tags.get("mlflow.parentRunId")
    for holder in filter(None, (run_id, parent)):
        for name in (SPLIT, ENSEMBLE_SPLIT):
            if tracking.has_artifact(holder, name):
                split = Split.model_validate(tracking.read_json(holder, name))
                if split.digest == digest:
                    return Trained(split, known_cases(tracking, holder))
    return None


def known_cases(tracking: Tracking, holder: str) -> dict[str, KnownCase]:
    """Return a run's recorded facts about its cohort's cases, by id."""
    if tracking.has_artifact(holder, CASES):
        return _CASES.validate_python(tracking.read_json(holder, CASES))
    if not tracking.has_artifact(holder, COHORT):
        return {}
    try:  # a run of an earlier version: read the persons from its prepared cohort, if that exists
        entries = Index(recorded_cohort(Path(tracking.read_json(holder, COHORT)["path"]))).entries()
    except UserError:
        return {}
    return {entry.id: KnownCase(patient=entry.patient, digest=entry.digest) for entry in entries}
