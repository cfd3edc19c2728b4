"""Two models on the same patients: the paired difference, its interval and test, overall and by institution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError
from glioflow.evaluation.intervals import Interval, bootstrap_interval


@dataclass(frozen=True)
class Comparison:
    """Two models on the same patients; the difference is the first's mean minus the second's.

    Attributes:
        difference: Of the means.
        ci95: Its interval by paired bootstrap over patients.
        p_value: Wilcoxon signed-rank, two-sided; 1 where no patient differs.
        num_patients: Compared.
        num_undefined: Patients left out because the score is undefined for one of the models.
        per_institution: The same per institution, small ones pooled as `other`: difference, ci95, p_value,
            num_patients.
    """

    difference: float
    ci95: Interval
    p_value: float
    num_patients: int
    per_institution: dict[str, dict[str, Any]]
    num_undefined: int = 0


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
    if first.keys() != second.keys() or not first:
        rule = "a paired comparison takes the same patients for both models, at least one"
        raise UserError(rule, f"{len(first)} and {len(second)}, {len(first.keys() ^ second.keys())} of them unpaired")
    patients = sorted(first)
    differences = np.array([first[patient] - second[patient] for patient in patients])
    groups = _group(patients, institutions or {}, min_patients)
    return Comparison(
        **_summary(differences, seed),
        per_institution={name: _summary(differences[members], seed) for name, members in groups.items()},
    )


def compare_rows(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], *, metric: str = "dice", seed: int = 0
) -> Comparison | None:
    """Compare two models by what `prediction.measure` gave for the same cases, one number a patient.

    Args:
        first: Rows with `id`, `patient`, `institution` and the metric; a patient's cases are averaged.
        second: The same cases.
        metric: Which; None in a row means undefined.
        seed: Of the bootstrap.

    Returns:
        The comparison over the patients where both are defined; None where there is none.

    Raises:
        UserError: If the cases differ.
    """
    ours, theirs = ({str(row["id"]): row for row in rows} for rows in (first, second))
    if ours.keys() != theirs.keys() or not ours:
        odd = sorted(ours.keys() ^ theirs.keys())
        rule = "two models are compared on the same cases, at least one"
        raise UserError(rule, f"{len(ours)} and {len(theirs)} cases, unpaired {odd[:4]}")
    pairs: dict[str, list[tuple[float, float]]] = {}
    for case_id, row in ours.items():
        a, b = row.get(metric), theirs[case_id].get(metric)
        if a is not None and b is not None:
            pairs.setdefault(str(row.get("patient") or case_id), []).append((float(a), float(b)))
    if not pairs:
        return None
    patients = {str(row.get("patient") or case_id): row.get("institution") for case_id, row in ours.items()}
    compared = compare_paired(
        {patient: float(np.mean([a for a, _ in scores])) for patient, scores in pairs.items()},
        {patient: float(np.mean([b for _, b in scores])) for patient, scores in pairs.items()},
        institutions={patient: place for patient, place in patients.items() if place is not None},
        seed=seed,
    )
    return Comparison(**{**vars(compared), "num_undefined": len(patients) - len(pairs)})


def _summary(differences: NDArray[np.float64], seed: int) -> dict[str, Any]:
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
