"""Inputs made into standardized numbers without gaps, learned from training patients only. Never sees an outcome."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from glioflow.errors import UserError
from glioflow.survival.clinical import COLUMNS, TARGETS
from glioflow.survival.settings import SurvivalSettings

if TYPE_CHECKING:
    import pandas as pd

Matrix = NDArray[np.float64]
_RECORD = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(BaseModel):
    """One input as the training patients had it.

    Attributes:
        name: Its column in the table.
        source: A value measured on the mask, or one of the clinical table.
        levels: Categories seen, of which each becomes a column of zeros and ones; None for a number.
        low: Smallest number seen; None where none was.
        high: Largest number seen; None where none was.
    """

    model_config = _RECORD

    name: str
    source: Literal["shape", "clinical"]
    levels: list[str] | None = None
    low: float | None = None
    high: float | None = None

    @property
    def width(self) -> int:
        """Number of columns it makes."""
        return 1 if self.levels is None else len(self.levels)


class MedianImputer(BaseModel):
    """Fills with the training medians."""

    model_config = _RECORD
    kind: Literal["median"] = "median"
    medians: list[float]

    def fill(self, values: Matrix) -> Matrix:
        """Return `values` (N, P) without gaps."""
        return np.where(np.isnan(values), np.array(self.medians), values)


class KnnImputer(BaseModel):
    """Fills with the mean of the most similar training patients, whose standardized inputs it therefore keeps."""

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
    """One regression of a chain: fills the gaps of `column` from all others."""

    model_config = _RECORD
    column: int
    intercept: float
    coefficients: list[float]


class ChainedImputer(BaseModel):
    """Fills by chained regressions (MICE, its single most probable filling)."""

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
    """What turns a table into a model's inputs: categories to columns, standardization, then imputation."""

    model_config = _RECORD
    inputs: list[Input]
    means: list[float]
    deviations: list[float]
    imputer: Imputer

    def apply(self, table: "pd.DataFrame") -> Matrix:
        """Return the (N, P) inputs of the table's patients, standardized, without gaps."""
        return self.imputer.fill((encode(table, self.inputs) - self.means) / self.deviations)


def describe_inputs(table: "pd.DataFrame", settings: SurvivalSettings) -> list[Input]:
    """Return the inputs that the settings ask for, as the table's patients have them.

    Raises:
        UserError: If a column is not in the table, or is an outcome.
    """
    named = [(name, "shape") for name in settings.shape_features] + [(name, "clinical") for name in settings.clinical]
    if not named:
        hint = "name one in survival.shape_features or survival.clinical"
        raise UserError("a survival stage must have at least one input", hint=hint)
    inputs: list[Input] = []
    for name, source in named:
        if name in TARGETS:
            raise UserError("an outcome must not be an input", name)
        if name not in table:
            choices = [column for column in table if column not in TARGETS]
            raise UserError(f"every {source} input must be a column of the table", name, choices=choices)
        inputs.append(_describe(table, name, "shape" if source == "shape" else "clinical"))
    return inputs


def encode(table: "pd.DataFrame", inputs: Sequence[Input]) -> Matrix:
    """Return the (N, P) raw numbers of the inputs: a column each, or one per category; NaN where unknown."""
    columns: list[Matrix] = []
    for entry in inputs:
        cells = table[entry.name]
        if entry.levels is None:
            columns.append(cells.to_numpy(dtype=np.float64, na_value=np.nan))
            continue
        missing = cells.isna().to_numpy()
        columns += [np.where(missing, np.nan, (cells == level).to_numpy(dtype=np.float64)) for level in entry.levels]
    return np.column_stack(columns)


def fit_preparation(table: "pd.DataFrame", settings: SurvivalSettings) -> Preparation:
    """Learn categories, standardization and imputation from the table's patients."""
    inputs = describe_inputs(table, settings)
    raw = encode(table, inputs)
    known = np.maximum((~np.isnan(raw)).sum(axis=0), 1)
    means = np.nansum(raw, axis=0) / known
    deviations = np.sqrt(np.nansum((raw - means) ** 2, axis=0) / known)
    deviations[deviations < 1e-12] = 1.0
    imputer = IMPUTERS[settings.imputation]((raw - means) / deviations, settings)
    return Preparation(inputs=inputs, means=means.tolist(), deviations=deviations.tolist(), imputer=imputer)


def one_row(inputs: Sequence[Input], values: Mapping[str, object]) -> "pd.DataFrame":
    """Return a table of one patient from known values by input name; all others are missing."""
    import pandas as pd

    row = {entry.name: values.get(entry.name) for entry in inputs}
    return pd.DataFrame({e.name: pd.Series([row[e.name]], dtype=float if e.levels is None else object) for e in inputs})


def _describe(table: "pd.DataFrame", name: str, source: Literal["shape", "clinical"]) -> Input:
    from pandas.api.types import is_numeric_dtype

    cells = table[name].dropna()
    known = COLUMNS.get(name)
    if (known is not None and known.kind == "category") or not is_numeric_dtype(cells):
        return Input(name=name, source=source, levels=sorted(map(str, cells.unique())))
    if cells.empty:
        return Input(name=name, source=source)
    return Input(name=name, source=source, low=float(cells.min()), high=float(cells.max()))


def _fit_median(values: Matrix, settings: SurvivalSettings) -> MedianImputer:
    empty = np.isnan(values).all(axis=0)
    return MedianImputer(medians=np.nanmedian(np.where(empty, 0.0, values), axis=0).tolist())


def _fit_knn(values: Matrix, settings: SurvivalSettings) -> KnnImputer:
    rows = [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
    return KnnImputer(num_neighbors=settings.num_neighbors, rows=rows)


def _fit_chain(values: Matrix, settings: SurvivalSettings) -> ChainedImputer:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - unlocks the next import
    from sklearn.impute import IterativeImputer

    imputer = IterativeImputer(random_state=settings.seed, keep_empty_features=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer.fit(values)
    steps = [
        ChainStep(
            column=int(step.feat_idx),
            intercept=float(step.estimator.intercept_),
            coefficients=step.estimator.coef_.tolist(),  # of all other columns, in their order
        )
        for step in imputer.imputation_sequence_
    ]
    return ChainedImputer(start=np.nan_to_num(imputer.initial_imputer_.statistics_).tolist(), steps=steps)


IMPUTERS = {"median": _fit_median, "knn": _fit_knn, "mice": _fit_chain}
