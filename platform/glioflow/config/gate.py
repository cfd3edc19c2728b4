"""Requirements on a model version before it becomes champion."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# Usual number of test patients; the gate notes in its answer when an experiment asks for fewer.
USUAL_PATIENTS = 10


class GateSettings(BaseModel):
    """Rules of the promotion gate, each with its number; null turns a rule off.

    Attributes:
        min_patients: Least number of test patients; with fewer, the decision is `insufficient-evidence`.
        rule: Comparison with the champion by the lower end of the paired 95 % interval of mean Dice: `non-inferiority`
            (above -`margin`) or `superiority` (above 0).
        margin: Largest allowed loss of mean Dice.
        margin_by_institution: Largest allowed loss of mean Dice at any institution; small ones are pooled.
        min_patients_by_institution: Least number of patients for judging an institution, or the pool.
        margin_over_baseline: Least advantage in mean Dice over the all-empty and FLAIR-threshold baselines.
        max_false_positive_slice_rate: Largest share of tumor-free slices with any predicted tumor.
        margin_false_positive_slices: Largest difference by which that share may exceed the champion's.
        max_calibration_error: Largest expected calibration error over the voxels that are tumor or have a probability
            of at least 1 %.
        max_latency_s: Largest median time for one test study, on the machine that runs the gate.
        max_test_uses: Largest number of earlier uses of the test patients.
        seen: Folders of other cohorts that the model learned from, such as those behind pretrained weights, in which no
            test patient may be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_patients: int = Field(default=USUAL_PATIENTS, ge=1)
    rule: Literal["non-inferiority", "superiority"] = "non-inferiority"
    margin: float = Field(default=0.02, ge=0, le=1)
    margin_by_institution: float | None = Field(default=0.1, ge=0, le=1)
    min_patients_by_institution: int = Field(default=3, ge=1)
    margin_over_baseline: float = Field(default=0.0, ge=0, le=1)
    max_false_positive_slice_rate: float | None = Field(default=None, ge=0, le=1)
    margin_false_positive_slices: float | None = Field(default=0.02, ge=0, le=1)
    max_calibration_error: float | None = Field(default=0.3, ge=0, le=1)
    max_latency_s: float | None = Field(default=60, gt=0)
    max_test_uses: int | None = Field(default=None, ge=0)
    seen: tuple[str, ...] = ()
