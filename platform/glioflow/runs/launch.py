"""What every kind of run begins with: the cohort found or prepared, the split dealt, its record in MLflow opened."""

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from glioflow import audit, cluster
from glioflow.cluster.storage import data_folder, home, prepared_home
from glioflow.config import Experiment, data_source
from glioflow.data.prepared.cohort import PreparedCohort, find_or_prepare
from glioflow.data.prepared.remote import local_folder
from glioflow.data.preprocessing.pipeline import Step
from glioflow.data.splits import Split, make_split
from glioflow.errors import UserError
from glioflow.progress import Say, quiet
from glioflow.promotion.record import who
from glioflow.runs.lineage import ENVIRONMENT, environment, source_state
from glioflow.tracking import Tracking
from glioflow.version import __version__


@dataclass(frozen=True)
class Setting:
    """What a run works on."""

    experiment: Experiment
    cohort: PreparedCohort
    split: Split
    tracking: Tracking


def open_setting(experiment: Experiment, data: str | Path | None, *, say: Say = quiet) -> Setting:
    """Find or prepare the cohort, deal the split, refuse leaks, open MLflow; on a cluster check what it needs first.

    Raises:
        UserError: As those do; on several nodes also where MLflow is no server.
    """
    source = data_source(data, experiment.data.source)
    cluster.connect()
    tracking = Tracking()
    if cluster.resources()["nodes"] > 1 and not tracking.uri.startswith("http"):
        raise UserError("on more than one node MLFLOW_TRACKING_URI must name a server (http://...)", tracking.uri)
    check_resources(experiment)
    say(f"cohort {source}")
    cohort = open_cohort_for(experiment.preprocess, source)
    split = make_split(cohort.records, experiment.split, folder=data_folder())
    leaks = audit.find_split_leaks(split, cohort.records)
    if leaks:
        raise UserError(leaks[0].rule, leaks[0].value)
    say(
        f"prepared {len(cohort.records)} patients, {cohort.num_slices} slices; "
        f"train {len(split.train)}, val {len(split.val)}, test {len(split.test)}"
    )
    return Setting(experiment, cohort, split, tracking)


def open_cohort_for(steps: Sequence[Step], source: str | Path) -> PreparedCohort:
    """Open a cohort as `steps` make it: prepared before, behind a URI, or raw and prepared now.

    Raises:
        UserError: As the readers do, or if a prepared cohort was made with other steps.
    """
    place = prepared_home()
    return find_or_prepare(local_folder(source, place), steps, home=place, map_cases=cluster.map_parallel)


def check_resources(experiment: Experiment) -> None:
    """Refuse at once what the cluster can never hold.

    Raises:
        UserError: With the numbers.
    """
    training, have = experiment.training, cluster.resources()
    for name, each in (("CPU", training.cpus_per_worker), ("GPU", training.gpus_per_worker)):
        need = each * training.min_workers
        if need > have[name]:
            raise UserError(
                f"training needs {need:g} {name}s ({training.min_workers} workers of {each:g}); lower "
                f"training.{name.lower()}s_per_worker or training.num_workers",
                f"a cluster of {have[name]:g}",
            )
    if have.get("nodes", 1) == 1:
        return
    fit = cluster.slots(cpus=training.cpus_per_worker, gpus=training.gpus_per_worker)
    if fit < training.min_workers:  # three CPUs on each of two nodes are no four for one worker
        raise UserError(
            f"{training.min_workers} workers of {training.cpus_per_worker:g} CPUs and {training.gpus_per_worker:g} "
            "GPUs must fit on the cluster, each on one node",
            f"{fit} that fit on {have['nodes']:g} nodes of {have['CPU']:g} CPUs and {have['GPU']:g} GPUs in all",
        )


def open_run(setting: Setting, kind: str, name: str, *, parent: str | None = None, tags: Mapping[str, str] = {}) -> str:
    """Start an MLflow run with its whole lineage and return its id.

    Args:
        setting: What it works on.
        kind: `train`, `search`, `trial`, `crossval`, `fold`, ...
        name: Shown in MLflow, whose table has room for a dozen letters of a child's name.
        parent: Run id of the search or cross-validation it belongs to.
        tags: Further ones.
    """
    tracking, experiment, manifest = setting.tracking, setting.experiment, setting.cohort.manifest
    lineage = {
        "glioflow.kind": kind,
        "glioflow.version": __version__,
        "glioflow.cohort": manifest.fingerprint,
        "glioflow.cohort_source": manifest.source_fingerprint,
        "glioflow.split": setting.split.digest,
        "glioflow.test": setting.split.test_digest,
        "python": platform.python_version(),
        "mlflow.user": who(),
    }
    if parent is None:  # a trial's process is Ray's and knows Ray's words only
        lineage["command"] = " ".join(sys.argv[1:])[:500]
        lineage |= {"mlflow.source.name": kind, "mlflow.source.type": "LOCAL"}
    state = source_state()
    run_id = tracking.start(experiment.name, name, tags={**lineage, **state.tags, **tags}, parent=parent)
    tracking.log_params(run_id, experiment.resolved.model_dump(mode="json", exclude={"search", "gate", "description"}))
    _log_inputs(setting, run_id)
    if parent is None:
        tracking.log_text(run_id, ENVIRONMENT, environment())
        if state.diff:
            tracking.log_text(run_id, "uncommitted.diff", state.diff)
    return run_id


def _log_inputs(setting: Setting, run_id: str) -> None:
    """Log what the run begins with, whole: it is all that `reproduce` has."""
    tracking, split, cohort = setting.tracking, setting.split, setting.cohort
    manifest = cohort.manifest
    tracking.log_text(run_id, "experiment.yaml", to_yaml(setting.experiment))
    tracking.log_json(run_id, "split.json", split.model_dump(mode="json"))
    tracking.log_json(run_id, "cohort.json", {"path": str(cohort.path), "fingerprint": manifest.fingerprint})
    tracking.log_dataset(
        run_id,
        name=manifest.source,
        digest=manifest.fingerprint,
        source=str(cohort.path),
        used_for="training",
        profile={
            **{"format": manifest.format, "cases": len(cohort.records), "slices": cohort.num_slices},
            **{part: len(getattr(split, part)) for part in ("train", "val", "test")},
            **{"sources": manifest.source_fingerprint, "split": split.digest, "test_patients": split.test_digest},
        },
    )


def to_yaml(experiment: Experiment) -> str:
    """Return the experiment whole, defaults too, as a file that reads back as the same."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def run_folder(run_id: str) -> Path:
    """Return the folder of a run's working files under the home."""
    return home() / "runs" / run_id


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
