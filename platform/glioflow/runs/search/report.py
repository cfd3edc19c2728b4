"""What is left of a search for people: figures, the Pareto front, its cost."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from glioflow.bundle.prediction import Predictor
from glioflow.config.search import SearchSettings
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.errors import GlioflowError
from glioflow.runs.launch import Setting, run_folder

LABELS = {"dice": "Dice", "hd95": "HD95", "parameters": "parameters", "c_index": "C-index"}
# Finalists whose latency is measured.
FINALISTS = 5


def report_search(
    setting: Setting, name: str, storage: str, parent: str, runs: Sequence[Any], cohorts: Sequence[Path]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Log figures, front and cost to the parent run.

    Args:
        setting: Of the search.
        name: Of the search and its study.
        storage: Of Optuna.
        parent: Run of the search.
        runs: Of its trials.
        cohorts: Prepared ones that trials used.

    Returns:
        The Pareto front, empty where there is one objective, and the cost in hours.
    """
    tracking, settings = setting.tracking, setting.experiment.search
    cost = total_cost(runs)
    tracking.log_metrics(parent, cost)
    if settings.scheduler == "pbt":  # parameters change on the way: no study of points
        return [], cost
    study = optuna.load_study(study_name=name, storage=storage)
    page = draw(study, settings)
    if page:
        tracking.log_text(parent, "search.html", page)
    if len(settings.objectives) == 1:
        return [], cost
    numbers = {run.data.tags.get("trial_id"): run.info.run_id for run in runs}
    front = [_finalist(trial, settings, numbers.get(str(trial.number))) for trial in study.best_trials]
    front.sort(key=lambda entry: -float(entry["dice"]))
    for entry in front[:FINALISTS]:
        entry["latency_ms"] = _latency_ms(setting, entry["run_id"], cohorts)
        if entry["latency_ms"] is not None:
            tracking.log_metrics(entry["run_id"], {"latency_ms": entry["latency_ms"]})
    tracking.log_json(parent, "pareto_front.json", front)
    return front, cost


def total_cost(runs: Sequence[Any]) -> dict[str, float]:
    """Sum up what the trials' runs say they cost, and what stopping them early saved."""
    names = sorted({key for run in runs for key in run.data.metrics if key.startswith("cost/")})
    return {name: sum(float(run.data.metrics.get(name, 0.0)) for run in runs) for name in names}


def _finalist(trial: optuna.trial.FrozenTrial, settings: SearchSettings, run_id: str | None) -> dict[str, Any]:
    reached = dict(zip(settings.objectives, trial.values, strict=True))
    return {"trial": trial.number, "run_id": run_id, "params": trial.params, **reached}


def _latency_ms(setting: Setting, run_id: str | None, cohorts: Sequence[Path]) -> float | None:
    """Measure the median time for one validation case, here, alone: all trials have ended; None where it cannot be."""
    try:
        predictor = Predictor.load(next(run_folder(str(run_id)).glob("**/bundle")))  # any fold's: they are one network
    except (GlioflowError, OSError, StopIteration):
        return None
    steps = predictor.description.preprocess
    cohort = next(found for found in map(PreparedCohort, cohorts) if found.manifest.steps == steps)
    case = cohort.case(setting.split.val[0])
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        predictor.segment(case.image, case.record.moves)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def draw(study: optuna.Study, settings: SearchSettings) -> str:
    """Return one HTML page with Optuna's figures, which needs nothing beside it; empty before two finished trials."""
    import warnings

    from optuna import visualization as charts

    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
        return ""
    figures: list[Any] = []

    def add(plot: Callable[..., Any], **options: Any) -> None:
        try:
            figures.append(plot(study, **options))
        except (ValueError, RuntimeError):  # such as importances where all trials reached the same
            return

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, objective in enumerate(settings.objectives):
            about = {"target": lambda trial, k=k: trial.values[k], "target_name": LABELS[objective]}
            add(charts.plot_parallel_coordinate, **about)
            add(charts.plot_param_importances, **about)
            add(charts.plot_optimization_history, **about)
        if len(settings.objectives) in (2, 3):
            add(charts.plot_pareto_front, target_names=[LABELS[each] for each in settings.objectives])
        elif len(settings.objectives) == 1:
            add(charts.plot_intermediate_values)
    parts = [figure.to_html(full_html=False, include_plotlyjs=k == 0) for k, figure in enumerate(figures)]
    title = f"Search {study.study_name}"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{''.join(parts)}" if parts else ""
