"""Shape features of the patients of a clinical table."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from glioflow.errors import UserError
from glioflow.survival.clinical_csv import patient_key

if TYPE_CHECKING:
    import pandas as pd

ShapeFeatures = Mapping[str, Mapping[str, float | None]]
NOBODY: Mapping[str, str] = MappingProxyType({})


def features_of_patients(
    clinical: "pd.DataFrame", features: ShapeFeatures, persons: Mapping[str, str] = NOBODY
) -> "pd.DataFrame":
    """Return the shape features of the patients in a clinical table, which may name them by a case.

    Args:
        clinical: The table of `read_clinical`.
        features: Shape features by case, e.g. of `MaskFeatures.volume`; those of a patient's cases are averaged.
        persons: The patient of each case; a case that is not in it is a separate patient.

    Raises:
        UserError: If no patient is in both, or the table has several rows for one.
    """
    import pandas as pd

    rows: dict[str, str] = {}  # rows of the table, by case
    row_of: dict[str, str] = {}  # by person
    for case in features:
        person = persons.get(case, case)
        keys = [key for name in (case, person) if (key := patient_key(name)) in clinical.index]
        if not keys:
            continue
        rows[case] = keys[0]
        if row_of.setdefault(patient_key(person), keys[0]) != keys[0]:
            both = f"{row_of[patient_key(person)]} and {keys[0]} for {person}"
            raise UserError("a clinical table must have one row for each patient", both)
    if not rows:
        shown = [str(patient) for patient in clinical.index[:4]]
        rule = "features and clinical table must share at least one patient"
        raise UserError(rule, list(features)[:4], choices=shown)
    shapes = pd.DataFrame.from_dict({case: dict(features[case]) for case in rows}, orient="index").astype(float)
    return shapes.groupby(pd.Index([rows[case] for case in shapes.index], name="patient")).mean()


def join_features(
    clinical: "pd.DataFrame", features: ShapeFeatures, persons: Mapping[str, str] = NOBODY
) -> "pd.DataFrame":
    """Return the clinical rows of the patients that have features, with their features as further columns.

    A column of the table that is named like a feature is not that feature: it gets the ending `_table`.

    Arguments and errors are those of `features_of_patients`.
    """
    shapes = features_of_patients(clinical, features, persons)
    return clinical.merge(shapes, how="inner", left_index=True, right_index=True, suffixes=("_table", ""))
