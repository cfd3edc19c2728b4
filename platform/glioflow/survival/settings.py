"""Settings of the survival stage."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["death01", "overall_survival", "progression_free", "brats_days"]
Model = Literal["ridge", "random_forest", "gradient_boosting", "weibull_aft"]
Imputation = Literal["median", "knn", "mice"]


# Settings that distinguish a model from the prespecified one.
_FIXED = ("model", "shape_features", "clinical", "imputation", "penalties")


class SurvivalSettings(BaseModel):
    """Settings of the survival stage.

    The primary model is fixed beforehand: `ridge` (logistic for `death01`, Cox for times) on age and BEVR.
    Whatever differs from that is exploratory, and every output says so.

    Attributes:
        task: The outcome; `auto` takes the first one in the table of overall survival, progression-free interval,
            `death01`.
        model: Family of model; only `ridge` and `weibull_aft` can be stored and served, ensembles are for exploring.
        shape_features: Names in `MaskFeatures.volume`; empty for clinical values alone.
        clinical: Columns of the clinical table that the model uses.
        imputation: How missing inputs are filled, learned on training patients only; the target is never filled.
        num_neighbors: Number of neighbors of `knn`; 4 as published.
        penalties: Ridge penalties on standardized inputs; inner folds choose if there are several.
        folds: Number of folds of each cross-validation; at least as many as patients means leave-one-out.
        repeats: Number of cross-validations with different splits.
        seed: Seed of splits, bootstrap and permutations.
        num_bootstrap: Number of bootstrap samples of patients for each interval.
        num_permutations: Number of refits on shuffled outcomes for the p-value; 0 computes none.
        horizons_days: Days at which survival is reported, as far as the follow-up extends.
        days_per_month: Length of a month for the three classes of BraTS (under 10, 10 to 15, over 15 months). With 30,
            the two cases of exactly 300 days are in the middle class, and the majority class has the published 38.7 %.
        min_patients: Least number of patients with a known outcome for a stage.
        min_events: Least number of patients with the event and, for `death01`, without it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["auto"] | Task = "auto"
    model: Model = "ridge"
    shape_features: tuple[str, ...] = ("bevr",)
    clinical: tuple[str, ...] = ("age_years",)
    imputation: Imputation = "median"
    num_neighbors: int = Field(4, ge=1)
    penalties: tuple[float, ...] = Field((1.0,), min_length=1)
    folds: int = Field(5, ge=2)
    repeats: int = Field(10, ge=1)
    seed: int = Field(0, ge=0, le=2**32 - 1)
    num_bootstrap: int = Field(1000, ge=20)
    num_permutations: int = Field(200, ge=0)
    horizons_days: tuple[float, ...] = (365.0, 730.0, 1095.0)
    days_per_month: float = Field(30.0, gt=27, lt=32)
    min_patients: int = Field(8, ge=4)
    min_events: int = Field(2, ge=2)

    @property
    def storable(self) -> bool:
        """Whether the fitted model is plain numbers, which a bundle can hold; others can only be evaluated."""
        return self.model in ("ridge", "weibull_aft")

    @property
    def primary(self) -> bool:
        """Whether this is the prespecified model in all learned parts."""
        fixed = SurvivalSettings()
        return all(getattr(self, name) == getattr(fixed, name) for name in _FIXED)
