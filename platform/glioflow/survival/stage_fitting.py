"""Fitting of a bundle's survival stage, on all patients."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from glioflow.errors import UserError
from glioflow.survival.crossvalidation import fit_pipeline
from glioflow.survival.evaluated import SurvivalEvaluation
from glioflow.survival.evaluation import evaluate_stage
from glioflow.survival.fitting import ForestModel, HazardForest, find_fit
from glioflow.survival.outcome import Outcome, choose_task, take_outcome
from glioflow.survival.settings import SurvivalSettings
from glioflow.survival.stage import SurvivalStage

_NUM_REPLICATES = 100
_CURVE_POINTS = 20


def fit_stage(
    table: pd.DataFrame, settings: SurvivalSettings, *, evaluation: SurvivalEvaluation | None = None
) -> SurvivalStage:
    """Fit a survival stage on all patients, and include its cross-validated evaluation.

    Args:
        table: One row per patient, clinical columns and shape features of out-of-fold masks (`join_features`).
        settings: Task, model, inputs.
        evaluation: Evaluation for the same table and settings; None computes it.

    Raises:
        UserError: If there are too few patients or events, a column is missing, or the model cannot be stored.
    """
    task = choose_task(table, settings)
    rows, outcome = take_outcome(table, task)
    fit = find_fit(settings.model, outcome.family)
    if not settings.storable:
        raise UserError(
            "a survival stage must consist of plain numbers to be stored", settings.model, ["ridge", "weibull_aft"]
        )
    evaluated = evaluation or evaluate_stage(table, settings)
    pipeline = fit_pipeline(rows, outcome, settings)
    assert not isinstance(pipeline.model, ForestModel | HazardForest)
    inputs = pipeline.preparation.apply(rows)
    replicates = []
    for index in _resamples(outcome, settings.seed):
        replicate = fit(inputs[index], outcome.take(index), pipeline.penalty, settings.seed)
        assert not isinstance(replicate, ForestModel | HazardForest)
        replicates.append(replicate)
    return SurvivalStage(
        task=task,
        settings=settings,
        preparation=pipeline.preparation,
        model=pipeline.model,
        replicates=replicates,
        curve_days=_curve_days(outcome, settings) if outcome.family == "time" else [],
        num_patients=len(rows),
        num_events=int(outcome.event.sum()),
        primary_metric=evaluated.primary_metric,
        metrics=evaluated.metrics,
        baselines=evaluated.baselines,
        beats_baselines=evaluated.beats_baselines,
        warnings=evaluated.warnings,
    )


def _resamples(outcome: Outcome, seed: int) -> list[NDArray[np.int_]]:
    """Patients drawn with replacement, with and without event apart, so that every draw can be fitted."""
    rng = np.random.default_rng(seed)
    groups = [group for group in (np.flatnonzero(outcome.event), np.flatnonzero(~outcome.event)) if len(group)]
    return [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(_NUM_REPLICATES)]


def _curve_days(outcome: Outcome, settings: SurvivalSettings) -> list[float]:
    last = float(outcome.days.max())
    steps = np.quantile(outcome.days[outcome.event], np.linspace(0, 1, _CURVE_POINTS))
    stated = [day for day in settings.horizons_days if day <= last]
    return sorted({0.0, *np.round(steps).tolist(), *map(float, stated)})
