"""Resuming an interrupted run, only with the experiment, cohort and split that it began with."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from glioflow.config import Experiment, load_recorded, with_augmentation
from glioflow.data.batches.policies import FIRST_RELEASE
from glioflow.data.splits import Split
from glioflow.errors import UserError, option
from glioflow.quantities import count
from glioflow.runs.launch import WEIGHTS, Setting, digests_of_weights
from glioflow.runs.source import Source, deal_early, entries_of, fingerprint_early
from glioflow.tracking import Tracking, flatten
from glioflow.tracking.trained import SPLIT, known_cases

# Tags with a cohort's file fingerprint; earlier versions recorded only its preparation.
_SOURCE, _PREPARED = "glioflow.cohort_source", "glioflow.cohort"
_SHOWN = 4
# Keys that change no result: words for people, and where the run is computed (`auto` depends on the cluster).
_FREE = ("description", "training.gpus_per_worker")


def resumed_experiment(
    experiment: Experiment, tracking: Tracking, run_id: str, *, besides: Collection[str] = (), hint: str | None = None
) -> Experiment:
    """Return the experiment that a run continues with: the current one, with the run's augmentation.

    Args:
        experiment: Current experiment.
        tracking: Tracking that has the run.
        run_id: The run.
        besides: Further keys that may differ.
        hint: Advice on what to do about a change.

    Raises:
        UserError: If another key changed since the run began; names it.
    """
    recorded = load_recorded(tracking.download(f"runs:/{run_id}/experiment.yaml"))
    began_with, given = (each.training.sampling.augmentation for each in (recorded, experiment))
    if began_with == FIRST_RELEASE.get(given):  # same name, with the first release's meaning
        experiment = with_augmentation(experiment, began_with)
    _refuse(_changed_keys(recorded, experiment, besides), run_id, hint)
    return experiment


def check_source(
    experiment: Experiment, source: Source, tracking: Tracking, run_id: str, *, hint: str | None = None
) -> None:
    """Refuse, before Ray starts, a cohort, weights file or split file that changed since a run began.

    Raises:
        UserError: Names what changed.
    """
    recorded = Split.model_validate(tracking.read_json(run_id, SPLIT))
    now = {_SOURCE: fingerprint_early(source, experiment.preprocess)}
    there, known = {entry.id for entry in entries_of(source)}, {*recorded.train, *recorded.val, *recorded.test}
    _refuse(_changed_cohort(now, there, tracking, run_id, recorded), run_id, hint)
    _refuse(_changed_weights(experiment, tracking, run_id), run_id, hint)
    split = deal_early(experiment, source)
    if any({*getattr(split, part)} & known != {*getattr(recorded, part)} for part in ("train", "val", "test")):
        _refuse(_changed_lists(experiment), run_id, hint)


def resumed_setting(
    setting: Setting, run_id: str, *, besides: Collection[str] = (), hint: str | None = None
) -> Setting:
    """Return the setting that a run continues with: the current one, with the split that the run recorded.

    Args:
        setting: Current setting.
        run_id: The run.
        besides: Further keys of the experiment that may differ.
        hint: Advice on what to do about a change.

    Raises:
        UserError: If something changed since the run began; names it.
    """
    tracking = setting.tracking
    # Checked first: for another experiment, differences of cohort and split mean nothing.
    experiment = resumed_experiment(setting.experiment, tracking, run_id, besides=besides, hint=hint)
    split, manifest = Split.model_validate(tracking.read_json(run_id, SPLIT)), setting.cohort.manifest
    now = {_SOURCE: manifest.source_fingerprint, _PREPARED: manifest.fingerprint}
    changed = _changed_cohort(now, {entry.id for entry in setting.cohort.entries()}, tracking, run_id, split)
    same = setting.split.digest == split.digest
    _refuse(changed or ([] if same else _changed_lists(setting.experiment)), run_id, hint)
    return replace(setting, experiment=experiment, split=split)


def _refuse(changed: Sequence[str], run_id: str, hint: str | None) -> None:
    if changed:
        hint = hint or f"undo the changes, or begin a new run without {option('resume')}"
        listed = "; ".join(changed[:_SHOWN]) + (f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")
        rule = f"{option('resume')} needs what run {run_id} began with, and this has changed: {listed}"
        raise UserError(rule, hint=hint)


def _changed_keys(before: Experiment, now: Experiment, besides: Collection[str]) -> list[str]:
    was, is_ = (flatten(each.resolved.model_dump(mode="json")) for each in (before, now))
    keys = sorted(
        key for key in was.keys() | is_.keys() if was.get(key) != is_.get(key) and key not in (*_FREE, *besides)
    )
    return [f"{key} is {json.dumps(is_.get(key))}, was {json.dumps(was.get(key))}" for key in keys]


def _changed_cohort(
    now: Mapping[str, str], there: set[str], tracking: Tracking, run_id: str, split: Split
) -> list[str]:
    """Return what changed in a cohort with fingerprints `now` and cases `there` since a run began."""
    tags, listed = tracking.run(run_id).data.tags, {*split.train, *split.val, *split.test}
    known = {*known_cases(tracking, run_id)} | listed
    tag = next((each for each in (_SOURCE, _PREPARED) if each in tags), None)
    if tag is not None and tag in now and tags[tag] != now[tag]:
        added, gone = sorted(there - known), sorted(known - there)
        both = ((added, "added"), (gone, "gone"))
        moves = [f"{count(len(ids), 'case')} {how} ({_some(ids)})" for ids, how in both if ids]
        return [f"the cohort: {', '.join(moves) or 'other files'}"]
    if missing := sorted(listed - there):
        return [f"the cohort: {count(len(missing), 'case')} gone ({_some(missing)})"]
    return []


def _changed_weights(experiment: Experiment, tracking: Tracking, run_id: str) -> list[str]:
    """Return a line for each weights file that changed; earlier versions recorded none."""
    before = json.loads(tracking.run(run_id).data.tags.get(WEIGHTS, "{}"))
    now = digests_of_weights(experiment, searched=True)
    return [f"the file of {key}" for key in sorted(before.keys() & now.keys()) if before[key] != now[key]]


def _changed_lists(experiment: Experiment) -> list[str]:
    """Return a line if the lists of a split file changed; computed splits are taken from the run."""
    return [f"the lists in {experiment.split.file}"] if experiment.split.method == "file" else []


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def check_folds(setting: Setting, finished: Mapping[int, str], splits: Mapping[int, Split]) -> None:
    """Refuse to combine folds that were split differently.

    Args:
        setting: Input of the cross-validation.
        finished: Run of each finished fold.
        splits: Current split of each fold.

    Raises:
        UserError: If a fold had other patients.
    """
    for number, run_id in finished.items():
        tags: dict[str, str] = setting.tracking.run(run_id).data.tags
        if tags.get("glioflow.split") != splits[number].digest:
            rule = (
                f"{option('resume')} needs the folds that the run began with, and fold {number + 1} is dealt otherwise"
            )
            raise UserError(rule, hint=f"begin a new cross-validation without {option('resume')}")
