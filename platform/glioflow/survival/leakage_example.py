"""Reproduction of the published "100 %" on death01 to show the effect of leakage. For the audit, never a result."""

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import KNNImputer
from sklearn.model_selection import KFold, cross_val_score

from glioflow.errors import UserError

_FOLDS = 5
_NUM_NEIGHBORS = 4
_LATER_OUTCOMES = ("os_days", "os_event", "pfi_days", "pfi_event")


class LeakageExample(BaseModel):
    """One model scored twice on the same image rows.

    Attributes:
        leaking_accuracy: As published: outcome inside the imputer, one row per image, rows split at random.
        patient_accuracy: Patients split, imputer fitted on training patients without the outcome, one vote per patient.
        majority_accuracy: Accuracy of predicting the majority outcome for everyone, per patient.
        num_rows: Image rows.
        num_patients: Patients among them with a known outcome.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    leaking_accuracy: float
    patient_accuracy: float
    majority_accuracy: float
    num_rows: int
    num_patients: int


def rebuild_leakage(clinical: pd.DataFrame, slices: pd.DataFrame, *, seed: int = 0) -> LeakageExample:
    """Score a random forest for `death01` with the published leaks and without them.

    Args:
        clinical: The table of `read_clinical`, with `death01`.
        slices: One row per image, its index the patient, its columns features of that image's mask.
        seed: Seed of the forest and the splits.

    Raises:
        UserError: If there is no `death01`, fewer than five patients, or no image of any patient.

    Source: the published death stage as DOMAIN notes describe it (nearest-neighbor imputation over the whole clinical
        table, rounded, joined to the images on the patient).
    """
    if "death01" not in clinical:
        raise UserError("the leakage example needs the column death01", choices=list(clinical))
    coded = clinical.drop(columns=[name for name in _LATER_OUTCOMES if name in clinical])
    for name in coded.select_dtypes(exclude="number"):
        coded[name] = pd.factorize(coded[name], sort=True)[0]
        coded[name] = coded[name].where(coded[name] >= 0).astype(float)
    coded = coded.dropna(axis=1, how="all")
    known = coded[coded["death01"].notna() & coded.index.isin(slices.index)]
    if len(known) < _FOLDS:
        raise UserError(f"the leakage example needs {_FOLDS} patients with images and death01", len(known))
    votes = _patient_votes(known, slices, seed)
    return LeakageExample(
        leaking_accuracy=_leaking_accuracy(coded, slices, seed),
        patient_accuracy=float((votes == known["death01"]).mean()),
        majority_accuracy=float(known["death01"].value_counts(normalize=True).max()),
        num_rows=int(slices.index.isin(coded.index).sum()),
        num_patients=len(known),
    )


def _forest(seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators=100, random_state=seed)


def _leaking_accuracy(coded: pd.DataFrame, slices: pd.DataFrame, seed: int) -> float:
    filled = KNNImputer(n_neighbors=_NUM_NEIGHBORS).fit_transform(coded)  # the outcome is one of the columns
    table = pd.DataFrame(np.round(filled), index=coded.index, columns=coded.columns)
    rows = slices.join(table, how="inner")
    target = rows.pop("death01").astype(int)
    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(_forest(seed), rows.to_numpy(), target.to_numpy(), cv=folds).mean())


def _patient_votes(known: pd.DataFrame, slices: pd.DataFrame, seed: int) -> "pd.Series[float]":
    """Return the majority outcome over a patient's images, by forests that were fitted without the patient."""
    inputs, target = known.drop(columns="death01"), known["death01"]
    votes = pd.Series(np.nan, index=known.index)
    for train, test in KFold(_FOLDS, shuffle=True, random_state=seed).split(inputs):
        imputer = KNNImputer(n_neighbors=_NUM_NEIGHBORS, keep_empty_features=True).fit(inputs.iloc[train])
        filled = pd.DataFrame(np.round(imputer.transform(inputs)), index=inputs.index)
        filled.columns = filled.columns.astype(str)
        learned, held_out = (slices.join(filled.iloc[part], how="inner") for part in (train, test))
        forest = _forest(seed).fit(learned.to_numpy(), target.loc[learned.index].to_numpy())
        share = pd.Series(forest.predict(held_out.to_numpy()), index=held_out.index).groupby(level=0).mean()
        votes.loc[share.index] = (share > 0.5).astype(float)
    return votes
