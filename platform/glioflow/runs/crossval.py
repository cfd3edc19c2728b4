"""Cross-validation by patient: folds spread over the cluster, every patient predicted by a model that never saw it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioflow import cluster
from glioflow.config import Experiment
from glioflow.data.prepared import PreparedCohort
from glioflow.data.splits import Split, deal
from glioflow.errors import UserError
from glioflow.evaluation import summarize
from glioflow.features import measure_mask
from glioflow.prediction import Predictor, measure_segmentation, numbers
from glioflow.runs.launch import Say, Setting, now, open_run, open_setting, quiet, run_folder
from glioflow.runs.plan import Plan, train_plan
from glioflow.tracking import BUNDLE, RunWriter, Tracking

OUT_OF_FOLD = "out_of_fold.json"


@dataclass(frozen=True)
class CrossValidated:
    """What a cross-validation ended with; `per_patient` is sorted by id."""

    run_id: str
    folds: int
    summary: dict[str, Any]
    per_patient: list[dict[str, Any]]


def crossval(
    experiment: Experiment,
    data: str | Path | None,
    *,
    folds: int | None = None,
    hold_out_test: bool = False,
    say: Say = quiet,
) -> CrossValidated:
    """Train one model per fold and measure every patient by the model that did not see it.

    Args:
        experiment: What is trained.
        data: Cohort, raw or prepared; None takes the experiment's.
        folds: How many; None takes `split.folds`.
        hold_out_test: Leave the split's test patients out of all folds.
        say: Told what happens.

    Raises:
        UserError: If anything given is wrong.
        RunFailed: If a fold failed.
    """
    setting = open_setting(experiment, data, say=say)
    number = folds or experiment.split.folds
    if number < 3:
        raise UserError("cross-validation needs 3 folds at least: one tests, one chooses, the others train", number)
    cases = [
        record
        for record in setting.cohort.records
        if record.areas_px is not None and not (hold_out_test and record.id in setting.split.test)
    ]
    parts = deal(cases, number, seed=experiment.split.seed)
    parent = open_run(setting, "crossval", f"{experiment.name}-{number}-fold", tags={"glioflow.folds": str(number)})
    say(f"{number} folds over {len(cases)} patients, run {parent}")
    try:
        plans = [_plan(setting, parent, k, fold_split(parts, k)) for k in range(number)]
        rows: list[dict[str, Any]] = []
        for k, answer in enumerate(cluster.map_parallel(run_fold, plans, num_cpus=experiment.training.cpus_per_worker)):
            rows.extend(answer)
            mean = sum(row["dice"] for row in answer) / max(1, len(answer))
            say(f"fold {k + 1} of {number}: mean Dice {mean:.3f} over {len(answer)} patients", (k + 1) / number)
    except BaseException as error:
        for run in setting.tracking.children(experiment.name, parent):
            if run.info.status == "RUNNING":
                setting.tracking.finish(run.info.run_id, "KILLED")
        setting.tracking.finish(parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    rows.sort(key=lambda row: str(row["id"]))
    summary = summarize(rows)
    setting.tracking.log_metrics(parent, numbers(summary, "oof"))
    setting.tracking.log_json(parent, OUT_OF_FOLD, rows)
    setting.tracking.finish(parent)
    return CrossValidated(parent, number, summary, rows)


def fold_split(parts: list[list[str]], fold: int) -> Split:
    """Return the split of one fold: its part tests, the next one validates (chooses), the others train."""
    val = (fold + 1) % len(parts)
    train = [case_id for k, part in enumerate(parts) if k not in (fold, val) for case_id in part]
    return Split(train=tuple(sorted(train)), val=tuple(parts[val]), test=tuple(parts[fold]))


def _plan(setting: Setting, parent: str, fold: int, split: Split) -> Plan:
    tags = {"glioflow.fold": str(fold)}
    part = Setting(setting.experiment, setting.cohort, split, setting.tracking)
    run_id = open_run(part, "fold", f"{setting.experiment.name}-fold-{fold}", parent=parent, tags=tags)
    setting.tracking.log_json(run_id, "split.json", split.model_dump(mode="json"))
    return Plan(
        experiment=setting.experiment,
        prepared=setting.cohort.path,
        split=split,
        run_id=run_id,
        tracking_uri=setting.tracking.uri,
        folder=run_folder(run_id),
        created=now(),
    )


def run_fold(plan: Plan) -> list[dict[str, Any]]:
    """Train one fold and measure its test patients: metrics and shape features of the out-of-fold masks."""
    cluster.silence()
    tracking = Tracking(plan.tracking_uri)
    writer = RunWriter(plan.tracking_uri, plan.run_id, plan.spool)

    def report(epoch: int, metrics: dict[str, float], write_checkpoint: Callable[[Path], None]) -> None:
        writer.write(metrics, step=epoch)

    status = "FAILED"
    try:
        metrics = train_plan(plan, report) or {}
        rows = _out_of_fold(plan)
        tracking.log_metrics(plan.run_id, {**metrics, **numbers(summarize(rows), "test")})
        tracking.log_folder(plan.run_id, plan.bundle, folder=BUNDLE)
        status = "FINISHED"
        return rows
    finally:
        writer.close()
        tracking.finish(plan.run_id, status)


def _out_of_fold(plan: Plan) -> list[dict[str, Any]]:
    predictor = Predictor.load(plan.bundle)
    rows = []
    for case in PreparedCohort(plan.prepared).cases(plan.split.test):
        segmentation = predictor.segment(case.image, case.record.moves)
        features = measure_mask(segmentation.labels > 0, spacing_mm=case.record.spacing_mm)
        measured = measure_segmentation(segmentation, case, predictor.description.target)
        rows.append({**measured, "features": features.volume})
    return rows
