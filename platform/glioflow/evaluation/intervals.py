"""From scores per patient to statements: intervals by bootstrap over patients, and paired comparison of two models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError

NUM_RESAMPLES = 2000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same patients; the difference is the first's mean minus the second's.

    Attributes:
        difference: Of the means.
        ci95: Its interval by paired bootstrap over patients.
        p_value: Wilcoxon signed-rank, two-sided; 1 where no patient differs.
        num_patients: Compared.
        per_institution: The same per institution, small ones pooled as `other`; difference, ci95 and num_patients.
    """

    difference: float
    ci95: Interval
    p_value: float
    num_patients: int
    per_institution: dict[str, dict[str, Any]]


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.floating[Any]],
    *,
    statistic: Literal["mean", "median"] = "mean",
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a mean or median over patients.

    Args:
        values: One per patient; at least one.
        statistic: Of the patients.
        level: Of confidence.
        seed: Of the resampling.

    Source: Efron 1979.
    """
    sample = np.asarray(values, dtype=np.float64)
    drawn = sample[np.random.default_rng(seed).integers(len(sample), size=(NUM_RESAMPLES, len(sample)))]
    estimates = np.mean(drawn, axis=1) if statistic == "mean" else np.median(drawn, axis=1)
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
        first: Score per patient.
        second: Score per patient, of the same patients.
        institutions: Patient to institution.
        min_patients: Institutions with fewer are pooled as `other`.
        seed: Of the bootstrap.

    Raises:
        UserError: If the patients differ, or there are none.
    """
    from scipy.stats import wilcoxon

    if first.keys() != second.keys() or not first:
        rule = "a paired comparison takes the same patients for both models, at least one"
        raise UserError(rule, f"{len(first)} and {len(second)}, {len(first.keys() ^ second.keys())} of them unpaired")
    patients = sorted(first)
    differences = np.array([first[patient] - second[patient] for patient in patients])
    p_value = float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    groups = _group(patients, institutions or {}, min_patients)
    return Comparison(
        difference=float(differences.mean()),
        ci95=bootstrap_interval(differences, seed=seed),
        p_value=p_value,
        num_patients=len(patients),
        per_institution={name: _summary(differences[members], seed) for name, members in groups.items()},
    )


def _summary(differences: NDArray[np.float64], seed: int) -> dict[str, Any]:
    return {
        "difference": float(differences.mean()),
        "ci95": bootstrap_interval(differences, seed=seed),
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
