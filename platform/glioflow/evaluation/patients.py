"""From the scores of cases to values of patients: a patient's value is the mean over their cases."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict, TypeVar


class CaseScores(TypedDict):
    """What one case reached, in the original geometry, flat as files and answers hold it.

    Besides, every metric of `evaluate_parts` by its name, for which `metric_of` asks.

    Keys:
        id: Of the case.
        patient: The person.
        institution: Where it was scanned, as far as known.
        dice: Of the case's whole volume; the mean over the parts of a target with several.
        part: Of the split that trained the model; None of a case that is not in it.
        fold: The fold that predicted the case, from 0.
        uncertainty: Mean entropy of doubtful voxels, in nats.
        features: Shape features of the predicted mask.
        volume_interval: Within which the tumor's volume lies; None where no volume was predicted.
    """

    id: str
    patient: str
    institution: str | None
    dice: float
    part: NotRequired[str | None]
    fold: NotRequired[int]
    uncertainty: NotRequired[float]
    features: NotRequired[dict[str, float | None]]
    volume_interval: NotRequired[list[float] | None]


# Of any kind: `CaseScores`, or fewer keys of them.
Row = Mapping[str, object]
Rows = Sequence[Row]
AnyRow = TypeVar("AnyRow", bound=Row)


def metric_of(row: Row, key: str) -> float | None:
    """Return a metric of a case; None where it is undefined or was not measured."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else None


def person_of(row: Row) -> str:
    """Return the person whose case a row measures; the case itself where the row names nobody."""
    return str(row.get("patient") or row.get("id") or id(row))


def by_patient(rows: Sequence[AnyRow]) -> dict[str, list[AnyRow]]:
    """Return the rows of each patient's cases, in order of first appearance."""
    patients: dict[str, list[AnyRow]] = {}
    for row in rows:
        patients.setdefault(person_of(row), []).append(row)
    return patients


def patient_means(rows: Rows, key: str) -> dict[str, float]:
    """Return each patient's mean of a metric over the cases where it is defined; patients without one are left out."""
    measured = {patient: [metric_of(row, key) for row in cases] for patient, cases in by_patient(rows).items()}
    values = {patient: [value for value in each if value is not None] for patient, each in measured.items()}
    return {patient: sum(each) / len(each) for patient, each in values.items() if each}


def institutions(rows: Rows) -> dict[str, str]:
    """Return the institution of each patient, as far as known."""
    return {person_of(row): str(row["institution"]) for row in rows if row.get("institution") is not None}
