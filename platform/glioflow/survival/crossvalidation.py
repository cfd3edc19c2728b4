"""Out-of-fold predictions: everything that is learned, including imputation, is learned from other folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import KFold, LeaveOneOut, StratifiedKFold

from glioflow.survival.fitted import CoxModel, LinearModel, WeibullModel
from glioflow.survival.fitting import AnyModel, ForestModel, HazardForest, find_fit
from glioflow.survival.imputation import fit_preparation
from glioflow.survival.outcome import Outcome, choose_task, take_outcome
from glioflow.survival.preparation import Preparation
from glioflow.survival.settings import SurvivalSettings
from glioflow.survival.statistics import (
    Prediction,
    Statistic,
    class_accuracy,
    concordance,
    mean_of,
    survival_classes,
)

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Split = tuple[NDArray[np.int_], NDArray[np.int_]]
Predictor = Callable[["pd.DataFrame"], Prediction]
Learner = Callable[["pd.DataFrame", Outcome], Predictor]

_INNER_FOLDS = 3


@dataclass(frozen=True)
class Pipeline:
    """A fitted preparation and model, and the chosen penalty."""

    preparation: Preparation
    model: AnyModel
    penalty: float

    def predict(self, table: "pd.DataFrame", grid: Array) -> Prediction:
        """Return the predictions for the table's patients."""
        inputs = self.preparation.apply(table)
        risk = self.model.risk(inputs)
        match self.model:
            case CoxModel() | WeibullModel() | HazardForest():
                return Prediction(risk, survival=self.model.survival(inputs, grid))
            case LinearModel():
                return Prediction(risk, days=self.model.days(inputs))
            case ForestModel(family="days"):
                return Prediction(risk, days=self.model.days(inputs))
        return Prediction(risk, probability=self.model.event_probability(inputs))


def fit_pipeline(table: "pd.DataFrame", outcome: Outcome, settings: SurvivalSettings) -> Pipeline:
    """Fit preparation and model on patients; inner folds choose among several penalties."""
    fit = find_fit(settings.model, outcome.family)
    penalty = settings.penalties[0]
    if len(settings.penalties) > 1:
        penalty = _choose_penalty(table, outcome, settings)
    preparation = fit_preparation(table, settings)
    return Pipeline(preparation, fit(preparation.apply(table), outcome, penalty, settings.seed), penalty)


def learner(settings: SurvivalSettings, grid: Array) -> Learner:
    """Return the function that fits the settings' model to patients."""

    def learn(table: "pd.DataFrame", outcome: Outcome) -> Predictor:
        pipeline = fit_pipeline(table, outcome, settings)
        return lambda rows: pipeline.predict(rows, grid)

    return learn


def majority_learner(settings: SurvivalSettings, grid: Array) -> Learner:
    """Return the function that fits the majority baseline: the same prediction for everyone."""

    def learn(table: "pd.DataFrame", outcome: Outcome) -> Predictor:
        survival = kaplan_meier(outcome, grid) if outcome.family == "time" else None
        days = _majority_days(outcome, settings) if outcome.family == "days" else None
        share = float(outcome.event.mean()) if outcome.family == "binary" else None

        def predict(rows: "pd.DataFrame") -> Prediction:
            n = len(rows)
            return Prediction(
                risk=np.zeros(n),
                probability=None if share is None else np.full(n, share),
                survival=None if survival is None else np.tile(survival, (n, 1)),
                days=None if days is None else np.full(n, days),
            )

        return predict

    return learn


def possible_folds(outcome: Outcome, folds: int) -> int:
    """Return the number of folds: at most one per event (for `death01`, per patient of the rarer class)."""
    n, events = len(outcome.event), int(outcome.event.sum())
    if folds >= n:
        return n
    return max(2, min(folds, min(events, n - events) if outcome.family == "binary" else events))


def make_splits(outcome: Outcome, settings: SurvivalSettings, *, folds: int, seed: int) -> list[Split]:
    """Assign patients to folds, stratified by event (days: by class); leave-one-out if there are as many folds."""
    n = len(outcome.event)
    blank = np.zeros((n, 1))
    if folds >= n:
        return list(LeaveOneOut().split(blank))
    groups = outcome.event.astype(int)
    if outcome.family == "days":
        groups = survival_classes(outcome.days, settings.days_per_month)
    sizes = np.bincount(groups, minlength=2)
    folds = possible_folds(outcome, folds)
    if sizes[sizes > 0].min() < folds:  # e.g. BraTS's single censored patient: too rare to stratify
        return list(KFold(folds, shuffle=True, random_state=seed).split(blank))
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(blank, groups))


def out_of_fold(table: "pd.DataFrame", outcome: Outcome, learn: Learner, splits: Sequence[Split]) -> Prediction:
    """Return every patient's prediction by a model that was fitted without that patient."""
    parts = [(test, learn(table.iloc[train], outcome.take(train))(table.iloc[test])) for train, test in splits]
    order = np.argsort(np.concatenate([test for test, _ in parts]))

    def gather(name: str) -> Array | None:
        pieces = [getattr(prediction, name) for _, prediction in parts]
        return None if pieces[0] is None else np.concatenate(pieces)[order]

    risk = gather("risk")
    assert risk is not None
    return Prediction(risk, gather("probability"), gather("survival"), gather("days"))


def repeated_out_of_fold(
    table: "pd.DataFrame", outcome: Outcome, learn: Learner, settings: SurvivalSettings
) -> list[Prediction]:
    """Return `out_of_fold` for each of the settings' cross-validations; leave-one-out is the same each time."""
    repeats = 1 if settings.folds >= len(table) else settings.repeats
    return [
        out_of_fold(
            table, outcome, learn, make_splits(outcome, settings, folds=settings.folds, seed=settings.seed + repeat)
        )
        for repeat in range(repeats)
    ]


def cross_validated_concordance(table: "pd.DataFrame", settings: SurvivalSettings) -> float | None:
    """Return only the C-index of the settings' model over its repeated cross-validation.

    Args:
        table: One row per patient, clinical columns and shape features (`join_features`).
        settings: Task, model, inputs, folds; of `death01` it is the area under the ROC curve.

    Returns:
        Mean over the repeats, in [0, 1]; None if no two patients can be compared.

    Raises:
        UserError: If there are too few patients or events, or a column is missing.
    """
    rows, outcome = take_outcome(table, choose_task(table, settings))
    grid = np.quantile(outcome.days, [0.1, 0.9])  # for survival curves, which are not used here
    predictions = repeated_out_of_fold(rows, outcome, learner(settings, grid), settings)
    mean = mean_of([concordance(outcome, one.risk) for one in predictions])
    value = float(mean.value(np.ones((1, len(rows))))[0])
    return value if np.isfinite(value) else None


def primary_statistic(outcome: Outcome, prediction: Prediction, settings: SurvivalSettings) -> Statistic:
    """Return the primary score: AUROC, C-index, or the accuracy of BraTS's classes. Higher is better."""
    if outcome.family == "days":
        assert prediction.days is not None
        return class_accuracy(outcome, prediction.days, settings.days_per_month)
    return concordance(outcome, prediction.risk)


def _choose_penalty(table: "pd.DataFrame", outcome: Outcome, settings: SurvivalSettings) -> float:
    splits = make_splits(outcome, settings, folds=_INNER_FOLDS, seed=settings.seed)
    everyone = np.ones((1, len(outcome.event)))
    scores = []
    for penalty in settings.penalties:
        learn = learner(settings.model_copy(update={"penalties": (penalty,)}), np.array([0.0, 1.0]))
        statistic = primary_statistic(outcome, out_of_fold(table, outcome, learn, splits), settings)
        scores.append(float(np.nan_to_num(statistic.value(everyone)[0])))
    return settings.penalties[int(np.argmax(scores))]


def kaplan_meier(outcome: Outcome, grid: Array) -> Array:
    """Return the survival of all patients at the grid's days, by Kaplan and Meier."""
    ends = stats.CensoredData.right_censored(outcome.days, ~outcome.event)
    return np.asarray(stats.ecdf(ends).sf.evaluate(grid))


def _majority_days(outcome: Outcome, settings: SurvivalSettings) -> float:
    days = outcome.days[outcome.event]
    classes = survival_classes(days, settings.days_per_month)
    return float(np.median(days[classes == np.bincount(classes).argmax()]))
