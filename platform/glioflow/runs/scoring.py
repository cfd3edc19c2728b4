"""Scores of a model on labeled cases: metrics, calibration, slices, baselines; partial results can be joined."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Annotated, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, GetPydanticSchema

from glioflow.bundle import Description
from glioflow.bundle.measurement import measure_empty, measure_flair_threshold, measure_segmentation
from glioflow.bundle.prediction import Predictor
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.targets import TargetSettings
from glioflow.evaluation import (
    NearestSlice,
    Reliability,
    auroc,
    count_reliability,
    dice_per_case,
    mean_entropy,
    summarize,
)
from glioflow.evaluation.boxes import bounding_box
from glioflow.evaluation.patients import CaseScores, Row, Rows, patient_means, person_of
from glioflow.evaluation.summary import Summary
from glioflow.features import measure_mask
from glioflow.progress import Say, counted, quiet

# Dice of two experts on LGG against each other (Buda, Saha, Mazurowski 2019).
HUMAN_LGG = {"dice_mean": 0.84, "dice_std": 0.02}
# Margin around true or predicted tumor, in voxels along each axis; beyond it is easy background.
NEAR_VOXELS = 2
# Above this limit, copies of the nearest slice would take gigabytes.
MAX_KNOWN_SLICES = 20_000


class FoldScores(TypedDict):
    """One fold: its number from 0, its run, and its network's scores on unseen patients."""

    fold: int
    run_id: str
    num_patients: int
    num_cases: int
    dice_mean: float
    dice_median: float


class EvaluationSummary(TypedDict):
    """Summary of a model's scores over all patients; further metrics are under their JSON keys.

    Keys:
        num_patients: Number of patients in the means.
        num_cases: Number of cases of these patients.
        dice_mean: Mean over patients.
        dice_median: Median over patients.
        dice_ci95: 95 % interval of the mean.
        dice_num_empty_both: Number of patients whose Dice the rule for two empty masks decided; absent if there is
            none.
        per_institution: Summary of each institution.
        baselines: Mean and median Dice of the baselines that a network has to beat.
        calibration: Points of the reliability curves.
        num_parameters: Number of parameters of the model; absent in a cross-validation, as are the next three.
        warnings: Reasons why the numbers may be too good, a sentence each.
        run_id: The run that an evaluation is logged as; absent for a bare folder.
        volume_interval: The conformal interval of the tumor volume; absent if none could be fitted.
        report: Path or URI of the report; absent if none was written.
        per_fold: Scores of each fold of a cross-validation.
    """

    num_patients: int
    num_cases: int
    dice_mean: float
    dice_median: float
    dice_ci95: list[float]
    dice_num_empty_both: NotRequired[int]
    per_institution: dict[str, Summary]
    baselines: dict[str, dict[str, float]]
    calibration: dict[str, list[tuple[float, float, int]]]
    num_parameters: NotRequired[int]
    warnings: NotRequired[list[str]]
    run_id: NotRequired[str]
    volume_interval: NotRequired[Mapping[str, object]]
    report: NotRequired[str]
    per_fold: NotRequired[list[FoldScores]]


class EvaluationAnswer(EvaluationSummary):
    """An evaluation or a cross-validation in JSON: the summary, and the scores of each case."""

    per_patient: list[CaseScores]


# With a schema from the type, pydantic would drop metrics that the type does not list.
_StoredRow = Annotated[CaseScores, GetPydanticSchema(lambda _, handler: handler(dict[str, object]))]


class CohortScores(BaseModel):
    """Scores of a model on labeled cases.

    Attributes:
        rows: Row of each case, from `prediction.measure`, with `uncertainty` (mean entropy of doubtful voxels), and for
            an ensemble with its `Spread` as `ensemble_probability_std` and so on.
        everywhere: Calibration over all voxels; None without cases.
        near_tumor: Calibration in each case's box around true and predicted tumor; None without such a box.
        slice_scores: Highest probability of every slice of all cases.
        slice_truths: Whether each of these slices has tumor.
        baselines: Dice by case, by baseline.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: tuple[_StoredRow, ...] = ()
    everywhere: Reliability | None = None
    near_tumor: Reliability | None = None
    slice_scores: tuple[float, ...] = ()
    slice_truths: tuple[bool, ...] = ()
    baselines: dict[str, dict[str, float]] = {}

    def __add__(self, other: "CohortScores") -> "CohortScores":
        """Return both together, as `join`."""
        return join((self, other))

    def summary(self) -> dict[str, object]:
        """Return `summarize`'s summary, `slice_auroc_pooled`, `expected_calibration_error`, `per_institution`."""
        truths = np.asarray(self.slice_truths, dtype=bool)
        return {
            **summarize(self.rows),
            "slice_auroc_pooled": auroc(np.asarray(self.slice_scores), truths),
            "expected_calibration_error": self.everywhere.expected_error if self.everywhere else None,
            "expected_calibration_error_near_tumor": self.near_tumor.expected_error if self.near_tumor else None,
            "per_institution": _per_institution(self.rows),
        }

    def answer(self, cohort_format: str) -> EvaluationAnswer:
        """Return the answer of an evaluation or cross-validation: rows, summaries, baselines, calibration curves."""
        curves = {"everywhere": self.everywhere, "near_tumor": self.near_tumor}
        answer = {
            "per_patient": [{k: v for k, v in row.items() if k != "features"} for row in self.rows],
            **self.summary(),
            "baselines": self.beside(cohort_format),
            "calibration": {name: counted.curve for name, counted in curves.items() if counted is not None},
        }
        return cast(EvaluationAnswer, answer)  # a type cannot list the keys of each metric

    def beside(self, cohort_format: str) -> dict[str, dict[str, float]]:
        """Return each baseline's mean and median Dice; on LGG also that of two experts."""
        results = {name: self._baseline(dice) for name, dice in self.baselines.items()}
        return results | ({"human": HUMAN_LGG} if cohort_format == "lgg" else {})

    def _baseline(self, dice: Mapping[str, float]) -> dict[str, float]:
        rows: list[CaseScores] = [{**row, "dice": dice[row["id"]]} for row in self.rows if row["id"] in dice]
        means = [*patient_means(rows, "dice").values()]
        # Without tumor (in some part), a Dice above 0 means that none was predicted either.
        ruled = {person_of(row) for row in rows if row["dice"] > 0 and any(row.get(key) for key in _empties(row))}
        counted = {"num_empty_both": float(len(ruled))} if ruled else {}
        return {"dice_mean": float(np.mean(means)), "dice_median": float(np.median(means)), **counted}


def _empties(row: Row) -> list[str]:
    return [key for key in row if key.startswith("empty_reference")]


def score_cases(
    predictor: Predictor,
    cases: Sequence[PreparedCase],
    *,
    known: Sequence[PreparedCase] = (),
    with_features: bool = False,
    say: Say = quiet,
) -> CohortScores:
    """Measure a model on labeled cases, in the original geometry.

    Args:
        predictor: The model.
        cases: Prepared with the model's preprocessing.
        known: Cases whose slices the nearest-slice baseline may copy, never those of the same patient.
        with_features: Add the shape features of the predicted mask to each row, as `features`.
        say: Called after each case.
    """
    scored = [_score_case(predictor, case, with_features=with_features) for case in counted(cases, "case", say)]
    return join(scored).model_copy(update={"baselines": baselines(predictor.description, cases, known=known)})


def join(parts: Iterable[CohortScores]) -> CohortScores:
    """Return all parts as one, in order; keep only baselines that every part has."""
    parts = list(parts)
    names = [name for name in parts[0].baselines if all(name in part.baselines for part in parts)] if parts else []
    return CohortScores(
        rows=tuple(row for part in parts for row in part.rows),
        everywhere=_sum(part.everywhere for part in parts),
        near_tumor=_sum(part.near_tumor for part in parts),
        slice_scores=tuple(score for part in parts for score in part.slice_scores),
        slice_truths=tuple(truth for part in parts for truth in part.slice_truths),
        baselines={name: {k: v for part in parts for k, v in part.baselines[name].items()} for name in names},
    )


def baselines(
    description: Description, cases: Sequence[PreparedCase], *, known: Sequence[PreparedCase] = ()
) -> dict[str, dict[str, float]]:
    """Return the Dice by case of each baseline that applies."""
    dice_by_baseline = {"all_empty": _dice(measure_empty(description.target, cases))}
    if (bright := measure_flair_threshold(description, cases)) is not None:
        dice_by_baseline["flair_threshold"] = _dice(bright)
    if (copied := _nearest_slice(description.target, cases, known)) is not None:
        dice_by_baseline["nearest_slice"] = copied
    return dice_by_baseline


def _score_case(predictor: Predictor, case: PreparedCase, *, with_features: bool) -> CohortScores:
    segmentation = predictor.segment(case.image, case.record.moves, spread=True)
    row = measure_segmentation(segmentation, case, predictor.description.target)
    probability = segmentation.tumor_probability
    row["uncertainty"] = mean_entropy(probability)
    if segmentation.spread is not None:
        spread = segmentation.spread.model_dump(exclude={"num_members"})
        row = cast(CaseScores, {**row, **{f"ensemble_{key}": value for key, value in spread.items()}})
    if with_features:
        row["features"] = measure_mask(
            segmentation.labels > 0,
            spacing_mm=case.record.spacing_mm,
            probability=probability,
            brain=case.brain(),
        ).volume
    truth = np.logical_or.reduce(list(predictor.description.target.split(case.reference()).values()))
    box = near_box(truth | (segmentation.labels > 0))
    return CohortScores(
        rows=(row,),
        everywhere=count_reliability(probability, truth),
        near_tumor=count_reliability(probability[box], truth[box]) if truth[box].size else None,
        slice_scores=tuple(probability.max(axis=(1, 2)).tolist()),
        slice_truths=tuple(truth.any(axis=(1, 2)).tolist()),
    )


def near_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the box around a mask, enlarged by `NEAR_VOXELS` on every side; empty for an empty mask."""
    return tuple(
        slice(max(0, part.start - NEAR_VOXELS), part.stop + NEAR_VOXELS) if part.stop else part
        for part in bounding_box(mask)
    )


def _nearest_slice(
    target: TargetSettings, cases: Sequence[PreparedCase], known: Sequence[PreparedCase]
) -> dict[str, float] | None:
    """Copy slices from the known cases; None if they differ in size, are too many, or belong to one patient."""
    known = [case for case in known if case.mask is not None]
    sizes = {case.image.shape[1:3] for case in (*known, *cases)}
    patients = [case.record.patient for case in known]
    alone = {case.record.patient for case in cases} & set(patients) if len(set(patients)) < 2 else set()
    if not known or alone or len(sizes) > 1 or sum(len(case.image) for case in known) > MAX_KNOWN_SLICES:
        return None
    copier = NearestSlice([case.image for case in known], [np.asarray(case.mask) for case in known], patients=patients)
    dice = {}
    for case in cases:
        labels = np.asarray(case.restore(copier.predict(case.image, patient=case.record.patient)), np.uint8)
        copied, truth = target.split(labels), target.split(case.reference())
        dice[case.record.id] = float(np.mean([dice_per_case(copied[name], truth[name]) for name in target.names]))
    return dice


def _per_institution(rows: Rows) -> dict[str, Summary]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("institution") is not None:
            groups.setdefault(str(row["institution"]), []).append(row)
    return {name: _dice_of(group) for name, group in sorted(groups.items())}


def _dice_of(rows: Rows) -> Summary:
    needed = ("id", "patient", "dice")
    summary = summarize([{k: v for k, v in row.items() if k in needed or k.startswith("empty_")} for row in rows])
    kept = ("num_patients", "num_cases", "dice_mean", "dice_median", "dice_ci95", "dice_num_empty_both")
    return {key: summary[key] for key in kept if key in summary}


def _sum(parts: Iterable[Reliability | None]) -> Reliability | None:
    counted = [part for part in parts if part is not None]
    return reduce(add, counted) if counted else None


def _dice(rows: Sequence[CaseScores]) -> dict[str, float]:
    return {row["id"]: row["dice"] for row in rows}
