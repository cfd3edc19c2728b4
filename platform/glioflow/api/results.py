"""What the functions of the API return has in common: values as JSON, tables for a terminal and a notebook."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from glioflow.evaluation.patients import Rows
from glioflow.json_values import Json, JsonObject
from glioflow.reports.tables import Table, tables_to_html


class Result:
    """A dataclass that a function of the API returns; a notebook shows its tables."""

    def to_json(self) -> JsonObject:
        """Return the fields as `--json` prints them on the command line."""
        return _fields(self)

    def tables(self) -> list[Table]:
        """Return what people look at first."""
        return [Table("", ["", ""], list(self.to_json().items()))]

    def notes(self) -> list[str]:
        """Return remarks that belong below the tables, a sentence each."""
        return []

    def _repr_html_(self) -> str:
        return tables_to_html(self.tables(), self.notes())


class Summarized(Result):
    """A result whose further numbers stand beside its fields in JSON."""

    summary: dict[str, object]

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        values = super().to_json()
        summary = values.pop("summary")
        assert isinstance(summary, dict)
        return {**values, **summary}


def _fields(record: Any) -> JsonObject:
    return {each.name: _plain(getattr(record, each.name)) for each in fields(record)}


def _plain(value: Any) -> Json:
    if isinstance(value, BaseModel):
        dumped: JsonObject = value.model_dump(mode="json")
        return dumped
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    plain: Json = str(value) if isinstance(value, Path) else value
    return plain


def metrics_table(run_id: str, metrics: Mapping[str, float | None]) -> Table:
    """Return a run's chief metrics, validation beside test."""
    keys = (
        "dice_mean",
        "dice_ci95_low",
        "dice_ci95_high",
        "dice_median",
        "hd95_median",
        "iou_mean",
        "dice_num_empty_both",
    )
    parts = [part for part in ("val", "test") if f"{part}/dice_mean" in metrics]
    shown = [key for key in keys if any(f"{part}/{key}" in metrics for part in parts)]
    return Table(f"run {run_id}", ["", *parts], [[key, *(metrics.get(f"{p}/{key}") for p in parts)] for key in shown])


def patients_tables(rows: Rows, summary: Mapping[str, object]) -> list[Table]:
    """Return the metrics of each case, with its patient where these are not the same, and the summary."""
    several = len({row.get("patient") for row in rows}) < len(rows)
    head = ["id", *(["patient"] if several else []), "dice", "iou", "hd95"]
    patients = Table("", head, [[row.get(key) for key in head] for row in rows])
    return [patients, Table("", ["", ""], list(summary.items()))]
