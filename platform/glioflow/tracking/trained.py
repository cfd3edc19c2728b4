"""Who trained a model: the split of its run, and whether a case of any cohort was among those."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from glioflow.data.prepared.index import Entry, Index
from glioflow.data.prepared.manifest import CaseRecord
from glioflow.data.splits import Split
from glioflow.errors import UserError
from glioflow.tracking.store import Tracking

SPLIT, CASES, COHORT = "split.json", "cases.json", "cohort.json"
# Of a cross-validation: who trained the ensemble of its folds, and who judges it.
ENSEMBLE_SPLIT = "ensemble_split.json"


class KnownCase(BaseModel):
    """What is remembered of a case: the person, and the digest of its images; None of cohorts prepared before 0.2."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    patient: str
    digest: str | None = None


_CASES = TypeAdapter(dict[str, KnownCase])


@dataclass(frozen=True)
class Trained:
    """The split of a training.

    Attributes:
        split: Ids by part.
        cases: What is known of them, by id; empty of a run that did not record it and whose cohort is gone.
    """

    split: Split
    cases: Mapping[str, KnownCase]

    def part_of(self, record: CaseRecord) -> str | None:
        """Return `train`, `val` or `test` where the case's images, its person or its id are in that part, or None."""
        images = None if record.digest is None else ("digest", record.digest)
        keys = (images, ("patient", record.patient), ("id", record.id))
        parts = {self._parts[key] for key in keys if key is not None and key in self._parts}
        return next((part for part in ("train", "val", "test") if part in parts), None)

    def differs(self, record: CaseRecord) -> bool:
        """Return whether a case of the same id had other images."""
        known = self.cases.get(record.id)
        return known is not None and None not in (known.digest, record.digest) and known.digest != record.digest

    @cached_property
    def _parts(self) -> dict[tuple[str, str], str]:
        parts: dict[tuple[str, str], str] = {}
        for part in ("test", "val", "train"):  # the most intimate last, so that it stays
            for case_id in getattr(self.split, part):
                known = self.cases.get(case_id)
                parts[("id", case_id)] = part
                if known is not None:
                    parts[("patient", known.patient)] = part
                if known is not None and known.digest is not None:
                    parts[("digest", known.digest)] = part
        return parts


def cases_text(entries: Iterable[Entry]) -> str:
    """Return the artifact that remembers the cases of a cohort."""
    return json.dumps({each.id: {"patient": each.patient, "digest": each.digest} for each in entries}, indent=1)


def read_trained(tracking: Tracking, run_id: str, digest: str) -> Trained | None:
    """Read who trained the model of a run, or of the search it belongs to; None where that is not on record.

    Args:
        tracking: Where it is recorded.
        run_id: Of the training.
        digest: Of the split, as the bundle says it.
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
    """Return what a run remembers of its cohort's cases, by id."""
    if tracking.has_artifact(holder, CASES):
        return _CASES.validate_python(tracking.read_json(holder, CASES))
    if not tracking.has_artifact(holder, COHORT):
        return {}
    try:  # a run of an earlier version: its prepared cohort knows the persons, if it is still there
        entries = Index(Path(tracking.read_json(holder, COHORT)["path"])).entries()
    except UserError:
        return {}
    return {entry.id: KnownCase(patient=entry.patient, digest=entry.digest) for entry in entries}
