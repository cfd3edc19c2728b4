"""Find and remove files that no run or version needs, with the reason; in doubt, keep them."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glioflow.cluster.lease import holder_of
from glioflow.cluster.remote_home import address_of, changed_at, fetch, list_folders, remove, size_of
from glioflow.cluster.storage import home, home_uri, prepared_home
from glioflow.data.prepared.index import Index
from glioflow.errors import UserError
from glioflow.progress import Say, quiet
from glioflow.quantities import count
from glioflow.runs.search.prepared_variants import VARIANTS
from glioflow.runs.search.report import PARETO_FRONT
from glioflow.runs.search.run import FOLDS
from glioflow.runs.search.tuner import SearchFolder
from glioflow.tracking import BUNDLE, Tracking
from glioflow.tracking.cohort_uses import forget_uses, noted, used_elsewhere, used_since
from glioflow.tracking.lease import is_of_another_home
from glioflow.tracking.logged_models import delete_model
from glioflow.tracking.run import close_expired
from glioflow.tracking.spool import run_folder, spools_of

# Younger ones may belong to a running command.
_AGE_S = 3600.0
# Tag of a trial whose bundle this command removed from MLflow.
TRIMMED = "glioflow.trimmed"
_WITH_BUNDLE = ("train", "trial", "fold", "reproduction")

Runs = dict[str, Any]


@dataclass(frozen=True)
class Removed:
    """One removed (or removable) item: path, size and reason."""

    path: str
    bytes: int
    why: str


@dataclass(frozen=True)
class _Waste:
    """An item to remove, and how to remove it."""

    item: Removed
    remove: Callable[[], None]


def collect(*, keep: int = 3, dry_run: bool = False, age_s: float = _AGE_S, say: Say = quiet) -> list[Removed]:
    """Remove files that this home's runs left behind, and close its runs whose process ended without closing them.

    Kept: registered versions, files of resumable runs, the last copy of a bundle, and what others made or use.

    Args:
        keep: Trials of each finished search whose bundles stay, the best by `val/dice_mean`; registered ones and those
            of a Pareto front stay too.
        dry_run: Only list what would be removed.
        age_s: Prepared cohorts and half-made bundles younger than this stay.
        say: Called with what is kept although it looks unneeded, and with the total before anything is removed.

    Returns:
        The removed items: working folders and checkpoints of runs that ended for good, Tune's files of finished
        searches, bundles of their worse trials, prepared cohorts that no run recorded, half-made bundles.

    """
    tracking = Tracking()
    if not dry_run:
        close_expired(tracking, [r for r in tracking.every_run() if tracking.embedded or not is_of_another_home(r)])
    runs: Runs = {run.info.run_id: run for run in tracking.every_run()}
    searches = _own_searches(tracking, runs)
    folders = [*_run_folders(tracking, runs, say), *_tune_folders(searches), *_half_made(age_s)]
    folders += _cohorts(tracking, runs, age_s, say)
    waste = [_Waste(Removed(address_of(path), size_of(path), why), partial(remove, path)) for path, why in folders]
    waste += _bundles(tracking, runs, searches, keep, say)
    if waste:
        items = f"{count(len(waste), 'item')} of {sum(w.item.bytes for w in waste) / 1e6:.1f} MB"
        say(f"{items} {'would be' if dry_run else 'is' if len(waste) == 1 else 'are'} removed")
    if not dry_run:
        for each in waste:
            each.remove()
    return [each.item for each in waste]


def _own_searches(tracking: Tracking, runs: Runs) -> list[Any]:
    """Return the runs of this home's searches: those it recorded, and in its own store all with files here.

    Earlier versions recorded none. In a shared store, another user may have a search of the same name.
    """
    noted_here = {SearchFolder(folder.name, folder).run_id for folder in list_folders(home() / "searches")}
    here = (home() / "artifacts").as_uri()
    return [
        run
        for run in runs.values()
        if run.data.tags.get("glioflow.kind") == "search"
        and (run.info.run_id in noted_here or (tracking.embedded and run.info.artifact_uri.startswith(here)))
    ]


def _needed(run: Any, runs: Runs) -> bool:
    """Return whether a run may continue: it is running, or was interrupted and a command can resume it."""
    status, tags = run.info.status, run.data.tags
    if status not in ("FAILED", "KILLED"):
        return bool(status != "FINISHED")
    if "glioflow.pruned" in tags or tags.get("glioflow.kind") == "reproduction":
        return False
    parent = runs.get(tags.get("mlflow.parentRunId", ""))
    return parent is None or bool(parent.info.status != "FINISHED")


def _run_folders(tracking: Tracking, runs: Runs, say: Say) -> Iterator[tuple[Path, str]]:
    """Yield working folders and Ray Train's checkpoints of ended runs; keep those of runs in another store."""
    for run_id, folders in _by_run().items():
        if spools_of(run_id):
            continue  # metrics that MLflow does not have yet
        run = runs.get(run_id)
        if run is None and _deleted(tracking, run_id):
            why = f"run {run_id} was deleted"
        elif run is None or _needed(run, runs):
            continue
        elif _is_last_copy(tracking, run, runs):
            say(f"the files of run {run_id} stay: its bundle is not in MLflow, or not whole")
            continue
        else:
            why = f"run {run_id} is {run.info.status}"
        yield from ((folder, why) for folder in folders)


def _by_run() -> dict[str, list[Path]]:
    """Return this home's folders that belong to a single run, by run id."""
    folders_by_run: dict[str, list[Path]] = {}
    for folder in [*list_folders(home() / "runs"), *list_folders(home() / "train")]:
        if re.fullmatch("[0-9a-f]{32}", folder.name):
            folders_by_run.setdefault(folder.name, []).append(folder)
    return folders_by_run


def _is_last_copy(tracking: Tracking, run: Any, runs: Runs) -> bool:
    """Return whether a run's folders may hold a bundle or weights that MLflow lacks."""
    tags, run_id = run.data.tags, run.info.run_id
    copy = run_folder(run_id) / BUNDLE
    fetch(copy)
    parent = runs.get(tags.get("mlflow.parentRunId", ""))
    on_folds = tags.get("glioflow.kind") == "trial" and parent is not None and parent.data.tags.get(FOLDS)
    logged = run.info.status == "FINISHED" and tags.get("glioflow.kind") in _WITH_BUNDLE and not on_folds
    if TRIMMED in tags or not (logged or copy.is_dir()):
        return False
    return not tracking.has_whole_bundle(run_id, copy)


def _deleted(tracking: Tracking, run_id: str) -> bool:
    try:
        return bool(tracking.run(run_id).info.lifecycle_stage == "deleted")
    except UserError:
        return False


def _tune_folders(searches: Iterable[Any]) -> Iterator[tuple[Path, str]]:
    """Yield Tune's files of searches that are not running; keep those a population needs, and Optuna's study."""
    by_id = {run.info.run_id: run for run in searches}
    by_name = {run.data.tags.get("search"): run for run in sorted(by_id.values(), key=lambda run: run.info.start_time)}
    for folder in list_folders(home() / "searches"):
        run_id = SearchFolder(folder.name, folder).run_id
        run = by_id.get(run_id) if run_id else by_name.get(folder.name)
        of_tune = [path for path in list_folders(folder) if path.name == "tune" or path.name.startswith("tune-")]
        if run is not None and run.info.status == "FINISHED" and folder / "tune" in of_tune:
            yield folder / "tune", f"search {folder.name} is finished"
        if holder_of(folder) is None:
            yield from ((path, f"nobody runs search {folder.name}") for path in of_tune if path.name != "tune")


def _cohorts(tracking: Tracking, runs: Runs, age_s: float, say: Say) -> Iterator[tuple[Path, str]]:
    """Yield prepared cohorts that no run in any store recorded."""
    used = {run.data.tags.get("glioflow.cohort") for run in runs.values()} | used_since(tracking.uri, age_s)
    used |= {each for run in runs.values() for each in run.data.tags.get(VARIANTS, "").split()}
    forget_uses(tracking.uri, noted(tracking.uri) - used)
    elsewhere = used_elsewhere(tracking.uri)
    # Earlier versions recorded nothing, but left folders of runs that this store does not have.
    strangers = [run_id for run_id in _by_run() if run_id not in runs and not _deleted(tracking, run_id)]
    for folder in list_folders(prepared_home()):
        try:
            fingerprint = Index(folder).manifest.fingerprint if home_uri() is None else folder.name
            young = time.time() - changed_at(folder / "manifest.json") < age_s
        except (UserError, FileNotFoundError):
            continue  # partly prepared and resumable, or not a cohort
        if fingerprint in used or young:
            continue
        if fingerprint in elsewhere or strangers:
            say(f"the prepared cohort {folder} stays: runs of another store may use it")
            continue
        yield folder, "no run recorded this prepared cohort"


def _half_made(age_s: float) -> Iterator[tuple[Path, str]]:
    for folder in list_folders(home() / "making"):
        if time.time() - folder.stat().st_mtime >= age_s:
            yield folder, "a bundle that was never registered"


def _bundles(tracking: Tracking, runs: Runs, searches: Iterable[Any], keep: int, say: Say) -> Iterator[_Waste]:
    """Yield bundles of finished searches' trials, except the best, those of Pareto fronts, and registered ones."""
    registered = tracking.registered_runs()
    trials_of: dict[str, list[Any]] = {}
    for run in runs.values():
        if run.data.tags.get("glioflow.kind") == "trial":  # somebody may log a run of their own below a search
            trials_of.setdefault(run.data.tags.get("mlflow.parentRunId", ""), []).append(run)
    for search in searches:
        if search.info.status != "FINISHED":
            continue
        trials = trials_of.get(search.info.run_id, [])
        try:
            kept = registered | _front(tracking, search.info.run_id)
            worse = sorted(trials, key=_dice, reverse=True)[keep:]
            yield from [_bundle(tracking, run, keep) for run in worse if _has_spare_bundle(tracking, run, kept)]
        except Exception as error:  # any error of an unreachable artifact store, or one whose library is missing
            say(f"the bundles of search {search.info.run_name} stay, since they cannot be listed: {error}")


def _has_spare_bundle(tracking: Tracking, run: Any, kept: Collection[str]) -> bool:
    run_id = run.info.run_id
    return run_id not in kept and run.info.status == "FINISHED" and tracking.has_artifact(run_id, BUNDLE)


def _bundle(tracking: Tracking, run: Any, keep: int) -> _Waste:
    run_id, why = run.info.run_id, f"not among the best {keep} trials of its search"
    item = Removed(f"{run.info.artifact_uri}/{BUNDLE}", tracking.artifact_size(run_id, BUNDLE), why)
    return _Waste(item, partial(_trim, tracking, run_id))


def _front(tracking: Tracking, search_id: str) -> set[str]:
    """Return the runs on the Pareto front of a search; empty if it had one objective."""
    if not tracking.has_artifact(search_id, PARETO_FRONT):
        return set()
    return {str(finalist["run_id"]) for finalist in tracking.read_json(search_id, PARETO_FRONT)}


def _trim(tracking: Tracking, run_id: str) -> None:
    tracking.set_tags(run_id, {TRIMMED: "true"})
    delete_model(tracking, run_id)
    tracking.delete_artifact(run_id, BUNDLE)


def _dice(run: Any) -> float:
    return float(run.data.metrics.get("val/dice_mean", -1.0))
