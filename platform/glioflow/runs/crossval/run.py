"""Cross-validation by patient on the cluster: every patient is predicted by a model that never saw it."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

import numpy as np

from glioflow import cluster
from glioflow.audit import leaks
from glioflow.bundle.prediction import Predictor
from glioflow.config import Experiment
from glioflow.data.prepared.index import Entry
from glioflow.data.prepared.remote import open_here
from glioflow.data.splits import deal
from glioflow.errors import UserError, option
from glioflow.evaluation import VolumeInterval, fit_volume_interval, flatten_summary
from glioflow.evaluation.patients import CaseScores, metric_of, patient_means, person_of
from glioflow.progress import Say, quiet
from glioflow.quantities import count
from glioflow.reports.evaluation_page import evaluation_page
from glioflow.reports.page import Drawing
from glioflow.runs.case_pictures import draw_case, pick_cases
from glioflow.runs.crossval.fold import JUDGED, fold_split, plan_fold, score_folds
from glioflow.runs.crossval.out_of_fold import OUT_OF_FOLD, finished_folds
from glioflow.runs.launch import Setting, open_setting, opening_of
from glioflow.runs.progress import shown
from glioflow.runs.resuming import check_folds, check_source, resumed_experiment, resumed_setting
from glioflow.runs.scoring import CohortScores, EvaluationAnswer, EvaluationSummary, FoldScores, join
from glioflow.runs.source import Source
from glioflow.tracking import Tracking
from glioflow.tracking.addresses import STARTING_S
from glioflow.tracking.run import Run, close_children, open_run, resume_run

VOLUME_INTERVAL = "volume_interval.json"
NO_TEXTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class CrossValidated:
    """Result of a cross-validation; `per_patient` is sorted by id, `summary` has the keys of an evaluation.

    `summary` also has `per_fold` (run, cases, mean and median Dice of each) and `report`, the report's path.
    """

    run_id: str
    folds: int
    summary: EvaluationSummary
    per_patient: list[CaseScores]


def crossval(
    experiment: Experiment,
    data: str | Path | None,
    *,
    folds: int | None = None,
    hold_out_test: bool = False,
    resume: str | None = None,
    say: Say = quiet,
) -> CrossValidated:
    """Train one model per fold and evaluate every patient with the model that did not see it.

    Args:
        experiment: The experiment to train.
        data: Cohort, raw or prepared; None takes the experiment's.
        folds: How many; None takes `split.folds`, or what the resumed run has.
        hold_out_test: Leave the split's test patients out of all folds.
        resume: Id of a cross-validation that was interrupted; its finished folds are not repeated.
        say: Called with each line of progress.

    Raises:
        UserError: If anything given is wrong.
        RunFailed: If a fold failed; the others' results stay for `resume`.
    """

    def check(tracking: Tracking, source: Source) -> None:
        number = number_of_folds(experiment, folds, tracking, resume)
        if resume:
            _check_begun(experiment, source, tracking, resume, _tags(number, hold_out_test))

    setting = open_setting(experiment, data, folds=folds or 0, resume=resume, early=check, say=say)
    number = number_of_folds(experiment, folds, setting.tracking, resume)
    tags = _tags(number, hold_out_test)
    if resume:
        setting = _resumed(setting, resume, tags)
    return crossval_in(setting, number, hold_out_test=hold_out_test, resume=resume, say=say)


def crossval_in(
    setting: Setting,
    number: int,
    *,
    hold_out_test: bool,
    resume: str | None = None,
    tags: Mapping[str, str] = NO_TEXTS,
    texts: Mapping[str, str] = NO_TEXTS,
    say: Say = quiet,
) -> CrossValidated:
    """Cross-validate a setting; arguments and errors as for `crossval`.

    Args:
        setting: Experiment, cohort and split.
        number: Of folds.
        hold_out_test: Leave the split's test patients out of all folds.
        resume: Id of a run of this setting that was interrupted.
        tags: Further ones of a new run.
        texts: Further artifacts of a new run, by name.
        say: Told what happens.
    """
    experiment, tracking = setting.experiment, setting.tracking
    cases = _judged_cases(setting, hold_out_test)
    parts = deal(cases, number, seed=experiment.split.seed)
    done: dict[int, str] = {}
    if resume:
        done = _finished_folds(setting, resume)
        check_folds(setting, done, {k: fold_split(parts, k) for k in done})
        opened = resume_run(tracking, resume)
    else:
        known = {**_tags(number, hold_out_test), **tags}
        opening = opening_of(setting, "crossval", f"{experiment.name}-{number}-fold", tags=known)
        opened = open_run(tracking, replace(opening, texts={**opening.texts, **texts}))
    with opened as run:
        before = f", {count(len(done), 'fold')} done before" if resume else ""
        say(f"{number} folds over {len({entry.patient for entry in cases})} patients, run {run.run_id}{before}")
        try:
            with cluster.announcing_interrupts(say, "stopping the folds; Ctrl-C ends them at once"):
                runs, scores = _run_folds(setting, run.run_id, parts, done, say)
            answer = _conclude(setting, run, runs, scores)
        except BaseException:
            say(
                f"continue with {option('resume', run.run_id)}"
            )  # printed first: a stopped job may be killed while it closes its runs
            with contextlib.suppress(Exception):  # if the store is away, the first error helps more
                close_children(tracking, experiment.name, run.run_id)
            raise
    summary = {key: value for key, value in answer.items() if key != "per_patient"}
    return CrossValidated(run.run_id, number, cast(EvaluationSummary, summary), answer["per_patient"])


def _judged_cases(setting: Setting, hold_out_test: bool) -> list[Entry]:
    """Return the labeled cases of the folds: all, or those of persons without a case among the test patients."""
    cases = [entry for entry in setting.cohort.entries() if entry.volume_px is not None]
    if not hold_out_test:
        return cases
    test = set(setting.split.test)  # the held-out persons may have cases that the split does not list
    judges = {leaks.person_of(entry.patient) for entry in setting.cohort.entries() if entry.id in test}
    return [entry for entry in cases if leaks.person_of(entry.patient) not in judges]


def fit_interval(rows: Sequence[CaseScores], *, parts: Sequence[str] = (), held_out: str = "") -> VolumeInterval | None:
    """Fit the conformal interval of the tumor volume, and of each region's, on out-of-fold rows with their `fold`.

    Args:
        rows: Rows of every case; the cases of a patient count together.
        parts: Names of the regions of a model with several.
        held_out: Digest of the test patients, which are not among the rows.

    Returns:
        The interval; None if the rows have different units.
    """
    units: tuple[Literal["mm3", "px"], ...] = ("mm3", "px")
    for unit in units:
        if (whole := _volumes(rows, unit)) is not None:
            folds, patients = [row["fold"] for row in rows], [person_of(row) for row in rows]
            regions = {name: volumes for name in parts if (volumes := _volumes(rows, f"{unit}_{name}")) is not None}
            return fit_volume_interval(*whole, folds, patients=patients, unit=unit, held_out=held_out, regions=regions)
    return None


def _volumes(rows: Sequence[CaseScores], suffix: str) -> tuple[list[float], list[float]] | None:
    """Return the predicted and true volume of every case; None if one lacks it."""
    predicted, true = (
        [value for row in rows if (value := metric_of(row, f"volume_{kind}_{suffix}")) is not None]
        for kind in ("prediction", "reference")
    )
    return (predicted, true) if rows and len(predicted) == len(true) == len(rows) else None


def _run_folds(
    setting: Setting, parent: str, parts: list[list[str]], done: Mapping[int, str], say: Say
) -> tuple[dict[int, str], dict[int, CohortScores]]:
    """Return the run and scores of every fold; folds in `done` are read, not run."""
    scores = {k: CohortScores.model_validate(setting.tracking.read_json(run, JUDGED)) for k, run in done.items()}
    waiting = [k for k in range(len(parts)) if k not in done]
    plans = {k: plan_fold(setting, parent, k, fold_split(parts, k)) for k in waiting}
    with shown({f"fold {k + 1}": plan.progress for k, plan in plans.items()}, say):
        for k, answer in zip(waiting, score_folds(setting.experiment, plans.values()), strict=True):
            scores[k] = answer
            dice = [*patient_means(answer.rows, "dice").values()]
            say(f"fold {k + 1} of {len(parts)}: test/dice_mean {np.mean(dice):.3f} over {count(len(dice), 'patient')}")
    return {**done, **{k: plan.run_id for k, plan in plans.items()}}, scores


def _conclude(
    setting: Setting, run: Run, runs: Mapping[int, str], scores: Mapping[int, CohortScores]
) -> EvaluationAnswer:
    """Combine the folds, log the results with the report, and return them."""
    cohort_format = setting.cohort.manifest.format
    folds = {row["id"]: k for k, part in scores.items() for row in part.rows}
    total = join(scores[k] for k in sorted(scores))
    total = total.model_copy(update={"rows": tuple(sorted(total.rows, key=lambda row: str(row["id"])))})
    answer = total.answer(cohort_format)
    run.log_metrics(flatten_summary({k: v for k, v in answer.items() if k != "per_patient"}, "oof"))
    for row in answer["per_patient"]:
        row["fold"] = folds[row["id"]]
    answer["per_fold"] = [_fold(k, runs[k], scores[k]) for k in sorted(scores)]
    run.log_json(OUT_OF_FOLD, [{**row, "fold": folds[row["id"]]} for row in total.rows])
    held_out = setting.split.test_digest if setting.split.test and not folds.keys() & set(setting.split.test) else ""
    parts = setting.experiment.target.names if len(setting.experiment.target.names) > 1 else ()
    if (interval := fit_interval(answer["per_patient"], parts=parts, held_out=held_out)) is not None:
        run.log_json(VOLUME_INTERVAL, interval.model_dump(mode="json"))
        answer["volume_interval"] = interval.described()
    jobs = [
        _Picture(setting.tracking.uri, runs[folds[row["id"]]], setting.cohort.path, row["id"], row["dice"], name)
        for name, row in pick_cases(answer["per_patient"]).items()
    ]
    cases = [drawing for drawings in cluster.map_parallel(_draw, jobs) for drawing in drawings]
    people = answer["num_patients"]
    name, about = setting.experiment.name, f"{people} patients, each predicted by a model that never saw them"
    page = evaluation_page(answer, title=f"{len(scores)}-fold cross-validation of {name}", about=about, cases=cases)
    run.log_text("report/index.html", page)
    for drawing in cases:
        run.log_bytes(f"report/{drawing.name}.png", drawing.png)
    answer["report"] = f"runs:/{run.run_id}/report/index.html"
    return answer


def _fold(number: int, run_id: str, scores: CohortScores) -> FoldScores:
    dice = [*patient_means(scores.rows, "dice").values()]
    return FoldScores(
        fold=number,
        run_id=run_id,
        num_patients=len(dice),
        num_cases=len(scores.rows),
        dice_mean=float(np.mean(dice)),
        dice_median=float(np.median(dice)),
    )


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
    tracking = Tracking(job.tracking_uri, patience_s=STARTING_S)
    predictor = Predictor.load(tracking.find_bundle(job.fold_run)[0])
    title = f"{job.name}: {job.case_id}, Dice {job.dice:.3f}"
    return draw_case(predictor, open_here(job.prepared).case(job.case_id), title=title, name=job.name)


def number_of_folds(experiment: Experiment, folds: int | None, tracking: Tracking, resume: str | None) -> int:
    """Return the number of folds; raises `UserError` if there are too few patients."""
    recorded = tracking.run(resume).data.tags.get("glioflow.folds") if resume else None
    number = folds or (int(recorded) if recorded else experiment.split.folds)
    if number < 3:
        hint = "one fold tests, one chooses, the others train"
        raise UserError("a cross-validation must have at least 3 folds", number, hint=hint)
    return number


def _tags(number: int, hold_out_test: bool) -> dict[str, str]:
    return {"glioflow.folds": str(number), "glioflow.held_out": str(hold_out_test).lower()}


def _check_begun(
    experiment: Experiment, source: Source, tracking: Tracking, run_id: str, tags: Mapping[str, str]
) -> None:
    """Refuse a run that is not an unfinished cross-validation of this experiment on this cohort; raises `UserError`."""
    run = tracking.run(run_id)
    kind, status = run.data.tags.get("glioflow.kind", "unknown"), run.info.status
    if kind != "crossval" or status == "FINISHED":
        rule, hint = (
            f"{option('resume')} must be the run id of an unfinished cross-validation",
            "leave it out to begin a new one",
        )
        raise UserError(rule, f"run {run_id} of kind {kind}, {status}", hint=hint)
    resumed_experiment(experiment, tracking, run_id)
    differ = [key for key, value in tags.items() if run.data.tags.get(key) != value]
    if differ:
        hint = f"give its experiment, cohort and folds, or leave out {option('resume')} to begin a new run"
        raise UserError(f"run {run_id} began with other {', '.join(differ)}", hint=hint)
    check_source(experiment, source, tracking, run_id)


def _resumed(setting: Setting, run_id: str, tags: Mapping[str, str]) -> Setting:
    """Return the setting that an unfinished cross-validation continues with; raises `UserError` if it cannot."""
    _check_begun(setting.experiment, setting.cohort, setting.tracking, run_id, tags)
    return resumed_setting(setting, run_id)


def _finished_folds(setting: Setting, parent: str) -> dict[int, str]:
    """Return the run of each finished fold; close runs that a killed process left open."""
    close_children(setting.tracking, setting.experiment.name, parent)
    return finished_folds(setting.tracking, setting.experiment.name, parent)
