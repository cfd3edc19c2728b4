"""From the metrics of each patient to those of a cohort: means, pooled voxels, counts of empty masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glioflow.evaluation.intervals import bootstrap_interval
from glioflow.evaluation.metrics import auroc, count, overlap_metrics, ratio

Summary = dict[str, float | list[float] | None]

# Columns that identify a row and are no metrics, even where they are None.
_IDENTITY = ("id", "patient", "institution", "part")


def summarize(per_patient: Sequence[Mapping[str, Any]], *, seed: int = 0) -> Summary:
    """Summarize the metrics of `evaluate_case` or `evaluate_parts` over patients.

    Args:
        per_patient: One row for each patient; columns that identify it, and values that are neither numbers nor None
            (`features`), are left out.
        seed: Of the bootstrap.

    Returns:
        `num_patients`, and for every metric M `M_mean`, `M_median`, `M_ci95` (of the mean) over the patients where it
        is defined, and `M_num_undefined` if it is undefined for some; counts (`num_*`) are added up.
        `num_empty_reference`, `num_empty_prediction`, `num_empty_both`. Over the voxels of all patients, `dice_pooled`
        and so on. Over the slices of all patients, `slice_sensitivity_pooled`, `false_positive_slice_rate_pooled`. By
        study, `study_sensitivity`, `study_false_positive_rate`, `study_auroc`.
    """
    columns: dict[str, list[float | None]] = {}
    for row in per_patient:
        for key, value in row.items():
            if key in _IDENTITY:
                continue
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                columns.setdefault(key, []).append(value)
    summary: Summary = {"num_patients": len(per_patient)}
    for key, column in columns.items():
        defined = [value for value in column if value is not None]
        if key.startswith("num_"):
            summary[key] = int(sum(defined))
        elif not key.startswith(("empty_", "study_")):
            summary |= _described(key, defined, seed)
            if len(defined) < len(column):
                summary[f"{key}_num_undefined"] = len(column) - len(defined)
    return summary | _pooled(columns) | _by_study(columns)


def flatten_summary(summary: Mapping[str, object], prefix: str) -> dict[str, float | None]:
    """Return a summary's plain numbers under `prefix/`, as runs log them; intervals become `_low` and `_high`."""
    flat: dict[str, float | None] = {}
    for key, value in summary.items():
        if isinstance(value, list | tuple):
            flat |= {f"{prefix}/{key}_low": float(value[0]), f"{prefix}/{key}_high": float(value[1])}
        elif value is None or isinstance(value, int | float):
            flat[f"{prefix}/{key}"] = value
    return flat


def _described(key: str, values: list[float], seed: int) -> Summary:
    if not values:
        return {f"{key}_mean": None, f"{key}_median": None, f"{key}_ci95": None}
    interval = list(bootstrap_interval(values, seed=seed))
    return {f"{key}_mean": float(np.mean(values)), f"{key}_median": float(np.median(values)), f"{key}_ci95": interval}


def _pooled(columns: Mapping[str, list[float | None]]) -> Summary:
    """Return the metrics of all voxels, and of all slices, as if they were one patient's."""
    total = {key: sum(value or 0 for value in column) for key, column in columns.items() if key.startswith("num_")}
    if "num_true_positive" not in total:
        return {}
    counts = [total[f"num_{name}"] for name in ("true_positive", "false_positive", "false_negative", "true_negative")]
    metrics = overlap_metrics(**dict(zip(("tp", "fp", "fn", "tn"), counts, strict=True)))
    free = total["num_slices"] - total["num_tumor_slices"]
    pooled: Summary = {f"{key}_pooled": value for key, value in metrics.items()}
    return pooled | {
        "slice_sensitivity_pooled": ratio(total["num_tumor_slices_found"], total["num_tumor_slices"]),
        "false_positive_slice_rate_pooled": ratio(total["num_false_positive_slices"], free),
    }


def _by_study(columns: Mapping[str, list[float | None]]) -> Summary:
    """Return how well studies with tumor are told from those without, by whether anything is predicted."""
    metrics: Summary = {}
    for part in (key.removeprefix("empty_reference") for key in columns if key.startswith("empty_reference")):
        tumor = np.array(columns[f"empty_reference{part}"]) == 0
        predicted = np.array(columns[f"empty_prediction{part}"]) == 0
        scores = np.array(columns.get(f"study_score{part}", []), dtype=np.float64)
        metrics |= {
            f"num_empty_reference{part}": count(~tumor),
            f"num_empty_prediction{part}": count(~predicted),
            f"num_empty_both{part}": count(~tumor & ~predicted),
            f"study_sensitivity{part}": ratio(count(predicted & tumor), count(tumor)),
            f"study_false_positive_rate{part}": ratio(count(predicted & ~tumor), count(~tumor)),
            f"study_auroc{part}": auroc(scores, tumor) if len(scores) == len(tumor) else None,
        }
    return metrics
