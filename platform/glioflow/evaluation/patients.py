"""From rows of cases to values of patients: a patient's value is the mean over their cases."""

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def person_of(row: Mapping[str, Any]) -> str:
    """Return the person whose case a row measures; the case itself where the row names nobody."""
    return str(row.get("patient") or row.get("id") or id(row))


def by_patient(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each patient's cases, in order of first appearance."""
    patients: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        patients.setdefault(person_of(row), []).append(row)
    return patients


def patient_means(rows: Rows, key: str) -> dict[str, float]:
    """Return each patient's mean of a metric over the cases where it is defined; patients without one are left out."""
    values = {
        patient: [float(row[key]) for row in cases if row.get(key) is not None]
        for patient, cases in by_patient(rows).items()
    }
    return {patient: sum(each) / len(each) for patient, each in values.items() if each}


def institutions(rows: Rows) -> dict[str, str]:
    """Return the institution of each patient, as far as known."""
    return {person_of(row): str(row["institution"]) for row in rows if row.get("institution") is not None}
