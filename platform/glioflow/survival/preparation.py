"""Conversion of inputs to standardized numbers without gaps, as fitted by `imputation` on training patients."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from glioflow.survival.clinical_columns import spelled_as

if TYPE_CHECKING:
    import pandas as pd

Matrix = NDArray[np.float64]
_RECORD = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(BaseModel):
    """One input, as described by the training patients.

    Attributes:
        name: Its column in the table.
        source: Whether it is measured on the mask or from the clinical table.
        levels: Categories seen, each of which becomes a column of zeros and ones; None for a number.
        low: Smallest number seen; None if there was none.
        high: Largest number seen; None if there was none.
    """

    model_config = _RECORD

    name: str
    source: Literal["shape", "clinical"]
    levels: list[str] | None = None
    low: float | None = None
    high: float | None = None

    @property
    def width(self) -> int:
        """Number of its columns."""
        return 1 if self.levels is None else len(self.levels)


class MedianImputer(BaseModel):
    """Imputation by the training medians."""

    model_config = _RECORD
    kind: Literal["median"] = "median"
    medians: list[float]

    def fill(self, values: Matrix) -> Matrix:
        """Return `values` (N, P) without gaps."""
        return np.where(np.isnan(values), np.array(self.medians), values)


class KnnImputer(BaseModel):
    """Imputation by the mean of the most similar training patients, whose standardized inputs it stores."""

    model_config = _RECORD
    kind: Literal["knn"] = "knn"
    num_neighbors: int
    rows: list[list[float | None]]

    def fill(self, values: Matrix) -> Matrix:
        """Return `values` (N, P) without gaps."""
        from sklearn.impute import KNNImputer

        imputer = KNNImputer(n_neighbors=self.num_neighbors, keep_empty_features=True)
        return np.asarray(imputer.fit(np.array(self.rows, dtype=float)).transform(values), dtype=np.float64)


class ChainStep(BaseModel):
    """One regression of a chain, which fills the gaps of `column` from all others."""

    model_config = _RECORD
    column: int
    intercept: float
    coefficients: list[float]


class ChainedImputer(BaseModel):
    """Imputation by chained regressions (MICE, with the single most probable values)."""

    model_config = _RECORD
    kind: Literal["mice"] = "mice"
    start: list[float]
    steps: list[ChainStep]

    def fill(self, values: Matrix) -> Matrix:
        """Return `values` (N, P) without gaps."""
        gaps = np.isnan(values)
        filled = np.where(gaps, np.array(self.start), values)
        for step in self.steps:
            others = np.delete(filled, step.column, axis=1)
            guess = step.intercept + others @ np.array(step.coefficients)
            filled[:, step.column] = np.where(gaps[:, step.column], guess, filled[:, step.column])
        return filled


Imputer = Annotated[MedianImputer | KnnImputer | ChainedImputer, Field(discriminator="kind")]


class Preparation(BaseModel):
    """Conversion of a table to a model's inputs: categories to columns, standardization, then imputation."""

    model_config = _RECORD
    inputs: list[Input]
    means: list[float]
    deviations: list[float]
    imputer: Imputer

    def apply(self, table: "pd.DataFrame") -> Matrix:
        """Return the (N, P) inputs of the table's patients, standardized, without gaps."""
        return self.imputer.fill((encode(table, self.inputs) - self.means) / self.deviations)


def encode(table: "pd.DataFrame", inputs: Sequence[Input]) -> Matrix:
    """Return the (N, P) raw numbers of the inputs: a column each, or one per category; NaN where unknown."""
    columns: list[Matrix] = []
    for entry in inputs:
        cells = table[entry.name]
        if entry.levels is None:
            columns.append(cells.to_numpy(dtype=np.float64, na_value=np.nan))
            continue
        missing = cells.isna().to_numpy()
        for level in entry.levels:
            now = spelled_as(entry.name, level)
            words = {level} if now in entry.levels else {level, now}
            columns.append(np.where(missing, np.nan, cells.isin(words).to_numpy(dtype=np.float64)))
    return np.column_stack(columns)


def one_row(inputs: Sequence[Input], values: Mapping[str, object]) -> "pd.DataFrame":
    """Return a table of one patient from known values by input name; all others are missing."""
    import pandas as pd

    row = {entry.name: values.get(entry.name) for entry in inputs}
    return pd.DataFrame({e.name: pd.Series([row[e.name]], dtype=float if e.levels is None else object) for e in inputs})
