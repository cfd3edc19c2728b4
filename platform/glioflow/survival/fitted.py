"""Fitted models as plain numbers, which turn standardized inputs into a risk. Independent of tables and fitting."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Array = NDArray[np.float64]
_RECORD = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LogisticModel(BaseModel):
    """Logistic regression."""

    model_config = _RECORD
    kind: Literal["logistic"] = "logistic"
    intercept: float
    coefficients: list[float]

    def risk(self, inputs: Array) -> Array:
        """Return (N,) log odds of death."""
        return np.asarray(self.intercept + inputs @ np.array(self.coefficients), dtype=np.float64)

    def event_probability(self, inputs: Array) -> Array:
        """Return (N,) probabilities of death."""
        return np.asarray(1 / (1 + np.exp(-self.risk(inputs))), dtype=np.float64)


class CoxModel(BaseModel):
    """Cox regression with Breslow's baseline.

    Attributes:
        coefficients: Log hazard ratio per standard deviation.
        days: Times of events, ascending.
        cumulative_hazard: Baseline hazard of a patient with average inputs, at these times.
    """

    model_config = _RECORD
    kind: Literal["cox"] = "cox"
    coefficients: list[float]
    days: list[float]
    cumulative_hazard: list[float]

    def risk(self, inputs: Array) -> Array:
        """Return (N,) log hazard ratios against a patient with average inputs."""
        return np.asarray(inputs @ np.array(self.coefficients), dtype=np.float64)

    def survival(self, inputs: Array, days: Array) -> Array:
        """Return (N, T) probabilities of no event until each of `days`; constant after the last event."""
        hazard = np.concatenate([[0.0], self.cumulative_hazard])[np.searchsorted(self.days, days, side="right")]
        return np.asarray(np.exp(-np.outer(np.exp(self.risk(inputs)), hazard)), dtype=np.float64)


class WeibullModel(BaseModel):
    """Weibull accelerated failure time: survival exp(-(t / scale)^shape), the log scale linear in the inputs."""

    model_config = _RECORD
    kind: Literal["weibull_aft"] = "weibull_aft"
    intercept: float
    coefficients: list[float]
    shape: float = Field(gt=0)

    def risk(self, inputs: Array) -> Array:
        """Return (N,) log hazards, up to a constant."""
        return np.asarray(-self.shape * (inputs @ np.array(self.coefficients)), dtype=np.float64)

    def survival(self, inputs: Array, days: Array) -> Array:
        """Return (N, T) probabilities of no event until each of `days`."""
        scale = np.exp(self.intercept + inputs @ np.array(self.coefficients))
        return np.asarray(np.exp(-((np.asarray(days)[None, :] / scale[:, None]) ** self.shape)), dtype=np.float64)


class LinearModel(BaseModel):
    """Linear regression of days."""

    model_config = _RECORD
    kind: Literal["linear"] = "linear"
    intercept: float
    coefficients: list[float]

    def days(self, inputs: Array) -> Array:
        """Return (N,) predicted days."""
        return np.asarray(self.intercept + inputs @ np.array(self.coefficients), dtype=np.float64)

    def risk(self, inputs: Array) -> Array:
        """Return (N,) days, negated: higher is worse."""
        return -self.days(inputs)


FittedModel = Annotated[LogisticModel | CoxModel | WeibullModel | LinearModel, Field(discriminator="kind")]
