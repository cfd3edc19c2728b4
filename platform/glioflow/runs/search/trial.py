"""One trial of a search: in its own process with one worker, or as a light driver of several workers on Ray Train."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from glioflow import bundle, cluster
from glioflow.clock import now
from glioflow.cluster.logins import without_password
from glioflow.cluster.remote_home import fetch, share, withdraw
from glioflow.config import Experiment, override
from glioflow.config.search import PREPROCESS
from glioflow.data.prepared.remote import open_here
from glioflow.data.splits import Split
from glioflow.errors import GlioflowError, RunFailed, UserError, first_line
from glioflow.runs.launch import EXPERIMENT, Setting, opening_of
from glioflow.runs.plan import Fold, Plan
from glioflow.runs.search.searcher import METRIC, NUMBER, TrialReport
from glioflow.runs.search.survival_objective import C_INDEX, Tables, c_index
from glioflow.runs.search.trial_folds import sum_up
from glioflow.runs.train.checkpoints import Behind
from glioflow.runs.train.run import fit_on_train
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker
from glioflow.tracking import BUNDLE, PATIENCE_S, Tracking
from glioflow.tracking.addresses import answers
from glioflow.tracking.outage import StoreAway, outlasting
from glioflow.tracking.run import Run, begin_run, send_waiting

if TYPE_CHECKING:
    from glioflow.training.checkpoints import Checkpoint

# Booked for the driver of a trial with several workers: memory, which every node has, so that no CPU is idle.
DRIVER_BYTES = 500e6
# Key of a report: placement group of the trial's workers.
GROUP = "placement_group"
# Interval between sendings of a trial's metrics, since thousands of trials share one server.
EVERY_S = 30.0
# Folder of a trial's last checkpoint in its run's folder.
CHECKPOINT = "checkpoint"


class TrialPlan(BaseModel):
    """The plan of every trial of a search; the parameters come from the searcher.

    Attributes:
        plan: Plan of the search; a trial's own differs in experiment, run, folder (below this one, named by the run)
            and, if preprocessing is searched, cohort.
        parent: Run of the search.
        search: Name of the search.
        prepared: Prepared cohort by name of preprocessing.
        folds: Folds on which every trial is trained and judged; none if that is only the plan's split.
        tables: Clinical tables of the objective `c_index`.
        experiment_id: Id of MLflow's experiment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    plan: Plan
    parent: str
    search: str
    prepared: dict[str, Path]
    folds: tuple[Split, ...] = ()
    tables: Tables | None = None
    experiment_id: str | None = None


def resources(experiment: Experiment) -> Any:
    """Return what Tune books for a trial: its worker, or only a driver's memory where Ray Train books the workers."""
    training = experiment.training
    if training.min_workers > 1:
        return tune.PlacementGroupFactory([{"memory": DRIVER_BYTES}])
    return tune.PlacementGroupFactory([training.resources_per_worker])


def run_trial(config: Mapping[str, Any], plan_json: str) -> None:
    """Train one configuration, reporting to Tune and to its own MLflow run.

    A configuration that cannot be trained (a loss that is not a number, a combination that no experiment may have) ends
    as failed, with its reason; if the disk fails, it ends as open, so that a resumed search tries it again.
    """
    cluster.silence()
    trial_plan = TrialPlan.model_validate_json(plan_json)
    point = {key: value for key, value in config.items() if key != NUMBER}
    number = str(config.get(NUMBER, tune.get_context().get_trial_id()))
    ended: TrialReport = {"epoch": 0, METRIC: 0.0, "finished": True, "run_id": ""}
    try:
        ended |= _run(trial_plan, point, number, ended)
    except StoreAway as error:
        ended |= {"failed": str(error), "open": True}
    except OSError as error:
        failed = str(error) if isinstance(error, GlioflowError) else f"{type(error).__name__}: {error}"
        ended |= {"failed": failed, "open": True}
    tune.report(ended)


def _run(trial_plan: TrialPlan, point: Mapping[str, Any], number: str, ended: TrialReport) -> TrialReport:
    """Open the trial's run, whose id goes into `ended` at once, and train; return the rest of the last report."""
    base = trial_plan.plan
    uri = base.tracking_uri
    # The first call asks a server; an unreachable database would delay it for minutes.
    if not uri.startswith("http") and not answers(uri, patience_s=PATIENCE_S):
        raise StoreAway(f"MLflow at {without_password(uri)} is away")
    tracking = Tracking(uri, ask=False)
    if trial_plan.experiment_id is not None:
        tracking.know_experiment(base.experiment.name, trial_plan.experiment_id)
    prepared = trial_plan.prepared.get(point.get(PREPROCESS, ""), base.prepared)
    try:
        experiment, refused = override(base.experiment, base.experiment.search.overrides(point)), None
    except UserError as error:
        experiment, refused = base.experiment, str(error)
    plan = base.model_copy(update={"experiment": experiment, "prepared": prepared, "created": now()})
    opening = partial(open_trial, tracking, trial_plan, plan, number, point, later=True)
    ended["run_id"] = run_id = outlasting(uri, opening, patience_s=PATIENCE_S)
    own = plan.model_copy(update={"run_id": run_id, "folder": base.folder / run_id})
    try:
        with Run(own.tracking_uri, run_id, own.spool, tracking=tracking, every_s=EVERY_S) as run:
            if refused is not None:
                raise RunFailed(refused)
            return _train(run, trial_plan, own)
    except RunFailed as error:
        if isinstance(error.__cause__, OSError | StoreAway):
            raise error.__cause__ from None
        return {"failed": str(error)}


def _train(run: Run, trial_plan: TrialPlan, plan: Plan) -> TrialReport:
    """Train and log; return the last report."""
    settings = plan.experiment.search
    plans = _train_folds(run, plan, trial_plan.folds)
    descriptions = [bundle.read_description(each.bundle) for each in plans]
    metrics = sum_up([each.metrics for each in descriptions])
    if trial_plan.tables is not None:
        metrics[f"val/{C_INDEX}"] = c_index(trial_plan.tables, [each.features for each in plans], plan.experiment)
    run.log_metrics(metrics)
    if len(plans) == 1 and not _on_ray_train(plan):  # with several folds, no fold's model is the trial's
        run.log_folder(plan.bundle, folder=BUNDLE)
    reached: TrialReport = {
        METRIC: metrics["val/dice_mean"] or 0.0,
        "hd95": metrics.get("val/hd95_mean"),
        "parameters": descriptions[0].num_parameters,
        C_INDEX: metrics.get(f"val/{C_INDEX}"),
    }
    if "hd95" in settings.objectives and reached["hd95"] is None:
        raise RunFailed("the objective hd95 is undefined for every validation patient of this trial")
    return {**reached, "epoch": settings.folds * plan.experiment.training.epochs}


def _train_folds(run: Run, plan: Plan, splits: Sequence[Split]) -> list[Plan]:
    """Train on one fold after another, but for those that were finished before; return the folds' plans."""
    if not splits:
        _train_once(run, plan)
        return [plan]
    plans: list[Plan] = []
    reached: list[float] = []
    for number, split in enumerate(splits):
        plans.append(plan.model_copy(update={"split": split, "fold": Fold(number=number, before=tuple(reached))}))
        trained_now = _train_once(run, plans[-1])
        reached.append(float(bundle.read_description(plans[-1].bundle).metrics["val/dice_mean"] or 0.0))
        if trained_now and len(plans) < len(splits):
            last = len(plans) * plan.experiment.training.epochs - 1
            tune.report(progress_report(plan.run_id, last, {"val/dice": fmean(reached)}))
    return plans


def _train_once(run: Run, plan: Plan) -> bool:
    """Train and say so; where that was done before (a process was killed before it could report) do nothing."""
    if plan.fold is not None:
        fetch(plan.features)
        fetch(plan.bundle)
    done = (plan.bundle / "model.json").exists()
    if _on_ray_train(plan):
        if plan.fold is None or not done:  # the worker that ends such a trial sends its bundle
            fit_on_train(plan, callbacks=[Relay(plan.run_id, plan.experiment.training.epochs)])
    elif not done:
        _train_here(run, plan)
        if plan.fold is not None:  # the next folds may be trained on another node
            share(plan.features)
            share(plan.bundle)
    drop_checkpoint(plan.folder / CHECKPOINT / plan.part)
    return not done


def _on_ray_train(plan: Plan) -> bool:
    return plan.experiment.training.min_workers > 1


def drop_checkpoint(folder: Path) -> None:
    """Remove a checkpoint that nothing continues from."""
    withdraw(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _train_here(run: Run, plan: Plan) -> None:
    training, folder = plan.experiment.training, plan.folder / CHECKPOINT / plan.part
    population = plan.experiment.search.scheduler == "pbt"

    behind = Behind()

    def keep(write_checkpoint: "Checkpoint") -> None:
        behind.wait()
        write = write_checkpoint.copied()
        behind.begin(lambda: _keep(write, folder))

    def report(epoch: int, metrics: dict[str, float], write_checkpoint: "Checkpoint") -> None:
        step, logged = plan.logged(epoch, metrics)
        run.write(logged, step=step, last=epoch + 1 == training.epochs)
        if epoch + 1 == training.epochs:
            return  # reported once the bundle exists: a scheduler may end a trial at any report
        keep(write_checkpoint)
        if "val/dice" not in metrics:
            return  # trials are compared by full validations only
        if population:
            behind.wait()
        given = tune.Checkpoint.from_directory(folder) if population else None  # for other nodes to continue
        tune.report(progress_report(plan.run_id, step, logged), checkpoint=given)

    decided = partial(run.set_tags, waits=True)
    received = tune.get_checkpoint()
    fetch(folder)  # another node may have continued meanwhile
    with behind:
        if received is not None:
            with received.as_directory() as other:
                train_plan(plan, Worker(report, resume=Path(other), keep=keep, decided=decided))
        else:
            resume = folder if any(folder.glob("*.pt")) else None
            train_plan(plan, Worker(report, resume=resume, keep=keep, decided=decided))


def progress_report(run_id: str, epoch: int, metrics: Mapping[str, float]) -> TrialReport:
    """Return what is reported to Tune after an epoch (from 0)."""
    return {"epoch": epoch + 1, METRIC: metrics["val/dice"], "finished": False, "run_id": run_id}


def _keep(write_checkpoint: "Checkpoint", folder: Path) -> None:
    """Replace the checkpoint in `folder`, as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".checkpoint-") as working:
        try:
            write_checkpoint(Path(working))
        except RuntimeError as error:  # PyTorch's error for a full disk
            raise OSError(f"the checkpoint could not be written: {first_line(error)}") from error
        for file in Path(working).iterdir():
            os.replace(file, folder / file.name)
    share(folder)


class Relay(TuneReportCallback):  # type: ignore[misc]
    """Carries the reports of a trial's workers to Tune; made in the trial's process, run by Ray Train's controller."""

    def __init__(self, run_id: str, epochs: int) -> None:
        super().__init__()
        self.run_id, self.epochs = run_id, epochs

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Report an epoch to Tune, except the last (of a fold), which is reported once the bundle exists."""
        epoch = int(metrics[0]["epoch"])
        if (epoch + 1) % self.epochs and "val/dice" in metrics[0]:
            progress = progress_report(self.run_id, epoch, metrics[0])
            super().after_report(run_context, [{**progress, GROUP: metrics[0][GROUP]}], None)


def open_trial(
    tracking: Tracking,
    trial_plan: TrialPlan,
    plan: Plan,
    number: str,
    point: Mapping[str, Any],
    *,
    later: bool = False,
) -> str:
    """Find this trial's run (a resumed trial has one) or start it below the search's; return its id."""
    params = {f"param.{key}": json.dumps(value) for key, value in point.items()}
    tags = {"trial_id": number, "search": trial_plan.search}
    parent = {"mlflow.parentRunId": trial_plan.parent}  # others may search under the same name
    earlier = tracking.find(plan.experiment.name, **tags, **parent)
    if earlier is not None:
        run_id = str(earlier.info.run_id)
        send_waiting(tracking.uri, run_id)
        tracking.reopen(run_id)
        tracking.set_tags(run_id, params)  # a population's parameters change on the way
        return run_id
    setting = Setting(plan.experiment, open_here(plan.prepared), plan.split, tracking)
    name = f"trial-{number:0>3} {trial_plan.search}"
    opening = opening_of(setting, "trial", name, parent=trial_plan.parent, tags={**tags, **params})
    searched = {f"search/{key}": value for key, value in point.items()}  # apart from what all trials share
    opening = replace(opening, params={**opening.params, **searched})
    if plan.prepared == trial_plan.plan.prepared:  # the search's run has the same split and cohort
        opening = replace(opening, texts={EXPERIMENT: opening.texts[EXPERIMENT]})
    return begin_run(tracking, opening, later=later)
