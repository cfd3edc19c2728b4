"""The report of a search: figures, the Pareto front, its cost."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Required, TypedDict

import optuna
from optuna.trial import TrialState

from glioflow.bundle.prediction import Predictor
from glioflow.cluster.remote_home import fetch
from glioflow.config.search import Point, SearchSettings
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.errors import GlioflowError
from glioflow.runs.launch import Setting
from glioflow.runs.search.searcher import chosen_point
from glioflow.tracking.run import Run
from glioflow.tracking.spool import run_folder

LABELS = {"dice": "val/dice_mean", "hd95": "val/hd95_mean", "parameters": "parameters", "c_index": "val/c_index"}
# Number of finalists whose latency is measured.
FINALISTS = 5
# Artifact of a search with several objectives: its finalists.
PARETO_FRONT = "pareto_front.json"


class Finalist(TypedDict, total=False):
    """A trial of the Pareto front: its run, parameters, values of the objectives, and median time for one case."""

    trial: Required[int]
    run_id: Required[str | None]
    params: Required[Point]
    dice: Required[float]
    hd95: float
    parameters: float
    c_index: float
    latency_ms: float | None


def report_search(
    setting: Setting, name: str, storage: str, run: Run, trials: Sequence[Any], cohorts: Sequence[Path]
) -> tuple[list[Finalist], dict[str, float]]:
    """Log front and cost to the run of the search.

    Args:
        setting: Setting of the search.
        name: Name of the search and its study.
        storage: Optuna's storage.
        run: Run of the search.
        trials: MLflow's runs of its trials.
        cohorts: Prepared ones that trials used.

    Returns:
        The Pareto front, empty where there is one objective, and the cost in hours.
    """
    tracking, settings = setting.tracking, setting.experiment.search
    cost = total_cost(trials)
    run.log_metrics(cost)
    if settings.scheduler == "pbt":  # parameters change during training: there is no study of points
        return [], cost
    study = optuna.load_study(study_name=name, storage=storage)
    if len(settings.objectives) == 1:
        return [], cost
    numbers = {each.data.tags.get("trial_id"): each.info.run_id for each in trials}
    front = [_finalist(trial, settings, numbers.get(str(trial.number))) for trial in study.best_trials]
    front.sort(key=lambda entry: -float(entry["dice"]))
    for entry in front[:FINALISTS]:
        entry["latency_ms"] = _latency_ms(setting, entry["run_id"], cohorts)
        if entry["run_id"] is not None and entry["latency_ms"] is not None:
            tracking.log_metrics(entry["run_id"], {"latency_ms": entry["latency_ms"]})
    run.log_json(PARETO_FRONT, front)
    return front, cost


def total_cost(trials: Sequence[Any]) -> dict[str, float]:
    """Sum up what the trials' runs say they cost, and what stopping them early saved."""
    names = sorted({key for trial in trials for key in trial.data.metrics if key.startswith("cost/")})
    return {name: sum(float(trial.data.metrics.get(name, 0.0)) for trial in trials) for name in names}


def _finalist(trial: optuna.trial.FrozenTrial, settings: SearchSettings, run_id: str | None) -> Finalist:
    values: dict[str, float] = dict(zip(settings.objectives, trial.values, strict=True))
    params = chosen_point(trial.params, settings)
    finalist: Finalist = {"trial": trial.number, "run_id": run_id, "params": params, **values}  # type: ignore[typeddict-item]
    return finalist


def _latency_ms(setting: Setting, run_id: str | None, cohorts: Sequence[Path]) -> float | None:
    """Measure the median time for one validation case, here, alone: all trials have ended; None where it cannot be."""
    try:
        predictor = Predictor.load(_bundle_of(setting, str(run_id)))
    except (GlioflowError, OSError):
        return None
    steps = predictor.description.preprocess
    cohort = next(each for each in map(PreparedCohort, cohorts) if each.manifest.steps == steps)
    case = cohort.case(setting.split.val[0])
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        predictor.segment(case.image, case.record.moves)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def _bundle_of(setting: Setting, run_id: str) -> Path:
    """Return the bundle of a trial: any fold's, since they are one network; MLflow's, where no node left one."""
    fetch(run_folder(run_id))
    left = next(run_folder(run_id).glob("**/bundle"), None)
    return setting.tracking.find_bundle(run_id)[0] if left is None else left


def draw(study: optuna.Study, settings: SearchSettings) -> str:
    """Return one HTML page with Optuna's figures, which needs nothing beside it; empty before two finished trials."""
    from optuna import visualization as charts

    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
        return ""
    figures: list[Any] = []

    def add(plot: Callable[..., Any], **options: Any) -> None:
        try:
            figures.append(plot(study, **options))
        except (ValueError, RuntimeError):  # such as importances if all trials have the same value
            return

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, objective in enumerate(settings.objectives):
            about = {"target": lambda trial, k=k: trial.values[k], "target_name": LABELS[objective]}
            add(charts.plot_optimization_history, **about)
            add(charts.plot_parallel_coordinate, **about)
            add(charts.plot_param_importances, **about)
        if len(settings.objectives) in (2, 3):
            add(charts.plot_pareto_front, target_names=[LABELS[each] for each in settings.objectives])
        elif len(settings.objectives) == 1:
            add(charts.plot_intermediate_values)
    parts = [figure.to_html(full_html=False, include_plotlyjs=k == 0) for k, figure in enumerate(figures)]
    title = f"Search {study.study_name}"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{''.join(parts)}" if parts else ""
