"""Outcomes among the inputs of a survival stage, and preparation that used held-out patients."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glioflow.audit.leaks import Leak
from glioflow.survival.clinical_columns import TARGETS, clinical_name, column_of
from glioflow.survival.outcome import Outcome, choose_task, take_outcome
from glioflow.survival.settings import SurvivalSettings

if TYPE_CHECKING:
    import pandas as pd

_MAX_CODES = 12
_MIN_EACH = 5  # with fewer patients with or without the event, a column may separate the two by chance


def find_input_leaks(settings: SurvivalSettings, table: "pd.DataFrame | None" = None) -> list[Leak]:
    """Return the inputs that are an outcome, by their names or by their values for the patients in `table`.

    A column gives the outcome away if it is known for exactly those with the event (or without), if it separates the
    two groups without an error, or if its values have the order of the times.

    Args:
        settings: Settings of the survival stage.
        table: One row per patient (`read_clinical`); None checks the names alone.
    """
    names = [*settings.clinical, *settings.shape_features]
    leaks = [
        Leak(rule="an outcome is among the inputs of the survival stage", value=name)
        for name in names
        if (clinical_name(name) or name) in TARGETS
    ]
    if table is None:
        return leaks
    for name in (column_of(name, table) for name in names):
        if name in TARGETS or name not in table:
            continue
        for target in TARGETS:
            if target in table and _gives_away(table[name], table[target]):
                rule = "an input of the survival stage is derived from the outcome"
                leaks.append(Leak(rule=rule, value=f"{name} gives away {target}"))
                break
    return leaks


def find_filled_columns(table: "pd.DataFrame") -> list[Leak]:
    """Return the columns that were imputed or standardized over all patients, before the split.

    Args:
        table: One row per patient, as read from the file.
    """
    rule = "imputers and scalers must be fitted on training patients alone"
    leaks = []
    for name in table.select_dtypes("number"):
        values = table[name].dropna().to_numpy(dtype=np.float64)
        if len(values) < 2 * _MIN_EACH:
            continue
        whole = values == np.round(values)
        if 0.8 < whole.mean() < 1 and len(np.unique(values[whole])) <= _MAX_CODES:
            leaks.append(Leak(rule=rule, value=f"{name}: codes with means between them ({values[~whole][0]:g})"))
        elif abs(values.mean()) < 1e-6 and any(abs(values.std(ddof=k) - 1) < 1e-6 for k in (0, 1)):
            leaks.append(Leak(rule=rule, value=f"{name}: mean 0 and standard deviation 1 over all patients"))
    return leaks


def find_preparation_leaks(table: "pd.DataFrame", settings: SurvivalSettings) -> list[Leak]:
    """Return a leak if the data of held-out patients change the predictions for other held-out patients.

    If imputation, scaling, choices and fit use training patients alone, nothing else can change a prediction. So every
    second held-out patient is changed, and the predictions for the others must stay the same.

    Args:
        table: One row per patient, all inputs of the settings among its columns.
        settings: Settings of the survival stage.

    Raises:
        UserError: If there are too few patients or events, or a column is missing.
    """
    from glioflow.survival.crossvalidation import learner, make_splits, out_of_fold

    rows, outcome = take_outcome(table, choose_task(table, settings))
    learn = learner(settings, np.array([0.0, 1.0]))
    for train, test in make_splits(outcome, settings, folds=settings.folds, seed=settings.seed):
        changed, kept = test[::2], test[1::2]
        if len(kept):
            splits = [(train, kept)]
            before = out_of_fold(rows, outcome, learn, splits).risk
            after = out_of_fold(*_disturbed(rows, outcome, changed), learn, splits).risk
            if not np.array_equal(before, after):
                rule = "imputers, scalers and models must be fitted on training patients alone"
                value = f"{len(kept)} predictions change with {len(changed)} other held-out patients"
                return [Leak(rule=rule, value=value)]
    return []


def _disturbed(rows: "pd.DataFrame", outcome: Outcome, index: NDArray[np.int_]) -> tuple["pd.DataFrame", Outcome]:
    """Return table and outcome with the numbers of some patients far off and their events inverted."""
    changed = rows.copy()
    for name in rows.select_dtypes("number"):
        values = rows[name].to_numpy(dtype=np.float64, copy=True)
        values[index] = np.nan_to_num(values[index]) * 7 + 1e3
        changed[name] = values
    event, days = outcome.event.copy(), outcome.days.copy()
    event[index], days[index] = ~event[index], days[index] * 3 + 1
    return changed, Outcome(outcome.family, event, days)


def _gives_away(column: "pd.Series[float]", target: "pd.Series[float]") -> bool:
    known = target.notna()
    values, truth = column[known], target[known].to_numpy(dtype=np.float64)
    if len(np.unique(truth)) > 2:
        return _same_order(values, truth)
    event = truth == truth.max()
    if min(int(event.sum()), int((~event).sum())) < _MIN_EACH:
        return False
    missing = values.isna().to_numpy()
    if np.array_equal(missing, event) or np.array_equal(missing, ~event):
        return True
    codes = values.astype("category").cat.codes.to_numpy()[~missing]
    of_event, of_others = codes[event[~missing]], codes[~event[~missing]]
    if min(len(of_event), len(of_others)) < _MIN_EACH:
        return False
    return bool(of_event.min() > of_others.max() or of_event.max() < of_others.min())


def _same_order(values: "pd.Series[float]", truth: NDArray[np.floating]) -> bool:
    from pandas.api.types import is_numeric_dtype
    from scipy.stats import spearmanr

    both = values.notna().to_numpy()
    if not is_numeric_dtype(values) or both.sum() < 2 * _MIN_EACH or values.nunique() < 3:
        return False
    return bool(abs(spearmanr(values.to_numpy()[both], truth[both]).statistic) > 0.99)
