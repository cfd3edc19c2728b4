"""Summary of case metrics over a cohort by patient: means, pooled voxels, counts of empty masks."""

from collections.abc import Iterable, Mapping

import numpy as np

from glioflow.evaluation.intervals import bootstrap_interval
from glioflow.evaluation.metrics import auroc, count, overlap_metrics, ratio
from glioflow.evaluation.patients import Row, Rows, by_patient, patient_means
from glioflow.evaluation.regions import AVERAGED

Summary = dict[str, float | list[float] | None]

# Columns that identify a row and are not metrics, even if they are None.
_IDENTITY = ("id", "patient", "institution", "part")
# Metrics with the best possible value if prediction and reference are both empty.
_RULED = ("dice", "iou", "hd95", "nsd")
EMPTY_BOTH = "num_empty_both"


def summarize(rows: Rows, *, seed: int = 0) -> Summary:
    """Summarize the metrics of `evaluate_case` or `evaluate_parts` over patients.

    Args:
        rows: One for each case; columns that identify it, and values that are neither numbers nor None (`features`),
            are left out. The cases of a patient are averaged.
        seed: Seed of the bootstrap.

    Returns:
        `num_patients`, `num_cases`, and for every metric M `M_mean`, `M_median`, `M_ci95` (of the mean) over the
        patients where it is defined; `M_num_undefined` if it is undefined for some, and `M_num_empty_both` if the rule
        for two empty masks decided it for some. Counts (`num_*`) are added up. Patients with a case of that kind:
        `num_empty_reference`, `num_empty_prediction`, `num_empty_both`. Over the voxels of all patients, `dice_pooled`
        and so on. Over the slices of all patients, `slice_sensitivity_pooled`, `false_positive_slice_rate_pooled`. By
        study, `study_sensitivity`, `study_false_positive_rate`, `study_auroc`.
    """
    patients = by_patient(rows)
    columns: dict[str, list[float | None]] = {}
    for row in rows:
        for key, value in row.items():
            if key in _IDENTITY:
                continue
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                columns.setdefault(key, []).append(value)
    ruled = _ruled_by_emptiness(patients, columns)
    summary: Summary = {"num_patients": len(patients), "num_cases": len(rows)}
    for key, column in columns.items():
        defined = [value for value in column if value is not None]
        if key.startswith("num_"):
            summary[key] = int(sum(defined))
        elif not key.startswith(("empty_", "study_")):
            means = [*patient_means(rows, key).values()]
            summary |= _described(key, means, seed)
            if len(means) < len(patients):
                summary[f"{key}_num_undefined"] = len(patients) - len(means)
            if ruled.get(key):
                summary[f"{key}_{EMPTY_BOTH}"] = ruled[key]
    return summary | _pooled(columns) | _by_study(columns) | _empty(patients, columns)


def _parts(columns: Iterable[str]) -> list[str]:
    return [key.removeprefix("empty_reference") for key in columns if key.startswith("empty_reference")]


def _both_empty(row: Row, part: str) -> bool:
    return bool(row.get(f"empty_reference{part}") and row.get(f"empty_prediction{part}"))


def _ruled_by_emptiness(patients: Mapping[str, Rows], columns: Iterable[str]) -> dict[str, int]:
    """Return, by metric, the number of patients with a case decided by the rule for two empty masks."""
    parts = _parts(columns)
    numbers: dict[str, int] = {}
    for key in columns:
        part = next((part for part in parts if part and key.endswith(part)), "")
        base = key.removesuffix(part)
        if base not in _RULED and not base.startswith(("hd95_", "nsd_")):
            continue
        # Without a suffix, the main metrics are means over the parts.
        decisive = parts if not part and base in AVERAGED else [part]
        numbers[key] = sum(
            any(_both_empty(row, each) for row in rows for each in decisive) for rows in patients.values()
        )
    return numbers


def _empty(patients: Mapping[str, Rows], columns: Iterable[str]) -> Summary:
    """Count, for each part, the patients with a case without tumor, without predicted tumor, and without both."""
    numbers: Summary = {}
    for part in _parts(columns):
        for kind in ("reference", "prediction"):
            empty = (any(row.get(f"empty_{kind}{part}") for row in rows) for rows in patients.values())
            numbers[f"num_empty_{kind}{part}"] = sum(empty)
        numbers[f"{EMPTY_BOTH}{part}"] = sum(any(_both_empty(row, part) for row in rows) for rows in patients.values())
    return numbers


def flatten_summary(summary: Mapping[str, object], prefix: str) -> dict[str, float | None]:
    """Return a summary's numbers under `prefix/` for logging to a run; intervals become `_low` and `_high`."""
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
    """Return how well the presence of a prediction separates studies with tumor from those without."""
    metrics: Summary = {}
    for part in _parts(columns):
        tumor = np.array(columns[f"empty_reference{part}"]) == 0
        predicted = np.array(columns[f"empty_prediction{part}"]) == 0
        scores = np.array(columns.get(f"study_score{part}", []), dtype=np.float64)
        metrics |= {
            f"study_sensitivity{part}": ratio(count(predicted & tumor), count(tumor)),
            f"study_false_positive_rate{part}": ratio(count(predicted & ~tumor), count(~tumor)),
            f"study_auroc{part}": auroc(scores, tumor) if len(scores) == len(tumor) else None,
        }
    return metrics
