"""Fitting of the preparation of inputs on training patients only. Never uses an outcome."""

import re
import warnings
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - unlocks the next import
from sklearn.impute import IterativeImputer

from glioflow.errors import UserError
from glioflow.survival.clinical_columns import COLUMNS, TARGETS, column_of
from glioflow.survival.preparation import (
    ChainedImputer,
    ChainStep,
    Input,
    KnnImputer,
    Matrix,
    MedianImputer,
    Preparation,
    encode,
)
from glioflow.survival.settings import SurvivalSettings

# Texts that people mean as numbers: with a decimal comma, a unit of percent, or a comparison. And those that are one.
_NUMBER = re.compile(r"[<>~]?\s*[-+]?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?\s*%?")
_PLAIN = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def describe_inputs(table: pd.DataFrame, settings: SurvivalSettings) -> list[Input]:
    """Return the inputs in the settings, as found in the table's patients.

    Raises:
        UserError: If a column is not in the table, is an outcome, or holds numbers that cannot be read.
    """
    named = [(name, "shape") for name in settings.shape_features] + [(name, "clinical") for name in settings.clinical]
    if not named:
        hint = "name one in survival.shape_features or survival.clinical"
        raise UserError("a survival stage must have at least one input", hint=hint)
    inputs: list[Input] = []
    for asked, source in named:
        name = column_of(asked, table)
        if name in TARGETS:
            raise UserError("an outcome must not be an input", name)
        if name not in table:
            choices = [column for column in table if column not in TARGETS]
            raise UserError(f"every {source} input must be a column of the table", name, choices=choices)
        inputs.append(_describe(table, name, "shape" if source == "shape" else "clinical"))
    return inputs


def fit_preparation(table: pd.DataFrame, settings: SurvivalSettings) -> Preparation:
    """Learn categories, standardization and imputation from the table's patients."""
    inputs = describe_inputs(table, settings)
    raw = encode(table, inputs)
    known = np.maximum((~np.isnan(raw)).sum(axis=0), 1)
    means = np.nansum(raw, axis=0) / known
    deviations = np.sqrt(np.nansum((raw - means) ** 2, axis=0) / known)
    deviations[deviations < 1e-12] = 1.0
    imputer = IMPUTERS[settings.imputation]((raw - means) / deviations, settings)
    return Preparation(inputs=inputs, means=means.tolist(), deviations=deviations.tolist(), imputer=imputer)


def _describe(table: pd.DataFrame, name: str, source: Literal["shape", "clinical"]) -> Input:
    cells = table[name].dropna()
    known = COLUMNS.get(name)
    if (known is not None and known.kind == "category") or not is_numeric_dtype(cells):
        levels = sorted(map(str, cells.unique()))
        if known is None:
            _check_words(name, levels)
        return Input(name=name, source=source, levels=levels)
    if cells.empty:
        return Input(name=name, source=source)
    if not np.isfinite(cells).all():
        raise UserError(f"the {source} input {name} must be finite numbers", "infinity")
    return Input(name=name, source=source, low=float(cells.min()), high=float(cells.max()))


def _check_words(name: str, levels: list[str]) -> None:
    """Refuse a column of numbers that one cell turned into words (`-`, `70,5`), each a category of its own."""
    numbers = [level for level in levels if _NUMBER.fullmatch(level)]
    unread = [level for level in levels if not _PLAIN.fullmatch(level)]
    if unread and 2 * len(numbers) > len(levels):
        hint = "write numbers with a point and no unit, and leave missing ones empty"
        raise UserError(f"the input {name} must hold numbers alone, or words", ", ".join(unread[:4]), hint=hint)


def _fit_median(values: Matrix, settings: SurvivalSettings) -> MedianImputer:
    empty = np.isnan(values).all(axis=0)
    return MedianImputer(medians=np.nanmedian(np.where(empty, 0.0, values), axis=0).tolist())


def _fit_knn(values: Matrix, settings: SurvivalSettings) -> KnnImputer:
    rows = [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
    return KnnImputer(num_neighbors=settings.num_neighbors, rows=rows)


def _fit_chain(values: Matrix, settings: SurvivalSettings) -> ChainedImputer:
    imputer = IterativeImputer(random_state=settings.seed, keep_empty_features=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer.fit(values)
    steps = [
        ChainStep(
            column=int(step.feat_idx),
            intercept=float(step.estimator.intercept_),
            coefficients=step.estimator.coef_.tolist(),  # for all other columns, in order
        )
        for step in imputer.imputation_sequence_
    ]
    return ChainedImputer(start=np.nan_to_num(imputer.initial_imputer_.statistics_).tolist(), steps=steps)


IMPUTERS = {"median": _fit_median, "knn": _fit_knn, "mice": _fit_chain}
