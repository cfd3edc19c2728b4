"""Result of a search: its best trial, and the experiment with its parameters."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from glioflow.config import Experiment, override
from glioflow.config.search import Point, SearchSettings
from glioflow.errors import RunFailed, option
from glioflow.runs.launch import Setting, to_yaml
from glioflow.runs.search.earlier import finished_trials, point_of
from glioflow.runs.search.parent_run import ParentRun
from glioflow.runs.search.report import Finalist, report_search
from glioflow.runs.search.tuner import SearchFolder
from glioflow.tracking import PATIENCE_S
from glioflow.tracking.addresses import answers
from glioflow.tracking.logged_models import log_model
from glioflow.tracking.run import REASON, close_children


class BestTrial(TypedDict):
    """The best trial: its run, the values of the searched keys, and its metrics."""

    run_id: str
    params: Point
    metrics: dict[str, float]


@dataclass(frozen=True)
class Searched:
    """Result of a search; `front` has the best trials if there are several objectives."""

    name: str
    run_id: str
    num_trials: int
    best: BestTrial
    experiment: Experiment
    front: list[Finalist]
    cost: dict[str, float]


def conclude(setting: Setting, folder: SearchFolder, parent: ParentRun, cohorts: Sequence[Path]) -> Searched:
    """Close what was left open, name the best finished trial, and log it as an experiment ready to run."""
    tracking, experiment, name, run = setting.tracking, setting.experiment, folder.name, parent.run
    if not answers(tracking.uri, patience_s=PATIENCE_S):
        raise RunFailed(
            f"MLflow at {tracking.shown} does not answer; start it and continue with {option('resume', name)}"
        )
    close_children(tracking, experiment.name, run.run_id)
    parent.update(last=True)
    trials = tracking.children(experiment.name, run.run_id)
    finished = finished_trials(trials)
    if not finished:
        reasons = {trial.data.tags.get(REASON, "") for trial in trials} - {""}
        raise RunFailed(f"no trial of {name} finished{': ' + '; '.join(sorted(reasons)) if reasons else ''}")
    best = max(finished, key=lambda run: float(run.data.metrics["val/dice_mean"]))
    params = point_of(best, experiment)
    chosen = override(experiment, experiment.search.overrides(params))
    chosen = chosen.model_copy(update={"search": SearchSettings()})
    run.log_text("best.yaml", to_yaml(chosen))
    # The same names as for trainings, so that both can be sorted and compared in one table.
    run.log_metrics({key: value for key, value in best.data.metrics.items() if key.startswith("val/")})
    run.set_tags({"glioflow.best_run": best.info.run_id})
    front, cost = report_search(setting, folder.study, folder.storage, run, trials, cohorts)
    if experiment.search.folds == 1:  # with several folds, no fold's model is the trial's
        with contextlib.suppress(Exception):  # MLflow is unreachable: the search is complete, and `register` makes them
            for trial in finished:
                log_model(tracking, trial.info.run_id)
    best_trial: BestTrial = {"run_id": best.info.run_id, "params": params, "metrics": dict(best.data.metrics)}
    return Searched(name, run.run_id, len(trials), best_trial, chosen, front, cost)
