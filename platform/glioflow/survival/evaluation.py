"""Evaluation of a survival stage: repeated cross-validation by patient, compared with baselines."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from glioflow.survival import statistics
from glioflow.survival.calibration import calibration, calibration_over_time
from glioflow.survival.clinical_columns import column_of
from glioflow.survival.crossvalidation import (
    Learner,
    learner,
    majority_learner,
    make_splits,
    out_of_fold,
    possible_folds,
    primary_statistic,
    repeated_out_of_fold,
)
from glioflow.survival.evaluated import Interval, RiskGroups, SurvivalEvaluation
from glioflow.survival.outcome import Outcome, choose_task, take_outcome
from glioflow.survival.settings import SurvivalSettings
from glioflow.survival.statistics import Prediction, Statistic, mean_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
_FEW_EVENTS = 10  # with fewer, nothing is claimed; with fewer per input, a regression is known to be unstable
_GRID_POINTS = 30

PRIMARY_METRIC = {"binary": "auroc", "time": "c_index", "days": "accuracy"}


def evaluate_stage(table: "pd.DataFrame", settings: SurvivalSettings) -> SurvivalEvaluation:
    """Evaluate a survival stage by repeated cross-validation over patients.

    Args:
        table: One row per patient, clinical columns and shape features (`join_features`).
        settings: Task, model, inputs, folds.

    Raises:
        UserError: If there are too few patients or events, or a column is missing.
    """
    task = choose_task(table, settings)
    rows, outcome = take_outcome(table, task)
    grid = _grid(outcome)
    counts = _bootstrap_counts(len(rows), settings)
    learners = {"model": learner(settings, grid), **_baseline_learners(rows, settings, grid)}
    predictions = {name: repeated_out_of_fold(rows, outcome, learn, settings) for name, learn in learners.items()}
    metrics = {name: _metrics(outcome, of, settings, grid, counts) for name, of in predictions.items()}
    deciding = {
        name: mean_of([primary_statistic(outcome, one, settings) for one in of]).value(counts)
        for name, of in predictions.items()
    }
    differences = {name: _interval(deciding["model"] - deciding[name]) for name in learners if name != "model"}
    clear = all(one.low is not None and one.low > 0 for one in differences.values())
    beats = clear and _fewest(outcome) >= _FEW_EVENTS
    risk = np.mean([one.risk for one in predictions["model"]], axis=0)
    return SurvivalEvaluation(
        task=task,
        model=settings.model,
        primary=settings.primary,
        num_patients=len(rows),
        num_events=int(outcome.event.sum()),
        primary_metric=PRIMARY_METRIC[outcome.family],
        metrics=metrics.pop("model"),
        baselines=metrics,
        differences=differences,
        beats_baselines=beats,
        p_value=_permutation_test(rows, outcome, learners["model"], settings),
        risk_groups=compare_risk_groups(outcome, risk) if outcome.family == "time" else None,
        out_of_fold=dict(zip(map(str, rows.index), risk.tolist(), strict=True)),
        warnings=[*_without_values(rows, settings), *_warnings(outcome, settings, beats, differences)],
    )


def _bootstrap_counts(num_patients: int, settings: SurvivalSettings) -> Array:
    """How often each patient is in: first everyone once, then each resampling."""
    rng = np.random.default_rng(settings.seed)
    drawn = rng.multinomial(num_patients, np.full(num_patients, 1 / num_patients), size=settings.num_bootstrap)
    return np.concatenate([np.ones((1, num_patients)), drawn])


def _baseline_learners(rows: "pd.DataFrame", settings: SurvivalSettings, grid: Array) -> dict[str, Learner]:
    learners = {"majority": majority_learner(settings, grid)}
    for name, column in (("age_only", "age_years"), ("institution_only", "institution")):
        if column in rows and rows[column].nunique() > 1:
            alone = settings.model_copy(update={"model": "ridge", "shape_features": (), "clinical": (column,)})
            learners[name] = learner(alone, grid)
    return learners


def _metrics(
    outcome: Outcome, predictions: list[Prediction], settings: SurvivalSettings, grid: Array, counts: Array
) -> dict[str, Interval]:
    resampled: dict[str, list[Statistic]] = {}
    plain: dict[str, list[float]] = {}
    for prediction in predictions:
        for name, statistic in _statistics(outcome, prediction, settings, grid).items():
            resampled.setdefault(name, []).append(statistic)
        for name, value in _plain_metrics(outcome, prediction, settings, grid).items():
            plain.setdefault(name, []).append(value)
    metrics = {name: _interval(mean_of(parts).value(counts)) for name, parts in resampled.items()}
    return metrics | {name: Interval(value=_finite(np.mean(values))) for name, values in plain.items()}


def _statistics(
    outcome: Outcome, prediction: Prediction, settings: SurvivalSettings, grid: Array
) -> dict[str, Statistic]:
    ranked = statistics.concordance(outcome, prediction.risk)
    computed = {"auroc" if outcome.family == "binary" else "c_index": ranked}
    if prediction.probability is not None:
        computed["brier"] = statistics.brier(outcome, prediction.probability)
        computed["accuracy"] = statistics.accuracy(outcome, prediction.probability)
    if prediction.survival is not None:
        computed["ibs"] = statistics.integrated_brier(outcome, prediction.survival, grid)
    if outcome.family == "time":
        for day in settings.horizons_days:
            computed[f"auc_{day:g}_days"] = statistics.auc_at(outcome, prediction.risk, day)
    if prediction.days is not None:
        computed["accuracy"] = statistics.class_accuracy(outcome, prediction.days, settings.days_per_month)
        computed["mse_days2"] = statistics.squared_error(outcome, prediction.days)
    return computed


def _plain_metrics(
    outcome: Outcome, prediction: Prediction, settings: SurvivalSettings, grid: Array
) -> dict[str, float]:
    if prediction.survival is not None:
        return calibration_over_time(outcome, prediction, prediction.survival, settings, grid)
    if prediction.probability is not None:
        return calibration(outcome, prediction.probability)
    if prediction.days is not None:
        predicted, true = prediction.days[outcome.event], outcome.days[outcome.event]
        errors = (predicted - true) ** 2
        constant = np.ptp(predicted) == 0
        return {
            "median_se_days2": float(np.median(errors)),
            "std_se_days2": float(errors.std()),
            "spearman": float("nan") if constant else float(stats.spearmanr(predicted, true).statistic),
        }
    return {}


def _permutation_test(
    rows: "pd.DataFrame", outcome: Outcome, learn: Learner, settings: SurvivalSettings
) -> float | None:
    if settings.num_permutations == 0:
        return None
    rng = np.random.default_rng(settings.seed)
    everyone = np.ones((1, len(rows)))
    folds = min(settings.folds, 5)

    def score(of: Outcome) -> float:
        splits = make_splits(of, settings, folds=folds, seed=settings.seed)
        statistic = primary_statistic(of, out_of_fold(rows, of, learn, splits), settings)
        return float(np.nan_to_num(statistic.value(everyone)[0]))

    reached = score(outcome)
    shuffled = [score(outcome.take(rng.permutation(len(rows)))) for _ in range(settings.num_permutations)]
    return (1 + sum(one >= reached for one in shuffled)) / (1 + len(shuffled))


def compare_risk_groups(outcome: Outcome, risk: Array) -> RiskGroups | None:
    """Return the Kaplan-Meier curves of the patients above and below the median risk, compared by the log-rank test."""
    high = risk > np.median(risk)
    if high.all() or not high.any():
        return None
    low_group, high_group = (
        stats.CensoredData.right_censored(outcome.days[group], ~outcome.event[group]) for group in (~high, high)
    )
    days, survival = {}, {}
    for name, group in (("low", low_group), ("high", high_group)):
        curve = stats.ecdf(group).sf
        days[name], survival[name] = [0.0, *curve.quantiles.tolist()], [1.0, *curve.probabilities.tolist()]
    p_value = stats.logrank(low_group, high_group).pvalue if outcome.event.any() else np.nan
    return RiskGroups(days=days, survival=survival, log_rank_p=_finite(p_value))


def _grid(outcome: Outcome) -> Array:
    low, high = np.quantile(outcome.days, [0.1, 0.9])
    return np.linspace(low, max(high, low + 1), _GRID_POINTS)


def _interval(values: Array) -> Interval:
    """The first value is that of all patients, the others are resampled."""
    kept = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
    return Interval(value=_finite(values[0]), low=_finite(low), high=_finite(high))


def _finite(value: float | np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _fewest(outcome: Outcome) -> int:
    """Events, or of `death01` the patients of the rarer kind."""
    events = int(outcome.event.sum())
    return min(events, len(outcome.event) - events) if outcome.family == "binary" else events


def _without_values(rows: "pd.DataFrame", settings: SurvivalSettings) -> list[str]:
    """Warn of inputs that tell no patient from another, such as a feature that is undefined for all."""
    known = {name: rows[column_of(name, rows)].nunique() for name in (*settings.shape_features, *settings.clinical)}
    return [
        f"the input {name} is {'the same' if values else 'missing'} for all {len(rows)} patients"
        for name, values in known.items()
        if values < 2
    ]


def _warnings(outcome: Outcome, settings: SurvivalSettings, beats: bool, differences: dict[str, Interval]) -> list[str]:
    fewer = _fewest(outcome)
    inputs = len(settings.shape_features) + len(settings.clinical)
    warnings = []
    if fewer < _FEW_EVENTS * inputs:
        warnings.append(
            f"{fewer} events for {inputs} inputs among {len(outcome.event)} patients: most of this is noise"
        )
    folds = possible_folds(outcome, settings.folds)
    if folds < min(settings.folds, len(outcome.event)):
        warnings.append(f"{folds} folds in place of {settings.folds}: {fewer} events allow no more")
    if not settings.primary:
        warnings.append("exploratory: not the model that was fixed beforehand")
    if not beats:
        level = [name for name, one in differences.items() if one.low is None or one.low <= 0]
        reason = ", ".join(level) or f"a claim needs {_FEW_EVENTS} events; there are {fewer}"
        warnings.append(f"does not clearly beat its baselines ({reason})")
    missing = [name for name in ("age_only", "institution_only") if name not in differences]
    if missing:
        warnings.append(f"the table has no column for the baselines {', '.join(missing)}")
    return warnings
