"""Retraining of a champion with the corrections accepted since, followed by the gate."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from glioflow import atomic, audit, bundle, cluster
from glioflow.bundle.encoded_mask import legend_of
from glioflow.cluster.remote_home import check_home
from glioflow.cluster.storage import home, home_uri, prepared_home
from glioflow.config import Experiment
from glioflow.config.experiment import override_texts
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.prepared.joining import Addition, join_corrections
from glioflow.data.splits import check_split
from glioflow.errors import UserError, option
from glioflow.progress import Say, quiet
from glioflow.promotion import Verdict, promote
from glioflow.runs.crossval.run import crossval_in, number_of_folds
from glioflow.runs.launch import (
    Setting,
    check_batch,
    check_machine,
    check_weights,
    connect_for,
    opening_of,
)
from glioflow.runs.recorded import recorded_setting
from glioflow.runs.registry.register import register
from glioflow.runs.registry.reproduce import KINDS
from glioflow.runs.retrain.placement import KeyOf, Placement, UnusedCorrection, UsedCorrection, place_corrections
from glioflow.runs.retrain.recognition import Recognized, recognize
from glioflow.runs.train.run import send_rest, train_in
from glioflow.tracking import Tracking, Version
from glioflow.tracking.run import open_run, resume_run

# Artifact of a run: the corrections it was given, which identify a person by key only.
CORRECTIONS = "corrections.json"
RETRAINS = "glioflow.retrains"
# Folder of the home.
_STARTS = "starts"
# Metrics of a training, and of a cross-validation.
_REPORTED = ("val/", "test/", "oof/")
# Keys that decide which arrays exist and which patients validate and test.
_KEPT = ("preprocess", "target", "split")


@dataclass(frozen=True)
class AcceptedCorrections:
    """Corrections in the order of their acceptance, each with the cohort that reads it, and the function for keys."""

    cases: Sequence[tuple[Cohort, CaseFiles]]
    key_of: KeyOf


@dataclass(frozen=True)
class Retrained:
    """A training on corrections, its registered version, and the gate's decision.

    Attributes:
        run_id: Of the training, or of the cross-validation whose networks became an ensemble.
        networks: Number of networks trained: one, or the folds of an ensemble.
        metrics: Of the run.
        verdict: The gate's decision about the new version.
        used: The corrections that were used.
        unused: Those that were not, and why.
    """

    run_id: str
    networks: int
    metrics: dict[str, float | None]
    verdict: Verdict
    used: list[UsedCorrection]
    unused: list[UnusedCorrection]


def retrain(
    name: str,
    accepted: AcceptedCorrections,
    data: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    warm: bool = False,
    resume: str | None = None,
    say: Say = quiet,
) -> Retrained:
    """Train the champion's experiment on its cohort with corrections, register the result, and ask the gate.

    The result is made as the champion was: one network, or an ensemble with as many folds, dealt anew.

    Args:
        name: Name of the registered model.
        accepted: The corrections.
        data: Present folder of the champion's cohort; None takes the recorded one.
        overrides: `section.key=value` texts; they cannot change the cohort or its validation and test patients.
        warm: Whether to start from the champion's weights.
        resume: Id of a run of this function that was interrupted.
        say: Called with each line of progress.

    Raises:
        UserError: If there is no champion, its cohort is gone, or no correction is new to it.
        RunFailed: If the training failed.
    """
    check_home()
    tracking = Tracking()
    champion = tracking.version(name)
    if resume is None:
        run_id, placed = _begin(tracking, champion, accepted, data, overrides, warm, say)
    else:
        run_id, placed = _go_on(tracking, champion, resume, say)
    made = [version for version in tracking.versions(name) if version.run_id == run_id]
    stage = champion.tags.get("glioflow.survival_run")
    version = made[0] if made else register(run_id, name=name, survival=stage)
    say(f"registered {name} version {version.version}")
    networks = len(bundle.read_description(tracking.bundle_of(version)).folds) or 1
    metrics = {k: v for k, v in tracking.run(run_id).data.metrics.items() if k.startswith(_REPORTED)}
    verdict = promote(name, version=version.version, home=prepared_home())
    return Retrained(run_id, networks, metrics, verdict, placed.used, placed.unused)


def _begin(
    tracking: Tracking,
    champion: Version,
    accepted: AcceptedCorrections,
    data: str | Path | None,
    overrides: Sequence[str],
    warm: bool,
    say: Say,
) -> tuple[str, Placement]:
    if home_uri() is not None:
        raise UserError("retrain needs a GLIOFLOW_HOME that is a folder", hint="corrections are kept only there")
    if not accepted.cases:
        raise UserError("no correction was accepted", hint="accept one with `glioflow feedback accept ID`")
    run = _champions_run(tracking, champion, warm=warm)
    recorded = recorded_setting(tracking, run, data)
    folds = _folds_of(tracking, run, recorded.experiment)
    folder = tracking.bundle_of(champion)
    names = legend_of(bundle.read_description(folder)).names
    start = _kept_weights(folder) if warm else None
    if start is not None or _began_warm(run, recorded.experiment):
        overrides = [f"training.start={json.dumps(start and str(start))}", *overrides]
    experiment = _checked(recorded.experiment, overrides, len(recorded.cohort.channels))
    recognized = recognize(accepted.cases, recorded.cohort, names=names, home=prepared_home())
    setting = replace(recorded, experiment=experiment)
    placed = _placed(setting, recognized, accepted.key_of, say, val_learns=bool(folds) or experiment.training.final)
    if not placed.used:
        rule = f"no accepted correction is new to {champion.name} version {champion.version}"
        raise UserError(rule, "; ".join(f"{each.id}: {each.why}" for each in placed.unused[:3]))
    setting = _joined(setting, recognized, placed)
    if folds:
        say(f"the champion is an ensemble of {folds} folds: {folds} networks are trained, and become an ensemble again")
    say(f"{len(placed.used)} corrected studies train: {', '.join(each.case for each in placed.used)}")
    setting = replace(setting, experiment=connect_for(experiment, tracking))
    if cluster.is_elsewhere():
        check_weights(setting.experiment.resolved, len(setting.cohort.channels))
    return _train_anew(setting, placed, champion, folds, say), placed


def _champions_run(tracking: Tracking, champion: Version, *, warm: bool) -> Any:
    """Return the champion's MLflow run; raises `UserError` unless it is a training that `warm` allows."""
    run = tracking.run(champion.run_id)
    if (kind := run.data.tags.get("glioflow.kind")) not in (*KINDS, "reproduction", "crossval"):
        hint = "register and promote a run of `glioflow train` under this name"
        raise UserError("only a champion from a training can be retrained", kind, hint=hint)
    if kind == "crossval" and warm:
        rule = f"{option('warm')} needs a champion of one network"
        raise UserError(rule, "an ensemble of folds", hint=f"leave {option('warm')} out")
    return run


def _folds_of(tracking: Tracking, run: Any, experiment: Experiment) -> int:
    """Return the number of folds of a cross-validation's run; 0 for a training of one network."""
    is_ensemble = run.data.tags.get("glioflow.kind") == "crossval"
    return number_of_folds(experiment, None, tracking, run.info.run_id) if is_ensemble else 0


def _placed(setting: Setting, recognized: Recognized, key_of: KeyOf, say: Say, *, val_learns: bool) -> Placement:
    """Return the corrections' places in the split, and say which are not used and why."""
    placed = place_corrections(
        recognized.corrections,
        setting.cohort.entries(),
        setting.split,
        learned=("train", "val") if val_learns else ("train",),
        key_of=key_of,
    )
    placed = replace(placed, unused=[*recognized.unused, *placed.unused])
    for unused in placed.unused:
        say(f"{unused.id} is not used: {unused.why}")
    return placed


def _train_anew(setting: Setting, placed: Placement, champion: Version, folds: int, say: Say) -> str:
    """Train one network, or one for each fold; return the run's id."""
    tags = {RETRAINS: champion.run_id}
    texts = {CORRECTIONS: json.dumps([asdict(each) for each in placed.used], indent=1)}
    if folds:
        return crossval_in(setting, folds, hold_out_test=True, tags=tags, texts=texts, say=say).run_id
    opening = opening_of(setting, "train", setting.experiment.name, tags=tags)
    run = open_run(setting.tracking, replace(opening, texts={**opening.texts, **texts}))
    return train_in(setting, run, say).run_id


def _go_on(tracking: Tracking, champion: Version, run_id: str, say: Say) -> tuple[str, Placement]:
    """Continue an interrupted training, unless it is complete."""
    run = tracking.run(run_id)
    if run.data.tags.get(RETRAINS) != champion.run_id:
        rule = f"{option('resume')} must be the id of a run that retrains version {champion.version} of {champion.name}"
        raise UserError(rule, run_id, hint=f"begin a new one without {option('resume')}")
    setting = recorded_setting(tracking, run, None)
    placed = Placement([UsedCorrection(**each) for each in tracking.read_json(run_id, CORRECTIONS)], [], setting.split)
    if send_rest(tracking, run_id) is not None or run.info.status == "FINISHED":
        return run_id, placed
    setting = replace(setting, experiment=connect_for(setting.experiment, tracking))
    if folds := _folds_of(tracking, run, setting.experiment):
        crossval_in(setting, folds, hold_out_test=True, resume=run_id, say=say)
    else:
        train_in(setting, resume_run(tracking, run_id), say)
    return run_id, placed


def _began_warm(run: Any, experiment: Experiment) -> bool:
    """Return whether a retraining started from its champion's weights; later ones do so only on request."""
    start = experiment.training.start
    return RETRAINS in run.data.tags and start is not None and Path(start).parent.name == _STARTS


def _kept_weights(folder: Path) -> Path:
    """Copy a bundle's weights to where every node of the home finds them, and return the file."""
    weights = folder / bundle.WEIGHTS
    kept = home() / _STARTS / f"{bundle.read_description(folder).files[bundle.WEIGHTS]}.safetensors"
    if not kept.exists():
        atomic.write_bytes(kept, weights.read_bytes())
    return kept


def _checked(experiment: Experiment, overrides: Sequence[str], channels: int) -> Experiment:
    """Return the experiment with overrides; raises `UserError` if they or this machine do not allow a training."""
    changed = override_texts(experiment, overrides) if overrides else experiment
    for section in _KEPT:
        if getattr(changed, section) != getattr(experiment, section):
            rule = f"a retraining must keep {section} as the champion's training had it"
            raise UserError(rule, hint="train another experiment with `glioflow train` to change it")
    changed.loss.check(changed.target.task, changed.target.num_outputs)
    check_batch(changed.training, changed.training.batch_size)
    check_machine(changed)
    check_weights(changed.resolved, channels)
    return changed


def _joined(setting: Setting, recognized: Recognized, placed: Placement) -> Setting:
    """Return the setting with the corrected studies in it.

    Raises:
        UserError: If a new one has images of somebody in another part of the split, changed or under another name.
    """
    additions = [
        Addition(recognized.cases[each.id], each.digest, each.patient, each.case if each.replaces_mask else None)
        for each in placed.used
    ]
    cohort, split = join_corrections(setting.cohort, additions, home=prepared_home()), placed.split
    check_split(split, cohort.entries())
    new = {each.case for each in placed.used if not each.replaces_mask}
    learned = [case_id for case_id in (*split.train, *split.val) if case_id in new]
    for leak in audit.find_image_leaks(split, cohort.cases([*split.train, *split.val, *split.test])) if learned else ():
        if any(case_id in leak.value for case_id in learned):
            raise UserError(leak.rule, leak.value, hint="take that correction out of feedback/accepted")
    return replace(setting, cohort=cohort, split=split)
