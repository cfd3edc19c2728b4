"""The survival stage of a bundle: fitted, stored as plain numbers, applied to one patient at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from glioflow.errors import UserError, unknown_name
from glioflow.json_values import JsonObject
from glioflow.survival.clinical_columns import COLUMNS, TARGETS, clinical_name, codes_of, spelled_as, typed_value
from glioflow.survival.evaluated import Interval
from glioflow.survival.fitted import CoxModel, FittedModel, LinearModel, LogisticModel, WeibullModel
from glioflow.survival.preparation import Preparation, one_row
from glioflow.survival.settings import SurvivalSettings, Task
from glioflow.survival.statistics import survival_classes
from glioflow.validation import first_problem

Array = NDArray[np.float64]
_RECORD = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
CLASSES = ("under 10 months", "10 to 15 months", "over 15 months")


class SurvivalCurve(BaseModel):
    """Probability of no event until each of `days`, with its interval."""

    model_config = _RECORD
    days: list[float]
    survival: list[float]
    low: list[float]
    high: list[float]


class SurvivalAnswer(BaseModel):
    """The stage's answer for one patient.

    Attributes:
        task: The outcome.
        risk_score: Higher is worse; 0 (for `death01`: the average log odds) is the average training patient.
        probability: Probability of the event: at any time for `death01`, by `horizon_days` for times, None for days.
        horizon_days: The time of `probability`.
        interval: 95 % bootstrap interval of `probability`, or of `predicted_days`.
        predicted_days: Predicted days; only for `brats_days`.
        category: BraTS's class of `predicted_days`.
        basis: Inputs that it was computed from.
        imputed: Inputs that were missing and filled from other patients.
        beats_baselines: Whether the model beat its baselines in cross-validation.
        warnings: Warnings, one sentence each.
        curve: Survival curve, for times.
    """

    model_config = _RECORD

    task: Task
    risk_score: float
    probability: float | None
    horizon_days: float | None
    interval: tuple[float, float] | None
    predicted_days: float | None
    category: str | None
    basis: list[str]
    imputed: list[str]
    beats_baselines: bool
    warnings: list[str]
    curve: SurvivalCurve | None


@dataclass(frozen=True)
class _Estimate:
    """The part of `SurvivalAnswer` that depends on the kind of model."""

    probability: float | None = None
    horizon_days: float | None = None
    interval: tuple[float, float] | None = None
    predicted_days: float | None = None
    category: str | None = None
    curve: SurvivalCurve | None = None


class SurvivalStage(BaseModel):
    """A fitted survival stage.

    Attributes:
        task: The predicted outcome.
        settings: Settings of the fit.
        preparation: Its inputs, standardization and imputation.
        model: The model.
        replicates: The model fitted on resampled patients, for intervals.
        curve_days: Days of the survival curve.
        num_patients: Number of patients it was fitted on.
        num_events: Events among them.
        primary_metric: Name of the primary metric.
        metrics: Metrics of the cross-validation.
        baselines: Metrics of its baselines, under the same names.
        beats_baselines: See `SurvivalEvaluation`.
        warnings: Warnings of the cross-validation.
    """

    model_config = _RECORD

    task: Task
    settings: SurvivalSettings
    preparation: Preparation
    model: FittedModel
    replicates: list[FittedModel]
    curve_days: list[float]
    num_patients: int
    num_events: int
    primary_metric: str
    metrics: dict[str, Interval]
    baselines: dict[str, dict[str, Interval]]
    beats_baselines: bool
    warnings: list[str]

    def to_json(self) -> JsonObject:
        """Return the stage as plain numbers, lists and words."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SurvivalStage":
        """Return the stage from `to_json`; raises `UserError` if anything is missing, unknown or of a wrong type."""
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            rule = f"a stored survival stage must be complete and valid: {first_problem(error, value)}"
            raise UserError(rule) from None

    def predict(self, features: Mapping[str, float | None], clinical: Mapping[str, object]) -> SurvivalAnswer:
        """Answer for one patient.

        Args:
            features: Shape features by name, e.g. `MaskFeatures.volume`; missing ones are imputed.
            clinical: Clinical values by typed or source name (`age_years`, `Age`, ...); all optional.

        Raises:
            UserError: If a clinical value is unknown to the tables or out of its range.
        """
        known = self._known(features, clinical)
        imputed = [entry.name for entry in self.preparation.inputs if known[entry.name] is None]
        inputs = self.preparation.apply(one_row(self.preparation.inputs, known))
        warnings = [*self.warnings, *self._cautions(known, imputed)]
        return SurvivalAnswer(
            task=self.task,
            risk_score=float(self.model.risk(inputs)[0]),
            **vars(self._estimate(inputs)),
            basis=[name for name, value in known.items() if value is not None],
            imputed=imputed,
            beats_baselines=self.beats_baselines,
            warnings=warnings,
        )

    def _known(self, features: Mapping[str, float | None], clinical: Mapping[str, object]) -> dict[str, object]:
        given: dict[str, object] = {}
        levels = {entry.name: entry.levels or [] for entry in self.preparation.inputs}
        for name, value in clinical.items():
            typed = clinical_name(name)
            if typed is None or (name in levels and name not in COLUMNS):  # GlioFlow 0.1 left `Gender` as it was
                given[name] = self._untyped(name, value)
                continue
            own = str(value).strip().removesuffix(".0") in levels.get(typed, ())  # a code in the stage's table, too
            read = typed_value(typed, value, codes=None if own else codes_of(name))
            if typed in given and given[typed] != read:
                rule = f"two clinical values both mean {typed}, and differ"
                raise UserError(rule, f"{given[typed]} and {read}", hint="send one of them")
            given[typed] = read
        known: dict[str, object] = {}
        for entry in self.preparation.inputs:
            value = features.get(entry.name) if entry.source == "shape" else given.get(entry.name)
            known_words = {*(entry.levels or ()), *(spelled_as(entry.name, level) for level in entry.levels or ())}
            if entry.levels is not None and value is not None and value not in known_words:
                raise UserError(f"{entry.name} must be a category that the model knows", value, choices=entry.levels)
            known[entry.name] = None if isinstance(value, float) and not np.isfinite(value) else value
        return known

    def _untyped(self, name: str, value: object) -> float | str | None:
        """Return a value of a column that is specific to this stage's table."""
        own = {e.name: e for e in self.preparation.inputs if e.source == "clinical" and e.name not in COLUMNS}
        if name not in own:
            raise unknown_name("clinical value", name, [*(c for c in COLUMNS if c not in TARGETS), *own])
        if value is None or own[name].levels is not None:
            return None if value is None else str(value)
        try:
            return float(str(value))
        except ValueError:
            raise UserError(f"{name} must be a number", repr(value)) from None

    def _cautions(self, known: Mapping[str, object], imputed: list[str]) -> list[str]:
        cautions = []
        for entry in self.preparation.inputs:
            value = known[entry.name]
            if entry.low is None or entry.high is None or not isinstance(value, int | float):
                continue
            if not entry.low <= value <= entry.high:
                cautions.append(
                    f"{entry.name} {value:g} is outside what it was fitted on, {entry.low:g} to {entry.high:g}"
                )
        if len(imputed) == len(known):
            cautions.append("no input was known: this is the average of the cohort and says nothing of the patient")
        return cautions

    def _estimate(self, inputs: Array) -> _Estimate:
        """Return probability, curve or days with their intervals, by the kind of model."""
        match self.model:
            case LogisticModel():
                values = [m.event_probability(inputs)[0] for m in self.replicates if isinstance(m, LogisticModel)]
                probability = float(self.model.event_probability(inputs)[0])
                return _Estimate(probability=probability, interval=_percentiles(np.array(values)))
            case LinearModel():
                days = float(self.model.days(inputs)[0])
                values = [m.days(inputs)[0] for m in self.replicates if isinstance(m, LinearModel)]
                label = int(survival_classes(np.array([days]), self.settings.days_per_month)[0])
                interval = _percentiles(np.array(values))
                return _Estimate(predicted_days=days, category=CLASSES[label], interval=interval)
            case CoxModel() | WeibullModel():
                return self._curve(inputs)

    def _curve(self, inputs: Array) -> _Estimate:
        days = np.array(self.curve_days)
        models = [m for m in (self.model, *self.replicates) if isinstance(m, CoxModel | WeibullModel)]
        survival, *others = [m.survival(inputs, days)[0] for m in models]
        low, high = np.quantile(others, [0.025, 0.975], axis=0) if others else (survival, survival)
        horizon = max((d for d in self.settings.horizons_days if d in self.curve_days), default=self.curve_days[-1])
        at = self.curve_days.index(horizon)
        curve = SurvivalCurve(days=self.curve_days, survival=survival.tolist(), low=low.tolist(), high=high.tolist())
        interval = (float(1 - high[at]), float(1 - low[at]))
        return _Estimate(probability=float(1 - survival[at]), horizon_days=horizon, interval=interval, curve=curve)


def _percentiles(values: Array) -> tuple[float, float] | None:
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
