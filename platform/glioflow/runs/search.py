"""A search: Tune over Optuna, each trial in its own process and its own MLflow run below the search's."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from glioflow import cluster
from glioflow.config import Experiment, override
from glioflow.config.places import home
from glioflow.data.prepared import PreparedCohort
from glioflow.errors import RunFailed, UserError
from glioflow.runs.announcer import LISTENERS, Announcer
from glioflow.runs.launch import Say, Setting, now, open_run, open_setting, quiet, run_folder, to_yaml
from glioflow.runs.plan import Plan, train_plan
from glioflow.runs.searcher import METRIC, Searcher, count_open
from glioflow.tracking import BUNDLE, RunWriter, Tracking


@dataclass(frozen=True)
class Searched:
    """What a search ended with."""

    name: str
    run_id: str
    num_trials: int
    best: dict[str, Any]
    experiment: Experiment


class TrialPlan(BaseModel):
    """What every trial of a search needs to know; the parameters come from the searcher."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    plan: Plan
    parent: str
    search: str


def search(
    experiment: Experiment,
    data: str | Path | None,
    *,
    trials: int | None = None,
    resume: str | None = None,
    say: Say = quiet,
) -> Searched:
    """Search the experiment's space and log every trial below one parent run.

    Args:
        experiment: With `search.space`.
        data: Cohort, raw or prepared; None takes the experiment's.
        trials: How many configurations; None takes `search.trials`.
        resume: Name of an interrupted search to go on with.
        say: Told what happens.

    Raises:
        UserError: If anything given is wrong.
        RunFailed: If no trial succeeded.
    """
    settings = experiment.search
    if not settings.space:
        raise UserError("a search needs search.space in the experiment", experiment.name)
    if experiment.training.num_workers > 1:
        raise UserError(
            "a trial trains with one worker; set training.num_workers to 1", experiment.training.num_workers
        )
    name = resume or settings.name or f"{experiment.name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = home() / "searches" / name
    if resume and not (folder / "tune").exists():
        raise UserError("--resume names a search that was begun", name, _begun())
    if not resume and folder.exists():
        raise UserError("a search of this name exists: resume it with --resume, or choose another search.name", name)
    setting = open_setting(experiment, data, say=say)
    parent = _parent(setting, name)
    say(f"search {name}, run {parent}")
    try:
        _run(setting, name, folder, parent, trials or settings.trials, resume=bool(resume), say=say)
        found = _conclude(setting, name, parent)
    except BaseException as error:
        close_children(setting.tracking, experiment.name, parent)
        setting.tracking.finish(parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    setting.tracking.finish(parent)
    return found


def _begun() -> list[str]:
    folder = home() / "searches"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _parent(setting: Setting, name: str) -> str:
    found = setting.tracking.find(setting.experiment.name, search=name, kind="search")
    if found is not None:
        setting.tracking.reopen(found.info.run_id)
        return str(found.info.run_id)
    run_id = open_run(setting, "search", name, tags={"search": name, "kind": "search"})
    setting.tracking.log_json(run_id, "search.json", setting.experiment.search.model_dump(mode="json"))
    return run_id


def _run(setting: Setting, name: str, folder: Path, parent: str, trials: int, *, resume: bool, say: Say) -> None:
    from ray import tune

    LISTENERS[name] = say
    experiment = setting.experiment
    training = experiment.training
    trial_plan = TrialPlan(
        plan=Plan(
            experiment=experiment,
            prepared=setting.cohort.path,
            split=setting.split,
            run_id="",
            tracking_uri=setting.tracking.uri,
            folder=folder,
            created=now(),
        ),
        parent=parent,
        search=name,
    )
    each = {"CPU": training.cpus_per_worker, **({"GPU": training.gpus_per_worker} if training.gpus_per_worker else {})}
    trainable = tune.with_resources(tune.with_parameters(run_trial, said=trial_plan.model_dump_json()), each)
    storage = f"sqlite:///{folder / 'optuna.db'}"
    if resume:
        tuner = tune.Tuner.restore(
            str(folder / "tune"), trainable=trainable, resume_unfinished=True, resume_errored=True
        )
    else:
        folder.mkdir(parents=True)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Searcher(experiment.search, name=name, storage=storage),
                scheduler=_scheduler(experiment),
                num_samples=trials,
                max_concurrent_trials=experiment.search.concurrent or None,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                failure_config=tune.FailureConfig(max_failures=1),
                callbacks=[Announcer(name, trials)],
                verbose=0,
            ),
        )
    tuner.fit()
    if count_open(name, storage):  # Tune takes the first Ctrl-C for itself and returns as if all were well
        say(f"interrupted; go on with --resume {name}")
        raise KeyboardInterrupt


def _scheduler(experiment: Experiment) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if experiment.search.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        metric=METRIC,
        mode="max",
        max_t=experiment.training.epochs + 1,  # the last epoch ends a trial by itself, as finished, not as stopped
        grace_period=min(experiment.search.grace_epochs, experiment.training.epochs),
        reduction_factor=experiment.search.reduction,
    )


def run_trial(config: Mapping[str, Any], said: str) -> None:
    """Train one configuration in the trial's own process, reporting to Tune and to its own MLflow run."""
    from ray import tune

    cluster.silence()
    trial_plan = TrialPlan.model_validate_json(said)
    trial_id = tune.get_context().get_trial_id()
    experiment = override(trial_plan.plan.experiment, config)
    tracking = Tracking(trial_plan.plan.tracking_uri)
    run_id = _trial_run(tracking, trial_plan, experiment, trial_id, config)
    plan = trial_plan.plan.model_copy(
        update={"experiment": experiment, "run_id": run_id, "folder": run_folder(run_id), "created": now()}
    )
    writer = RunWriter(plan.tracking_uri, run_id, plan.spool)
    latest: dict[str, Any] = {}

    def report(epoch: int, metrics: dict[str, float], write_checkpoint: Callable[[Path], None]) -> None:
        writer.write(metrics, step=epoch)
        latest.update({"epoch": epoch + 1, METRIC: metrics["val/dice"], "finished": False, "run_id": run_id})
        if epoch + 1 == experiment.training.epochs:
            return  # told once the bundle exists: a scheduler may end a trial at any report
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder))
            tune.report(dict(latest), checkpoint=tune.Checkpoint.from_directory(folder))

    status = "FAILED"
    try:
        checkpoint = tune.get_checkpoint()
        if checkpoint is None:
            metrics = train_plan(plan, report)
        else:
            with checkpoint.as_directory() as folder:
                metrics = train_plan(plan, report, resume=Path(folder))
        tracking.log_metrics(run_id, metrics or {})
        tracking.log_folder(run_id, plan.bundle, folder=BUNDLE)
        status = "FINISHED"
    except SystemExit:
        status = "KILLED"  # the scheduler stopped it
        tracking.set_tags(run_id, {"glioflow.pruned": "true"})
        raise
    except RunFailed as error:
        tracking.set_tags(run_id, {"glioflow.reason": str(error)[:500]})
        raise
    finally:
        writer.close()
        tracking.finish(run_id, status)
    tune.report({**latest, "finished": True})


def _trial_run(
    tracking: Tracking, trial_plan: TrialPlan, experiment: Experiment, trial_id: str, config: Mapping[str, Any]
) -> str:
    """Find this trial's run (a resumed trial has one) or start it below the search's."""
    found = tracking.find(experiment.name, trial_id=trial_id, search=trial_plan.search)
    if found is not None:
        tracking.reopen(found.info.run_id)
        return str(found.info.run_id)
    plan = trial_plan.plan
    setting = Setting(experiment, PreparedCohort(plan.prepared), plan.split, tracking)
    tags = {
        "trial_id": trial_id,
        "search": trial_plan.search,
        **{f"param.{k}": json.dumps(v) for k, v in config.items()},
    }
    return open_run(setting, "trial", f"{trial_plan.search}-{trial_id}", parent=trial_plan.parent, tags=tags)


def close_children(tracking: Tracking, experiment: str, parent: str) -> None:
    """Close the children that no process will close: those of trials that were killed."""
    for run in tracking.children(experiment, parent):
        if run.info.status == "RUNNING":
            tracking.finish(run.info.run_id, "KILLED")


def _conclude(setting: Setting, name: str, parent: str) -> Searched:
    """Close what was left open, name the best finished trial, and log it as an experiment ready to run."""
    tracking, experiment = setting.tracking, setting.experiment
    close_children(tracking, experiment.name, parent)
    runs = tracking.children(experiment.name, parent)
    finished = [run for run in runs if run.info.status == "FINISHED" and "val/dice_mean" in run.data.metrics]
    if not finished:
        reasons = {run.data.tags.get("glioflow.reason", "") for run in runs} - {""}
        raise RunFailed(f"no trial of {name} finished{': ' + '; '.join(sorted(reasons)) if reasons else ''}")
    best = max(finished, key=lambda run: float(run.data.metrics["val/dice_mean"]))
    tags = best.data.tags
    params = {key: json.loads(tags[f"param.{key}"]) for key in experiment.search.space if f"param.{key}" in tags}
    chosen = override(experiment, params)
    chosen = chosen.model_copy(update={"search": type(experiment.search)()})
    tracking.log_text(parent, "best.yaml", to_yaml(chosen))
    tracking.log_metrics(parent, {f"best/{key}": value for key, value in best.data.metrics.items()})
    tracking.set_tags(parent, {"glioflow.best_run": best.info.run_id})
    said = {"run_id": best.info.run_id, "params": params, "metrics": dict(best.data.metrics)}
    return Searched(name, parent, len(runs), said, chosen)
