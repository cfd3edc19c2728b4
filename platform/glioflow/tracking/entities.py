"""Metrics, parameters and tags in MLflow's form."""

import json
from collections.abc import Mapping
from typing import Any

_MAX_PARAM = 6000


def as_metrics(metrics: Mapping[str, float | None], *, step: int, when_ms: int) -> list[Any]:
    """Return the metrics that are finite numbers in MLflow's form."""
    from mlflow.entities import Metric

    finite = {key: float(value) for key, value in metrics.items() if value is not None and abs(value) < float("inf")}
    return [Metric(key, value, when_ms, step) for key, value in finite.items()]


def as_params(params: Mapping[str, Any]) -> list[Any]:
    """Return parameters in MLflow's form, nested ones under dotted names."""
    from mlflow.entities import Param

    return [Param(key, _text(value)[:_MAX_PARAM]) for key, value in flatten(params).items()]


def as_tags(tags: Mapping[str, str]) -> list[Any]:
    """Return tags in MLflow's form."""
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Flatten nested mappings into one with dotted keys."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
