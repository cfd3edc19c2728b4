"""Fitting of each model on standardized inputs and an outcome. Independent of tables and folds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn import ensemble
from sklearn.linear_model import LogisticRegression, Ridge

from glioflow.errors import UserError
from glioflow.survival.censoring import censoring_weights
from glioflow.survival.fitted import CoxModel, LinearModel, LogisticModel, WeibullModel
from glioflow.survival.outcome import Family, Outcome
from glioflow.survival.settings import Model

Array = NDArray[np.float64]
PlainModel = LogisticModel | CoxModel | WeibullModel | LinearModel


@dataclass(frozen=True)
class ForestModel:
    """A fitted scikit-learn ensemble: for exploring only, since it cannot be stored as plain numbers."""

    estimator: Any
    family: Family

    def event_probability(self, inputs: Array) -> Array:
        """Return (N,) probabilities of death."""
        return np.asarray(self.estimator.predict_proba(inputs)[:, 1], dtype=np.float64)

    def days(self, inputs: Array) -> Array:
        """Return (N,) predicted days."""
        return np.asarray(self.estimator.predict(inputs), dtype=np.float64)

    def risk(self, inputs: Array) -> Array:
        """Return (N,) risks, higher is worse."""
        return self.event_probability(inputs) if self.family == "binary" else -self.days(inputs)


@dataclass(frozen=True)
class HazardForest:
    """A fitted scikit-learn ensemble of the hazard in successive intervals of time: for exploring only.

    Attributes:
        estimator: Classifier of (inputs, number of the interval): whether the event falls into it.
        ends: (K,) last day of each interval, ascending.
    """

    estimator: Any
    ends: Array

    def risk(self, inputs: Array) -> Array:
        """Return (N,) cumulative hazards over all intervals, higher is worse."""
        return np.asarray(-np.log(np.maximum(self._at_ends(inputs)[:, -1], 1e-12)), dtype=np.float64)

    def survival(self, inputs: Array, days: Array) -> Array:
        """Return (N, T) probabilities of no event until each of `days`; linear within an interval."""
        ends, known = np.concatenate([[0.0], self.ends]), self._at_ends(inputs)
        return np.stack([np.interp(days, ends, [1.0, *row]) for row in known])

    def _at_ends(self, inputs: Array) -> Array:
        number = np.tile(np.arange(len(self.ends)), len(inputs))
        rows = np.column_stack([np.repeat(inputs, len(self.ends), axis=0), number])
        hazard = self.estimator.predict_proba(rows)[:, 1].reshape(len(inputs), -1)
        return np.asarray(np.cumprod(1 - hazard, axis=1), dtype=np.float64)


AnyModel = PlainModel | ForestModel | HazardForest
Fit = Callable[[Array, Outcome, float, int], AnyModel]
_NUM_INTERVALS = 6


def fit_logistic(inputs: Array, outcome: Outcome, penalty: float, seed: int) -> LogisticModel:
    """Fit a ridge logistic regression; the intercept is not penalized."""
    fitted = LogisticRegression(C=1 / penalty, max_iter=1000).fit(inputs, outcome.event)
    return LogisticModel(intercept=float(fitted.intercept_[0]), coefficients=fitted.coef_[0].tolist())


def fit_cox(inputs: Array, outcome: Outcome, penalty: float, seed: int) -> CoxModel:
    """Fit a ridge Cox regression by Newton's method, ties by Breslow, with Breslow's baseline hazard.

    Cross-validation and permutations take thousands of fits, too many for a general library at 50 ms each. The tests
    compare it with values from lifelines.
    """
    order = np.argsort(-outcome.days, kind="stable")
    x, days, event = inputs[order], outcome.days[order], outcome.event[order]
    last = np.searchsorted(-days, -days, side="right") - 1  # risk set of i: all up to the last with equal days
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        weight = np.exp(np.clip(x @ beta, -50, 50))
        total = np.cumsum(weight)[last][event]
        first = np.cumsum(weight[:, None] * x, axis=0)[last][event] / total[:, None]
        second = np.cumsum(weight[:, None, None] * x[:, :, None] * x[:, None, :], axis=0)[last][event]
        gradient = (x[event] - first).sum(axis=0) - penalty * beta
        curvature = (second / total[:, None, None]).sum(axis=0) - first.T @ first + penalty * np.eye(len(beta))
        step = np.linalg.solve(curvature, gradient)
        beta = beta + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    weight = np.exp(np.clip(x @ beta, -50, 50))
    times = np.unique(days[event])
    increments = [float(event[days == t].sum() / weight[days >= t].sum()) for t in times]
    return CoxModel(coefficients=beta.tolist(), days=times.tolist(), cumulative_hazard=np.cumsum(increments).tolist())


def fit_weibull(inputs: Array, outcome: Outcome, penalty: float, seed: int) -> WeibullModel:
    """Fit a ridge Weibull regression of times by maximum likelihood; ours for the same reason as `fit_cox`."""
    log_days = np.log(np.maximum(outcome.days, 0.5))
    design = np.column_stack([np.ones(len(inputs)), inputs])
    event = outcome.event.astype(np.float64)

    def loss(values: Array) -> tuple[float, Array]:
        log_shape, beta = values[0], values[1:]
        shape = np.exp(log_shape)
        scaled = shape * (log_days - design @ beta)
        hazard = np.exp(np.minimum(scaled, 50))
        likelihood = float((event * (log_shape + scaled) - hazard).sum())
        ridge = np.concatenate([[0.0], beta[1:]])
        slope = np.concatenate([[(event * (1 + scaled) - hazard * scaled).sum()], shape * ((hazard - event) @ design)])
        return -likelihood + penalty / 2 * float(ridge @ ridge), -slope + penalty * np.concatenate([[0.0], ridge])

    start = np.concatenate([[0.0, np.average(log_days)], np.zeros(inputs.shape[1])])
    optimum = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return WeibullModel(intercept=float(optimum[1]), coefficients=optimum[2:].tolist(), shape=float(np.exp(optimum[0])))


def fit_linear(inputs: Array, outcome: Outcome, penalty: float, seed: int) -> LinearModel:
    """Fit a ridge regression of days; censored patients count through the weights of the others."""
    weights = censoring_weights(outcome)
    fitted = Ridge(alpha=penalty).fit(inputs, outcome.days, sample_weight=weights)
    return LinearModel(intercept=float(fitted.intercept_), coefficients=fitted.coef_.tolist())


def fit_ensemble(name: Model) -> Fit:
    """Return the fit of a scikit-learn ensemble: of deaths, of days, or of the hazard over time, by the family.

    Source: the hazard by intervals as in Tutz and Schmid 2016, chapter 6.
    """

    def build(kind: str, seed: int) -> Any:
        family = {"random_forest": "RandomForest", "gradient_boosting": "GradientBoosting"}[name]
        return getattr(ensemble, family + kind)(n_estimators=100, min_samples_leaf=3, random_state=seed)

    def fit(inputs: Array, outcome: Outcome, penalty: float, seed: int) -> ForestModel | HazardForest:
        if outcome.family == "binary":
            return ForestModel(build("Classifier", seed).fit(inputs, outcome.event), "binary")
        if outcome.family == "days":
            fitted = build("Regressor", seed).fit(inputs, outcome.days, sample_weight=censoring_weights(outcome))
            return ForestModel(fitted, "days")
        rows, event, ends = _by_interval(inputs, outcome)
        return HazardForest(build("Classifier", seed).fit(rows, event), ends)

    return fit


def _by_interval(inputs: Array, outcome: Outcome) -> tuple[Array, NDArray[np.bool_], Array]:
    """Return a row per patient and interval at risk, whether the event fell into it, and the ends of intervals."""
    ends = np.unique(np.quantile(outcome.days[outcome.event], np.linspace(0, 1, _NUM_INTERVALS + 1)[1:]))
    last = np.searchsorted(ends, outcome.days)  # the interval of the patient's last day; none after the last event
    rows, event = [], []
    for patient, own in enumerate(last):
        died = bool(outcome.event[patient])
        for interval in range(min(int(own) + died, len(ends))):  # the interval of censoring is excluded
            rows.append([*inputs[patient], interval])
            event.append(died and interval == own)
    return np.array(rows, dtype=np.float64), np.array(event), ends


FITS: dict[tuple[Model, Family], Fit] = {
    ("ridge", "binary"): fit_logistic,
    ("ridge", "time"): fit_cox,
    ("ridge", "days"): fit_linear,
    ("weibull_aft", "time"): fit_weibull,
    ("random_forest", "binary"): fit_ensemble("random_forest"),
    ("random_forest", "time"): fit_ensemble("random_forest"),
    ("random_forest", "days"): fit_ensemble("random_forest"),
    ("gradient_boosting", "binary"): fit_ensemble("gradient_boosting"),
    ("gradient_boosting", "time"): fit_ensemble("gradient_boosting"),
    ("gradient_boosting", "days"): fit_ensemble("gradient_boosting"),
}


def find_fit(model: Model, family: Family) -> Fit:
    """Return the fitting function of a model for a family of outcomes; raises `UserError` if there is none."""
    if (model, family) not in FITS:
        choices = [name for name, of in FITS if of == family]
        raise UserError(f"the model must fit the kind of outcome ({family})", model, choices=choices)
    return FITS[model, family]
