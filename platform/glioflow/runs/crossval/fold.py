"""One fold of a cross-validation: its split, its run, its training, and its scores on unseen patients."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from glioflow import cluster
from glioflow.bundle.prediction import Predictor
from glioflow.config import Experiment
from glioflow.data.prepared.remote import open_here
from glioflow.data.splits import Split
from glioflow.evaluation import flatten_summary
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.plan import Plan, plan_of
from glioflow.runs.progress import TRAINED, ProgressFile
from glioflow.runs.scoring import CohortScores, score_cases
from glioflow.runs.train.run import fit_on_train
from glioflow.runs.train.trained_bundle import fetch_bundle
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker
from glioflow.tracking import BUNDLE
from glioflow.tracking.run import Run, begin_run

# Artifact of a fold's run: written before the fold counts as finished, read when a cross-validation resumes.
JUDGED = "judged.json"


def fold_split(parts: list[list[str]], fold: int) -> Split:
    """Return the split of one fold: its part is for testing, the next for validation, the others for training."""
    val = (fold + 1) % len(parts)
    train = [case_id for k, part in enumerate(parts) if k not in (fold, val) for case_id in part]
    return Split(train=tuple(sorted(train)), val=tuple(parts[val]), test=tuple(parts[fold]))


def plan_fold(setting: Setting, parent: str, fold: int, split: Split) -> Plan:
    """Open the run of one fold, and return its training plan."""
    tags = {"glioflow.fold": str(fold)}
    part = Setting(setting.experiment, setting.cohort, split, setting.tracking)
    opening = opening_of(part, "fold", f"fold-{fold:02} {setting.experiment.name}", parent=parent, tags=tags)
    return plan_of(part, begin_run(setting.tracking, opening))


def score_folds(experiment: Experiment, plans: Iterable[Plan]) -> Iterator[CohortScores]:
    """Train and evaluate folds: in parallel if each has one worker, else one after another on Ray Train."""
    training = experiment.training
    cpus, gpus = training.cpus_per_worker, training.gpus
    if training.max_workers == 1:
        yield from cluster.map_parallel(run_fold, plans, num_cpus=cpus, num_gpus=gpus)
        return
    for plan in plans:
        try:
            fit_on_train(plan)
        except BaseException as error:
            Run(plan.tracking_uri, plan.run_id, plan.spool).abandon(error)
            raise
        yield from cluster.map_parallel(run_fold, [plan], num_cpus=cpus, num_gpus=min(1.0, gpus))


def run_fold(plan: Plan) -> CohortScores:
    """Train one fold, unless done before, and evaluate it on its test patients, with the masks' shape features."""
    cluster.silence()
    with Run(plan.tracking_uri, plan.run_id, plan.spool) as run:

        def report(epoch: int, metrics: dict[str, float], write_checkpoint: Callable[[Path], None]) -> None:
            run.write(metrics, step=epoch)

        if plan.experiment.training.max_workers > 1:
            fetch_bundle(plan)
        else:
            train_plan(plan, Worker(report, decided=partial(run.set_tags, waits=True)))
            run.log_folder(plan.bundle, folder=BUNDLE)
        cohort = open_here(plan.prepared)
        train, test = cohort.cases(plan.split.train), cohort.cases(plan.split.test)
        predictor = Predictor.load(plan.bundle)
        scores = score_cases(
            predictor,
            test,
            known=train,
            with_features=True,
            say=ProgressFile(plan.progress).section("test", TRAINED, 1),
        )
        run.log_metrics({**predictor.description.metrics, **flatten_summary(scores.summary(), "test")})
        run.log_text(JUDGED, scores.model_dump_json())
    return scores
