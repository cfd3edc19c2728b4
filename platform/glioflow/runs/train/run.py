"""One training through Ray Train, with one worker or many, resumable from its last checkpoint."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train

from glioflow import cluster
from glioflow.cluster.lease import holding
from glioflow.cluster.ray_internals import end_at_interrupt
from glioflow.cluster.remote_home import fetch, ray_storage
from glioflow.cluster.storage import home
from glioflow.config import Experiment
from glioflow.errors import RunFailed, UserError, option
from glioflow.progress import Say, quiet
from glioflow.reports.figures import curves
from glioflow.runs.launch import Setting, open_setting, opening_of
from glioflow.runs.plan import Plan, plan_of
from glioflow.runs.progress import followed, note_epoch, shown
from glioflow.runs.recorded import is_scored
from glioflow.runs.resuming import check_source, resumed_experiment, resumed_setting
from glioflow.runs.source import Source
from glioflow.runs.train.checkpoints import Behind, Stored, drop_torn, is_whole, withdraw_sent
from glioflow.runs.train.failures import cause_of
from glioflow.runs.train.lost_nodes import LostNodes
from glioflow.runs.train.overlays import OVERLAYS, drawn
from glioflow.runs.train.test_patients import PER_PATIENT, score_test_patients
from glioflow.runs.train.trained_bundle import fetch_description, send_bundle
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.waiting import wait_for_room, waiting_for_workers
from glioflow.runs.train.worker import Worker
from glioflow.tracking import BUNDLE, RunWriter, Tracking
from glioflow.tracking.addresses import answers
from glioflow.tracking.logged_models import log_model
from glioflow.tracking.run import Run, open_run, resume_run, send_waiting
from glioflow.tracking.spool import run_folder, spools_of

if TYPE_CHECKING:
    from glioflow.training.checkpoints import Checkpoint

_log = logging.getLogger(__name__)

# Interval at which an elastic training checks whether the cluster has room for more workers.
RESIZE_S = 60.0


@dataclass(frozen=True)
class Trained:
    """Result of a training."""

    run_id: str
    model_uri: str
    metrics: dict[str, float | None]


def train(experiment: Experiment, data: str | Path | None, *, resume: str | None = None, say: Say = quiet) -> Trained:
    """Train one experiment, measure it on its test patients, and log everything as one run.

    Args:
        experiment: The experiment.
        data: Cohort, raw or prepared; None takes the experiment's.
        resume: Id of a run that was interrupted; continues from its last checkpoint.
        say: Called with each line of progress.

    Raises:
        UserError: If anything given is wrong; nothing is left running then.
        RunFailed: If the training failed; the run is closed as failed and can be resumed.
    """

    def check_begun(tracking: Tracking, source: Source) -> None:
        if resume and not spools_of(resume):  # which may be the only missing part of the run
            _check_begun(experiment, source, tracking, resume)

    setting = open_setting(experiment, data, resume=resume, early=check_begun, say=say)
    if resume and (sent := send_rest(setting.tracking, resume)) is not None:
        return sent
    if resume:
        setting = _resumed(setting, resume)
        opened = resume_run(setting.tracking, resume)
    else:
        opened = open_run(setting.tracking, opening_of(setting, "train", experiment.name))
    return train_in(setting, opened, say)


def train_in(setting: Setting, opened: AbstractContextManager[Run], say: Say = quiet) -> Trained:
    """Train in a setting as the run that is opened here, new or resumed; raises `RunFailed` as `train`."""
    with opened as run:
        say(f"run {run.run_id}")
        plan = plan_of(setting, run.run_id, watched=True)
        try:
            with shown({"": plan.progress}, say), followed(plan.progress, plan.experiment.training.epochs, say):
                val = fit_on_train(plan, say=say)
                test = score_test_patients(plan)
        except (KeyboardInterrupt, SystemExit):  # Ray Train turns the first Ctrl-C into the second
            say(f"interrupted; continue with {option('resume', run.run_id)}")
            raise KeyboardInterrupt from None
        metrics = {**val, **test.metrics}
        run.log_metrics(metrics)
        run.log_json(PER_PATIENT, test.rows)
        for name, content in {**test.report, **_curves(setting.tracking, run.run_id)}.items():
            run.log_bytes(f"report/{name}", content)
    with suppress(OSError):
        withdraw_sent(run.run_id)
    with suppress(Exception):  # MLflow is unreachable: `register` makes it
        log_model(setting.tracking, run.run_id)
    return Trained(run.run_id, f"runs:/{run.run_id}/{BUNDLE}", metrics)


def _curves(tracking: Tracking, run_id: str) -> dict[str, bytes]:
    """Draw `train/loss` and `val/dice` by epoch; empty if MLflow cannot be reached."""
    if not answers(tracking.uri, patience_s=0):
        return {}
    history = {key: tracking.metric_steps(run_id, key) for key in ("train/loss", "val/dice")}
    return {"curves.png": curves({key: values for key, values in history.items() if values}, title="Training")}


def send_rest(tracking: Tracking, run_id: str) -> Trained | None:
    """Send what a run could not send while MLflow was unreachable; return its result if it is then complete."""
    if not spools_of(run_id):
        return None
    with holding(run_folder(run_id), f"run {run_id}"):
        send_waiting(tracking.uri, run_id)
    run = tracking.run(run_id)
    if run.info.status != "FINISHED":
        return None
    metrics = {key: value for key, value in run.data.metrics.items() if key.startswith(("val/", "test/"))}
    return Trained(run_id, f"runs:/{run_id}/{BUNDLE}", metrics)


def _check_kind(tracking: Tracking, run_id: str) -> None:
    kind = tracking.run(run_id).data.tags.get("glioflow.kind", "train")
    if kind != "train":
        verbs = {"crossval": "`glioflow crossval --resume`", "search": "`glioflow search --resume NAME`"}
        verb = verbs.get(kind)
        hint = f"a {kind} is continued with {verb}" if verb else "give the run id of `glioflow train`"
        raise UserError(
            f"{option('resume')} must be the run id of a training", f"run {run_id} of kind {kind}", hint=hint
        )


def _check_begun(experiment: Experiment, source: Source, tracking: Tracking, run_id: str) -> None:
    """Refuse a run that is no unfinished training of this experiment on this cohort; raises `UserError`."""
    _check_kind(tracking, run_id)
    resumed_experiment(experiment, tracking, run_id)
    run = tracking.run(run_id)
    if (run.info.status == "FINISHED" or is_scored(run)) and tracking.has_artifact(run_id, BUNDLE):
        hint = f"`glioflow register {run_id}` makes it a version"
        raise UserError(
            f"{option('resume')} must be the id of an unfinished run", f"run {run_id}, which has its bundle", hint=hint
        )
    check_source(experiment, source, tracking, run_id)


def _resumed(setting: Setting, run_id: str) -> Setting:
    """Return the setting with which an unfinished training continues; raises `UserError` if it cannot."""
    _check_begun(setting.experiment, setting.cohort, setting.tracking, run_id)
    return resumed_setting(setting, run_id)


def fit_on_train(plan: Plan, *, callbacks: Sequence[Any] = (), say: Say = quiet) -> dict[str, float | None]:
    """Run `train_plan` on Ray Train, its controller calling `callbacks`, and send the bundle as `send_bundle`.

    In the main thread, Ctrl-C ends it within seconds, which `say` announces.

    Returns:
        The bundle's validation metrics.

    Raises:
        RunFailed: With the error of the worker.
    """
    from ray.train.torch import TorchTrainer

    training, folder = plan.experiment.training, home() / "train" / plan.run_id / plan.part
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"plan": plan.model_dump_json()},
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.num_workers,
            resources_per_worker=training.resources_per_worker,
            use_gpu=training.gpus > 0,
            elastic_resize_monitor_interval_s=RESIZE_S,
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            **ray_storage(folder.parent),
            failure_config=ray.train.FailureConfig(max_failures=2, controller_failure_limit=3),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=[*callbacks, LostNodes()],
        ),
    )
    end_at_interrupt(trainer, say)
    wait_for_room(training.min_workers, training.resources_per_worker)
    try:
        with cluster.restoring_interrupts(), waiting_for_workers(elastic=training.elastic):
            trainer.fit()
    except Exception as error:
        drop_torn(folder)
        raise RunFailed(cause_of(error)) from error
    fetch(plan.features)
    return fetch_description(plan).metrics


def _worker(config: dict[str, Any]) -> None:
    cluster.silence()
    plan = Plan.model_validate_json(config["plan"])
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    group = cluster.own_group()
    writer = RunWriter(plan.tracking_uri, plan.run_id, plan.spool) if rank == 0 else None

    behind = Behind()
    stored = Stored(before=behind.wait)

    def report(epoch: int, metrics: dict[str, float], write_checkpoint: "Checkpoint") -> None:
        step, logged = plan.logged(epoch, metrics)
        if writer is not None:
            note_epoch(plan.progress, epoch, metrics.get("val/dice"))
            behind.begin(lambda: log(writer, epoch, step, logged))
        reported = {"epoch": step, "placement_group": group, **logged}
        stored.report(reported, write_checkpoint if rank == 0 else None)

    def log(writer: RunWriter, epoch: int, step: int, logged: dict[str, float]) -> None:
        writer.write({**logged, "train/num_workers": world_size}, step=step)
        for case_id, picture in drawn(plan.folder, epoch).items():
            writer.log_picture(picture, key=f"{OVERLAYS}/{case_id}", step=step)

    def keep(write_checkpoint: "Checkpoint") -> None:
        stored.report({"epoch": -1, "placement_group": group}, write_checkpoint if rank == 0 else None)

    def decided(tags: dict[str, str]) -> None:
        if writer is not None:
            behind.begin(lambda: writer.set_tags(tags, waits=True))

    checkpoint = ray.train.get_checkpoint()
    with behind, checkpoint.as_directory() if checkpoint is not None else nullcontext() as given:
        resume = None if given is None else Path(given)
        if resume is not None and not is_whole(resume):
            _log.warning("checkpoint %s is not whole; the training starts over", given)
            resume = None
        train_plan(plan, Worker(report, rank, world_size, resume, keep, decided, behind))
    if writer is not None:
        send_bundle(plan, writer)
