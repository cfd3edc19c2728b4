"""Data sets of a run, as MLflow lists them and finds runs by them."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glioflow.clock import now_ms
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCohort, is_prepared
from glioflow.data.prepared.digests import digest_cases
from glioflow.data.prepared.manifest import fingerprint_of

Use = Literal["training", "validation", "testing"]


@dataclass(frozen=True)
class Dataset:
    """One data set of a run.

    Attributes:
        name: Name shown in MLflow.
        digest: Digest of the data, at most 36 characters.
        source: Path or URI.
        used_for: What the run uses the data for.
        facts: Further facts about it, as JSON.
        tags: Tags of a run that uses it.
    """

    name: str
    digest: str
    source: str
    used_for: Use
    facts: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def prepared_dataset(cohort: PreparedCohort, used_for: Use, **facts: object) -> Dataset:
    """Describe a prepared cohort; its tags are `glioflow.cohort` and, for its source, `glioflow.cohort_source`."""
    manifest = cohort.manifest
    return Dataset(
        name=manifest.source,
        digest=manifest.fingerprint,
        source=str(cohort.path),
        used_for=used_for,
        facts={"format": manifest.format, "sources": manifest.source_fingerprint, **facts},
        tags={"glioflow.cohort": manifest.fingerprint, "glioflow.cohort_source": manifest.source_fingerprint},
    )


def cohort_dataset(path: Path, used_for: Use) -> Dataset:
    """Describe a cohort, prepared or raw; a raw one's digest is that of its files, as preparation would record it.

    Raises:
        UserError: If it cannot be read.
    """
    if is_prepared(path):
        prepared = PreparedCohort(path)
        return prepared_dataset(prepared, used_for, cases=len(prepared.records))
    cohort = open_cohort(path)
    digest = fingerprint_of(digest_cases(cohort, ()), ())
    facts = {"format": cohort.format, "cases": len(cohort.cases)}
    return Dataset(path.name, digest, str(path), used_for, facts, {"glioflow.cohort_source": digest})


def table_dataset(path: Path, used_for: Use) -> Dataset:
    """Describe a table by its file; its digest is the run's tag `glioflow.clinical`.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return Dataset(path.name, digest, str(path), used_for, {}, {"glioflow.clinical": digest})


def live_dataset(model: str, **facts: object) -> Dataset:
    """Describe the studies that an endpoint receives from now on; each call gives another data set.

    It contains nothing of any study: the digest is computed from the machine and the time.
    """
    begun = f"{model} {platform.node()} {now_ms()}"
    digest = hashlib.blake2b(begun.encode(), digest_size=16).hexdigest()
    return Dataset("live studies", digest, f"endpoint of {model}", "testing", facts)


def datasets_of(run: Any, used_for: Use) -> tuple[Dataset, ...]:
    """Return the data sets that MLflow's `run` recorded, for another run that uses its results."""
    tags = {key: run.data.tags[key] for key in ("glioflow.cohort", "glioflow.cohort_source") if key in run.data.tags}
    recorded = [each.dataset for each in run.inputs.dataset_inputs] if run.inputs else []
    return tuple(
        Dataset(entry.name, entry.digest, json.loads(entry.source)["uri"], used_for, json.loads(entry.profile), tags)
        for entry in recorded
    )
