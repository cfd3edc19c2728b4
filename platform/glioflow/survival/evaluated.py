"""The results of `evaluation` for a survival stage."""

from pydantic import BaseModel, ConfigDict

from glioflow.survival.settings import Task

_RECORD = ConfigDict(extra="forbid", frozen=True)


class Interval(BaseModel):
    """A value with its 95 % bootstrap interval over patients; None if undefined or not resampled."""

    model_config = _RECORD
    value: float | None
    low: float | None = None
    high: float | None = None


class RiskGroups(BaseModel):
    """Kaplan-Meier of the patients above and below the median out-of-fold risk, with the log-rank test."""

    model_config = _RECORD
    days: dict[str, list[float]]
    survival: dict[str, list[float]]
    log_rank_p: float | None


class SurvivalEvaluation(BaseModel):
    """The results of repeated cross-validation.

    Attributes:
        task: Predicted outcome.
        model: Name of the model.
        primary: Whether it is the prespecified model; all others are exploratory.
        num_patients: Patients with a known outcome.
        num_events: Events among them.
        primary_metric: The metric for comparison with the baselines.
        metrics: By name, each over out-of-fold predictions, averaged over repeats.
        baselines: The same metrics for `majority`, `age_only` and `institution_only`, if the table has the columns.
        differences: Model minus baseline in the primary metric, paired by patient.
        beats_baselines: Whether each of these differences has its whole interval above zero; never claimed with fewer
            than ten events (`death01`: or ten patients without).
        p_value: Share of shuffled outcomes on which the model does as well; None if not requested.
        risk_groups: Groups by predicted risk; only for survival times.
        out_of_fold: Mean out-of-fold risk by patient.
        warnings: Warnings, one sentence each.
    """

    model_config = _RECORD

    task: Task
    model: str
    primary: bool
    num_patients: int
    num_events: int
    primary_metric: str
    metrics: dict[str, Interval]
    baselines: dict[str, dict[str, Interval]]
    differences: dict[str, Interval]
    beats_baselines: bool
    p_value: float | None
    risk_groups: RiskGroups | None
    out_of_fold: dict[str, float]
    warnings: list[str]
