"""Values of patients from the scores of cases: a patient's value is the mean over their cases."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict, TypeVar


class CaseScores(TypedDict):
    """The scores of one case, in the original geometry, in the flat form of files and JSON.

    Also holds every metric of `evaluate_parts` by its name; read them with `metric_of`.

    Keys:
        id: Id of the case.
        patient: The person.
        institution: Where it was scanned, if known.
        dice: Dice over the case's whole volume; the mean over parts if the target has several.
        part: Part of the model's training split; None for a case that is not in it.
        fold: The fold that predicted the case, from 0.
        uncertainty: Mean entropy of doubtful voxels, in nats.
        features: Shape features of the predicted mask.
        volume_interval: Interval for the tumor's volume; None if no volume was predicted.
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


# Any row type: `CaseScores`, or a subset of its keys.
Row = Mapping[str, object]
Rows = Sequence[Row]
AnyRow = TypeVar("AnyRow", bound=Row)


def metric_of(row: Row, key: str) -> float | None:
    """Return a metric of a case; None if it is undefined or was not measured."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else None


def person_of(row: Row) -> str:
    """Return the person of a row's case; the case id if the row names no person."""
    return str(row.get("patient") or row.get("id") or id(row))


def by_patient(rows: Sequence[AnyRow]) -> dict[str, list[AnyRow]]:
    """Return the rows of each patient's cases, in order of first appearance."""
    patients: dict[str, list[AnyRow]] = {}
    for row in rows:
        patients.setdefault(person_of(row), []).append(row)
    return patients


def patient_means(rows: Rows, key: str) -> dict[str, float]:
    """Return each patient's mean of a metric over the cases where it is defined; patients without one are skipped."""
    measured = {patient: [metric_of(row, key) for row in cases] for patient, cases in by_patient(rows).items()}
    values = {patient: [value for value in each if value is not None] for patient, each in measured.items()}
    return {patient: sum(each) / len(each) for patient, each in values.items() if each}


def institutions(rows: Rows) -> dict[str, str]:
    """Return the institution of each patient, if known."""
    return {person_of(row): str(row["institution"]) for row in rows if row.get("institution") is not None}
