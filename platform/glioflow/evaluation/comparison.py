"""Comparison of two models on the same patients: paired difference, interval and test, also by institution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError
from glioflow.evaluation.intervals import Interval, bootstrap_interval
from glioflow.evaluation.patients import CaseScores, Rows, by_patient, institutions, metric_of, person_of

# Compared between two models.
METRICS = (
    "dice",
    "iou",
    "precision",
    "sensitivity",
    "hd95",
    "nsd",
    "volume_error_relative",
    "dice_tumor_slices",
    "slice_sensitivity",
    "false_positive_slice_rate",
    "lesion_sensitivity_any_voxel",
    "lesion_precision_any_voxel",
)


class PairedDifference(TypedDict):
    """The difference of two models on the same patients: the first's mean minus the second's.

    Attributes:
        difference: Difference of the means.
        ci95: Its 95 % interval by paired bootstrap over patients.
        p_value: P-value of the two-sided Wilcoxon signed-rank test; 1 if no patient differs.
        num_patients: Number of patients compared.
    """

    difference: float
    ci95: Interval
    p_value: float
    num_patients: int


class ComparisonJson(PairedDifference):
    """A comparison in JSON: see `Comparison`."""

    per_institution: dict[str, PairedDifference]
    num_undefined: int


@dataclass(frozen=True)
class Comparison:
    """A comparison of two models on the same patients; see `PairedDifference`.

    Attributes:
        difference: Difference of the means.
        ci95: Its 95 % interval.
        p_value: P-value of the test.
        num_patients: Number of patients compared.
        num_undefined: Patients excluded because the score is undefined for one of the models.
        per_institution: The paired difference for each institution, small ones pooled as `other`.
    """

    difference: float
    ci95: Interval
    p_value: float
    num_patients: int
    per_institution: dict[str, PairedDifference]
    num_undefined: int = 0

    def to_json(self) -> ComparisonJson:
        """Return the fields for JSON."""
        return {
            "difference": self.difference,
            "ci95": self.ci95,
            "p_value": self.p_value,
            "num_patients": self.num_patients,
            "per_institution": self.per_institution,
            "num_undefined": self.num_undefined,
        }


def compare_paired(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    institutions: Mapping[str, str] | None = None,
    min_patients: int = 5,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same patients.

    Args:
        first: Score of each patient under the first model.
        second: Score of each patient under the second model.
        institutions: Institution of each patient, if known.
        min_patients: Institutions with fewer are pooled as `other`.
        seed: Seed of the bootstrap.

    Raises:
        UserError: If the patients differ, or there are none.
    """
    if first.keys() != second.keys() or not first:
        rule = "a paired comparison needs the same patients for both models, at least one"
        raise UserError(rule, f"{len(first)} and {len(second)}, {len(first.keys() ^ second.keys())} of them unpaired")
    patients = sorted(first)
    differences = np.array([first[patient] - second[patient] for patient in patients])
    groups = _group(patients, institutions or {}, min_patients)
    return Comparison(
        **_test(differences, seed),
        per_institution={name: _test(differences[members], seed) for name, members in groups.items()},
    )


def compare_rows(first: Rows, second: Rows, *, metric: str = "dice", seed: int = 0) -> Comparison | None:
    """Compare two models by their rows for the same cases, with one number per patient.

    Args:
        first: Rows with `id`, `patient`, `institution` and the metric; the cases of a patient are averaged.
        second: Rows of the same cases.
        metric: Name of the metric; None in a row means undefined.
        seed: Seed of the bootstrap.

    Returns:
        The comparison over the patients with both metrics defined; None if there is no such patient.

    Raises:
        UserError: If the cases differ.
    """
    one, other = ({str(row["id"]): row for row in rows} for rows in (first, second))
    if one.keys() != other.keys() or not one:
        unpaired = sorted(one.keys() ^ other.keys())
        rule = "two models can be compared only on the same cases, at least one"
        raise UserError(rule, f"{len(one)} and {len(other)} cases, unpaired {unpaired[:4]}")
    pairs: dict[str, list[tuple[float, float]]] = {}
    for case_id, row in one.items():
        a, b = metric_of(row, metric), metric_of(other[case_id], metric)
        if a is not None and b is not None:
            pairs.setdefault(person_of(row), []).append((a, b))
    if not pairs:
        return None
    compared = compare_paired(
        {patient: float(np.mean([a for a, _ in scores])) for patient, scores in pairs.items()},
        {patient: float(np.mean([b for _, b in scores])) for patient, scores in pairs.items()},
        institutions=institutions(first),
        seed=seed,
    )
    return Comparison(**{**vars(compared), "num_undefined": len(by_patient(first)) - len(pairs)})


def _test(differences: NDArray[np.float64], seed: int) -> PairedDifference:
    from scipy.stats import wilcoxon

    return {
        "difference": float(differences.mean()),
        "ci95": bootstrap_interval(differences, seed=seed),
        "p_value": float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0,
        "num_patients": len(differences),
    }


def _group(patients: list[str], institutions: Mapping[str, str], min_patients: int) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        if patient in institutions:
            groups.setdefault(institutions[patient], []).append(index)
    small = [name for name, members in groups.items() if len(members) < min_patients]
    pooled = sorted(index for name in small for index in groups[name])
    kept = {name: groups[name] for name in sorted(groups) if name not in small}
    return kept | ({"other": pooled} if pooled else {})


def compare_all(first: Sequence[CaseScores], second: Sequence[CaseScores]) -> dict[str, Comparison]:
    """Compare rows of two models by every metric that both have, including those of single parts (`dice_ET`)."""
    parts = {key.removeprefix("dice_") for key in first[0] if key.startswith("dice_") and f"iou_{key[5:]}" in first[0]}
    names = [
        *METRICS,
        *(f"{metric}_{part}" for part in sorted(parts - {"tumor_slices"}) for metric in ("dice", "hd95")),
    ]
    compared_by_metric = {metric: compare_rows(first, second, metric=metric) for metric in names}
    return {metric: compared for metric, compared in compared_by_metric.items() if compared is not None}
