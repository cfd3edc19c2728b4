"""Cross-validation by patient: folds spread over the cluster, every patient predicted by a model that never saw it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from glioflow import cluster
from glioflow.bundle.prediction import Predictor
from glioflow.config import Experiment, load_experiment
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.splits import Split, deal
from glioflow.errors import UserError
from glioflow.evaluation import VolumeInterval, fit_volume_interval, flatten_summary
from glioflow.progress import Say, quiet
from glioflow.reports.evaluation_page import evaluation_page
from glioflow.reports.page import Drawing
from glioflow.runs.case_pictures import draw_case, pick_cases
from glioflow.runs.crossval.out_of_fold import OUT_OF_FOLD
from glioflow.runs.launch import Setting, now, open_run, open_setting, run_folder
from glioflow.runs.plan import TRAINED, Plan, train_plan
from glioflow.runs.progress import ProgressFile, shown
from glioflow.runs.scoring import Judged, judge
from glioflow.tracking import BUNDLE, PATIENCE_S, SPOOL, RunWriter, Tracking

VOLUME_INTERVAL = "volume_interval.json"
# Of a fold's run: written before it counts as finished, read where a cross-validation goes on.
JUDGED = "judged.json"


@dataclass(frozen=True)
class CrossValidated:
    """What a cross-validation ended with; `per_patient` is sorted by id, `summary` is what evaluations answer.

    Besides, `summary` has `per_fold` (run, cases, mean and median Dice of each) and `report`, where that lies.
    """

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
    resume: str | None = None,
    say: Say = quiet,
) -> CrossValidated:
    """Train one model per fold and measure every patient by the model that did not see it.

    Args:
        experiment: What is trained.
        data: Cohort, raw or prepared; None takes the experiment's.
        folds: How many; None takes `split.folds`, or what the resumed run has.
        hold_out_test: Leave the split's test patients out of all folds.
        resume: Id of a cross-validation that was interrupted; its finished folds are not repeated.
        say: Told what happens.

    Raises:
        UserError: If anything given is wrong.
        RunFailed: If a fold failed; the others' results stay for `resume`.
    """
    setting = open_setting(experiment, data, say=say)
    number = folds or _recorded_folds(setting, resume) or experiment.split.folds
    if number < 3:
        raise UserError("cross-validation needs 3 folds at least: one tests, one chooses, the others train", number)
    cases = [
        record
        for record in setting.cohort.records
        if record.areas_px is not None and not (hold_out_test and record.id in setting.split.test)
    ]
    parts = deal(cases, number, seed=experiment.split.seed)
    tags = {"glioflow.folds": str(number), "glioflow.held_out": str(hold_out_test).lower()}
    done = _reopen(setting, resume, tags) if resume else {}
    parent = resume or open_run(setting, "crossval", f"{experiment.name}-{number}-fold", tags=tags)
    said = f", {len(done)} folds done before" if resume else ""
    say(f"{number} folds over {len(cases)} patients, run {parent}{said}")
    try:
        runs, judged = _run_folds(setting, parent, parts, done, say)
        answer = _conclude(setting, parent, runs, judged)
    except BaseException as error:
        for run in setting.tracking.children(experiment.name, parent):
            if run.info.status == "RUNNING":
                setting.tracking.finish(run.info.run_id, "KILLED")
        setting.tracking.finish(parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        say(f"go on with --resume {parent}")
        raise
    rows = answer.pop("per_patient")
    return CrossValidated(parent, number, answer, rows)


def fold_split(parts: list[list[str]], fold: int) -> Split:
    """Return the split of one fold: its part tests, the next one validates (chooses), the others train."""
    val = (fold + 1) % len(parts)
    train = [case_id for k, part in enumerate(parts) if k not in (fold, val) for case_id in part]
    return Split(train=tuple(sorted(train)), val=tuple(parts[val]), test=tuple(parts[fold]))


def fit_interval(rows: Sequence[Mapping[str, Any]], *, held_out: str = "") -> VolumeInterval | None:
    """Fit the conformal interval of the tumor volume on out-of-fold rows with their `fold`.

    Args:
        rows: Of every patient.
        held_out: Digest of the test patients that are not among them.

    Returns:
        The interval; None where the rows do not share a unit.
    """
    for unit in ("mm3", "px"):
        predicted, true = ([row.get(f"volume_{kind}_{unit}") for row in rows] for kind in ("prediction", "reference"))
        if rows and None not in predicted:
            folds = [int(row["fold"]) for row in rows]
            return fit_volume_interval(predicted, true, folds, unit=unit, held_out=held_out)  # type: ignore[arg-type]
    return None


def _run_folds(
    setting: Setting, parent: str, parts: list[list[str]], done: Mapping[int, str], say: Say
) -> tuple[dict[int, str], dict[int, Judged]]:
    """Return run and judgement of every fold; those in `done` are read, not run."""
    judged = {k: Judged.model_validate(setting.tracking.read_json(run, JUDGED)) for k, run in done.items()}
    waiting = [k for k in range(len(parts)) if k not in done]
    plans = {k: _plan(setting, parent, k, fold_split(parts, k)) for k in waiting}
    cpus = setting.experiment.training.cpus_per_worker
    with shown({f"fold {k + 1}": plan.progress for k, plan in plans.items()}, say):
        for k, answer in zip(waiting, cluster.map_parallel(run_fold, plans.values(), num_cpus=cpus), strict=True):
            judged[k] = answer
            mean = sum(row["dice"] for row in answer.rows) / max(1, len(answer.rows))
            say(f"fold {k + 1} of {len(parts)}: mean Dice {mean:.3f} over {len(answer.rows)} patients")
    return {**done, **{k: plan.run_id for k, plan in plans.items()}}, judged


def _conclude(setting: Setting, parent: str, runs: Mapping[int, str], judged: Mapping[int, Judged]) -> dict[str, Any]:
    """Put the folds together, log all of it with the report, and return the answer."""
    tracking, cohort_format = setting.tracking, setting.cohort.manifest.format
    folds = {row["id"]: k for k, part in judged.items() for row in part.rows}
    total = reduce(add, (judged[k] for k in sorted(judged)))
    total = total.model_copy(update={"rows": tuple(sorted(total.rows, key=lambda row: str(row["id"])))})
    answer = total.answer(cohort_format)
    writer = RunWriter(tracking.uri, parent, run_folder(parent) / SPOOL)
    writer.log_metrics(flatten_summary({k: v for k, v in answer.items() if k != "per_patient"}, "oof"))
    for row in answer["per_patient"]:
        row["fold"] = folds[row["id"]]
    answer["per_fold"] = [_fold(k, runs[k], judged[k]) for k in sorted(judged)]
    writer.log_json(OUT_OF_FOLD, [{**row, "fold": folds[row["id"]]} for row in total.rows])
    held_out = setting.split.test_digest if setting.split.test and not folds.keys() & set(setting.split.test) else ""
    if (interval := fit_interval(answer["per_patient"], held_out=held_out)) is not None:
        writer.log_json(VOLUME_INTERVAL, interval.model_dump(mode="json"))
        answer["volume_interval"] = interval.described()
    jobs = [
        _Picture(tracking.uri, runs[folds[row["id"]]], setting.cohort.path, row["id"], row["dice"], name)
        for name, row in pick_cases(answer["per_patient"]).items()
    ]
    cases = [drawing for drawings in cluster.map_parallel(_draw, jobs) for drawing in drawings]
    name, about = setting.experiment.name, f"{len(folds)} patients, each predicted by a model that never saw it"
    page = evaluation_page(answer, title=f"{len(judged)}-fold cross-validation of {name}", about=about, cases=cases)
    writer.log_bytes("report/index.html", page.encode())
    for drawing in cases:
        writer.log_bytes(f"report/{drawing.name}.png", drawing.png)
    writer.finish()
    writer.close(patience_s=PATIENCE_S)
    return answer | {"report": f"runs:/{parent}/report/index.html"}


def _fold(number: int, run_id: str, judged: Judged) -> dict[str, Any]:
    dice = [row["dice"] for row in judged.rows]
    said = {"dice_mean": float(np.mean(dice)), "dice_median": float(np.median(dice))}
    return {"fold": number, "run_id": run_id, "num_cases": len(dice), **said}


@dataclass(frozen=True)
class _Picture:
    tracking_uri: str
    fold_run: str
    prepared: Path
    case_id: str
    dice: float
    name: str


def _draw(job: _Picture) -> list[Drawing]:
    cluster.silence()
    tracking = Tracking(job.tracking_uri)
    predictor = Predictor.load(tracking.find_bundle(job.fold_run)[0])
    title = f"{job.name}: {job.case_id}, Dice {job.dice:.3f}"
    return draw_case(predictor, PreparedCohort(job.prepared).case(job.case_id), title=title, name=job.name)


def _recorded_folds(setting: Setting, run_id: str | None) -> int | None:
    recorded = setting.tracking.run(run_id).data.tags.get("glioflow.folds") if run_id else None
    return int(recorded) if recorded else None


def _reopen(setting: Setting, run_id: str, tags: Mapping[str, str]) -> dict[int, str]:
    """Mark a cross-validation as running again; returns the run of each fold that is finished."""
    tracking = setting.tracking
    run = tracking.run(run_id)
    if run.data.tags.get("glioflow.kind") != "crossval" or run.info.status == "FINISHED":
        raise UserError("--resume takes an unfinished cross-validation's run id", f"{run_id}, {run.info.status}")
    asked = {**tags, "glioflow.cohort": setting.cohort.manifest.fingerprint}
    recorded = load_experiment(tracking.download(f"runs:/{run_id}/experiment.yaml"))
    differ = [key for key, value in asked.items() if run.data.tags.get(key) != value]
    if recorded.resolved != setting.experiment.resolved or differ:
        rule = "--resume goes on with the experiment, cohort and folds that the run began with"
        raise UserError(rule, f"other {differ or 'settings'} than run {run_id}'s")
    tracking.reopen(run_id)
    done: dict[int, str] = {}
    for child in tracking.children(setting.experiment.name, run_id):  # newest first
        if child.info.status == "FINISHED":
            done.setdefault(int(child.data.tags["glioflow.fold"]), child.info.run_id)
        elif child.info.status == "RUNNING":
            tracking.finish(child.info.run_id, "KILLED")
    return done


def _plan(setting: Setting, parent: str, fold: int, split: Split) -> Plan:
    tags = {"glioflow.fold": str(fold)}
    part = Setting(setting.experiment, setting.cohort, split, setting.tracking)
    run_id = open_run(part, "fold", f"fold-{fold:02} {setting.experiment.name}", parent=parent, tags=tags)
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


def run_fold(plan: Plan) -> Judged:
    """Train one fold and judge it on its test patients, with shape features of the out-of-fold masks."""
    cluster.silence()
    writer = RunWriter(plan.tracking_uri, plan.run_id, plan.spool)

    def report(epoch: int, metrics: dict[str, float], write_checkpoint: Callable[[Path], None]) -> None:
        writer.write(metrics, step=epoch)

    try:
        metrics = train_plan(plan, report) or {}
        cohort = PreparedCohort(plan.prepared)
        train, test = cohort.cases(plan.split.train), cohort.cases(plan.split.test)
        judged = judge(
            Predictor.load(plan.bundle),
            test,
            known=train,
            with_features=True,
            say=ProgressFile(plan.progress).section("test", TRAINED, 1),
        )
    except BaseException:
        writer.finish("FAILED")
        raise
    writer.log_metrics({**metrics, **flatten_summary(judged.summary(), "test")})
    writer.log_folder(plan.bundle, folder=BUNDLE)
    writer.log_bytes(JUDGED, judged.model_dump_json().encode())
    writer.finish()
    writer.close(patience_s=PATIENCE_S)
    return judged
