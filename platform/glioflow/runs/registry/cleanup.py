"""What no run or version needs any more: found, named with its reason, removed. In doubt it stays."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioflow.cluster.storage import home, prepared_home
from glioflow.data.prepared.manifest import read_manifest
from glioflow.errors import UserError
from glioflow.tracking import BUNDLE, SPOOL, Tracking

# Younger ones may belong to a command that is at work.
_AGE_S = 3600.0


@dataclass(frozen=True)
class Removed:
    """One thing that was removed, or would be: where, how large, why."""

    path: str
    bytes: int
    why: str


def collect(*, keep: int = 3, dry_run: bool = False, age_s: float = _AGE_S) -> list[Removed]:
    """Remove what runs left behind. Registered versions and what a resumable run needs are never touched.

    Args:
        keep: Trials of each finished search whose bundles stay, the best by `val/dice_mean`; registered ones stay too.
        dry_run: Only say what would be removed.
        age_s: Prepared cohorts and half-made bundles younger than this stay.

    Returns:
        What was removed: working folders and checkpoints of runs that ended for good, Tune's files of finished
        searches, bundles of their worse trials, prepared cohorts that no run recorded, half-made bundles.
    """
    tracking = Tracking()
    runs = {run.info.run_id: run for run in tracking.every_run()}
    removed = []
    for path, why in [*_run_folders(tracking, runs), *_searches(runs), *_cohorts(runs, age_s), *_half_made(age_s)]:
        removed.append(Removed(str(path), _size(path), why))
        if not dry_run:
            shutil.rmtree(path, ignore_errors=True)
    return removed + _bundles(tracking, runs, keep, dry_run=dry_run)


def _needed(run: Any, runs: dict[str, Any]) -> bool:
    """Say whether a run may go on: it is at work, or it was interrupted and has a verb that resumes it."""
    status, tags = run.info.status, run.data.tags
    if status not in ("FAILED", "KILLED"):
        return bool(status != "FINISHED")
    if "glioflow.pruned" in tags or tags.get("glioflow.kind") == "reproduction":
        return False
    parent = runs.get(tags.get("mlflow.parentRunId", ""))
    return parent is None or bool(parent.info.status != "FINISHED")


def _run_folders(tracking: Tracking, runs: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Give working folders and Ray Train's checkpoints of runs that ended; those of runs of another store stay."""
    for parent in (home() / "runs", home() / "train"):
        for folder in _folders(parent):
            if not re.fullmatch("[0-9a-f]{32}", folder.name) or (folder / SPOOL).exists():
                continue  # the second: metrics that MLflow has not got yet
            run = runs.get(folder.name)
            if run is not None and not _needed(run, runs):
                yield folder, f"run {folder.name} is {run.info.status}, its bundle is in MLflow"
            elif run is None and _deleted(tracking, folder.name):
                yield folder, f"run {folder.name} was deleted"


def _deleted(tracking: Tracking, run_id: str) -> bool:
    try:
        return bool(tracking.run(run_id).info.lifecycle_stage == "deleted")
    except UserError:
        return False


def _searches(runs: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Give Tune's folder, checkpoints in it, of each finished search; Optuna's study stays."""
    status = {
        run.data.tags.get("search"): run.info.status
        for run in runs.values()
        if run.data.tags.get("glioflow.kind") == "search"
    }
    for folder in _folders(home() / "searches"):
        if status.get(folder.name) == "FINISHED" and (folder / "tune").is_dir():
            yield folder / "tune", f"search {folder.name} is finished"


def _cohorts(runs: dict[str, Any], age_s: float) -> Iterator[tuple[Path, str]]:
    used = {run.data.tags.get("glioflow.cohort") for run in runs.values()}
    for folder in _folders(prepared_home()):
        try:
            fingerprint = read_manifest(folder).fingerprint
        except UserError:
            continue  # half prepared, to be gone on with, or no cohort
        if fingerprint not in used and _old(folder / "manifest.json", age_s):
            yield folder, "no run recorded this prepared cohort"


def _half_made(age_s: float) -> Iterator[tuple[Path, str]]:
    for folder in _folders(home() / "making"):
        if _old(folder, age_s):
            yield folder, "a bundle that was never registered"


def _bundles(tracking: Tracking, runs: dict[str, Any], keep: int, *, dry_run: bool) -> list[Removed]:
    """Remove the bundles of finished searches' trials but the best ones, and but those that a version came from."""
    registered = {version.run_id for name in tracking.names() for version in tracking.versions(name)}
    finished = [
        run.info.run_id
        for run in runs.values()
        if run.data.tags.get("glioflow.kind") == "search" and run.info.status == "FINISHED"
    ]
    removed = []
    for parent in finished:
        trials = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent]
        trials.sort(key=_dice, reverse=True)
        for run in trials[keep:]:
            run_id = run.info.run_id
            if run_id in registered or run.info.status != "FINISHED" or not tracking.has_artifact(run_id, BUNDLE):
                continue
            size = tracking.artifact_size(run_id, BUNDLE)
            if not dry_run:
                tracking.delete_artifact(run_id, BUNDLE)
            place = f"{run.info.artifact_uri}/{BUNDLE}"
            removed.append(Removed(place, size, f"not among the best {keep} trials of its search"))
    return removed


def _dice(run: Any) -> float:
    return float(run.data.metrics.get("val/dice_mean", -1.0))


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _old(path: Path, age_s: float) -> bool:
    return time.time() - path.stat().st_mtime >= age_s


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
