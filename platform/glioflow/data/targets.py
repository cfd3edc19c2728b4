"""The task of a network: conversion of stored labels to its outputs, and of outputs to labels."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from glioflow.errors import UserError
from glioflow.label_schemes import LabelScheme, scheme_named, scheme_with

NO_NAMES: Mapping[int, str] = MappingProxyType({})
# Names of labels that are tissues other than tumor, in cohorts that name labels.
_NOT_TUMOR = frozenset("brain,csf,ventricle,ventricles,vessel,vessels,skull,white matter,gray matter".split(","))


class TargetSettings(BaseModel):
    """The task of an experiment.

    Attributes:
        kind: `binary`: any label against background, one sigmoid. `multiclass`: one softmax over background and
            `labels`. `regions`: one sigmoid for each of several overlapping regions.
        labels: For `multiclass`: the label values, in output order after background.
        regions: For `regions`: the label values that each region unites, by its name. Regions are decoded in this
            order, a later one over an earlier one, so the largest comes first. One whose labels are all in an earlier
            one only counts inside it; others need not nest.
        decode: For `regions`: the label value written for each region.

    `{"preset": NAME}` alone stands for the task of a data set in `label_schemes.SCHEMES`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["binary", "multiclass", "regions"] = "binary"
    labels: tuple[int, ...] = ()
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    decode: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "preset" not in data:
            return data
        if others := sorted(data.keys() - {"preset"}):
            raise UserError("a target with a preset must have no other keys", ", ".join(others), hint="remove them")
        scheme = scheme_named(str(data["preset"]))
        if scheme.is_binary:
            return {"kind": "binary"}
        return {"kind": "regions", "regions": dict(scheme.regions), "decode": dict(scheme.decode)}

    @model_validator(mode="after")
    def _complete(self) -> "TargetSettings":
        if self.kind == "multiclass" and not self.labels:
            raise ValueError("a multiclass target must list its labels, e.g. [1, 2, 4]")
        if not (len(set(self.labels)) == len(self.labels) and all(0 < value < 256 for value in self.labels)):
            raise UserError("labels must be different numbers from 1 to 255", list(self.labels))
        if self.kind == "regions" and (not self.regions or set(self.decode) != set(self.regions)):
            raise ValueError("a regions target must give `regions` and, in `decode`, a label for each of them")
        return self

    @property
    def task(self) -> Literal["binary", "multiclass", "multilabel"]:
        """The name of the kind in the losses."""
        return "multilabel" if self.kind == "regions" else self.kind

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the foreground outputs, for which metrics are reported."""
        if self.kind == "binary":
            return ("tumor",)
        return tuple(self.regions) if self.kind == "regions" else tuple(f"label_{value}" for value in self.labels)

    @property
    def num_outputs(self) -> int:
        """Number of channels of the logits, with the background if there is a softmax."""
        return len(self.labels) + 1 if self.kind == "multiclass" else len(self.names)

    @property
    def mapped_labels(self) -> frozenset[int]:
        """Every label value that the outputs use; empty for `binary`, which accepts any."""
        if self.kind == "regions":
            return frozenset(value for values in self.regions.values() for value in values)
        return frozenset(self.labels)

    def check_labels(self, labels: Collection[int], origin: object, tissues: Mapping[int, str] = NO_NAMES) -> None:
        """Refuse a cohort whose labels are not exactly those that this target maps, or mean other tissues.

        A binary target maps all labels except those that are known to be no tumor, such as a resection cavity.

        Args:
            labels: Values that the cohort's masks may hold besides 0, after preprocessing.
            origin: The cohort, for the error.
            tissues: Tissue of each label, if known.

        Raises:
            UserError: With both lists.
        """
        if self.kind == "binary":
            return _check_tumor(tissues, origin)
        if self.mapped_labels == set(labels):
            return self._check_regions(scheme_with(tissues), origin)
        unmapped, absent = sorted(set(labels) - self.mapped_labels), sorted(self.mapped_labels - set(labels))
        parts = [f"the target does not map {unmapped}"] * bool(unmapped)
        parts += [f"the cohort never has {absent}"] * bool(absent)
        raise UserError(
            "the target must map exactly the labels of the cohort",
            f"target {sorted(self.mapped_labels)} and cohort {sorted(labels)} of {origin}: {'; '.join(parts)}",
            hint="change the section target, or rename labels with the step label_map",
        )

    def _check_regions(self, scheme: LabelScheme | None, origin: object) -> None:
        """Refuse regions that a data set defines under the same name with other labels."""
        for name, values in self.regions.items():
            meant = () if scheme is None else scheme.regions.get(name, values)
            if scheme is not None and set(meant) != set(values):
                shown = ", ".join(f"{value} {tissue}" for value, tissue in scheme.labels.items())
                raise UserError(
                    f"the region {name} of the labels {scheme.name} must unite {list(meant)}",
                    f"target {list(values)} for {origin} ({shown})",
                    hint=f"set target to {{preset: {scheme.name}}}, or give the region another name",
                )

    def encode(self, mask: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.int64]:
        """Return stored labels in the form that the loss expects.

        Args:
            mask: (...) label values.

        Returns:
            (K, ...) float32 for sigmoids; (...) int64 class indices for softmax, unknown labels as background.
        """
        if self.kind == "binary":
            return (mask[None] > 0).astype(np.float32)
        if self.kind == "regions":
            return np.stack([np.isin(mask, values) for values in self.regions.values()]).astype(np.float32)
        table = np.zeros(256, dtype=np.int64)
        for index, value in enumerate(self.labels, start=1):
            table[value] = index
        return table[mask]

    def split(self, mask: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
        """Return the truth of each foreground output by name, same shape as `mask`."""
        if self.kind == "binary":
            return {"tumor": mask > 0}
        if self.kind == "regions":
            return {name: np.isin(mask, values) for name, values in self.regions.items()}
        return {name: mask == value for name, value in zip(self.names, self.labels, strict=True)}

    def settle(self, parts: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
        """Return the masks of the outputs as they would be after storing as labels; only regions may change.

        A region stays inside earlier ones that have all its labels, and overwrites all other earlier ones.
        """
        if self.kind != "regions":
            return parts
        settled: dict[str, NDArray[np.bool_]] = {}
        for name, values in self.regions.items():
            inside = parts[name]
            around = [outer for outer in settled if set(values) <= set(self.regions[outer])]
            for outer in around:
                inside = inside & settled[outer]
            for other in settled.keys() - set(around):
                settled[other] = settled[other] & ~inside
            settled[name] = inside
        return settled

    def labels_of(self, parts: dict[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
        """Return stored labels from the masks of the foreground outputs; the inverse of `split`."""
        first = next(iter(parts.values()))
        out = np.zeros(first.shape, dtype=np.uint8)
        if self.kind == "binary":
            out[parts["tumor"]] = 1
            return out
        values = self.decode if self.kind == "regions" else dict(zip(self.names, self.labels, strict=True))
        for name, inside in self.settle(parts).items():
            out[inside] = values[name]
        return out


def _check_tumor(tissues: Mapping[int, str], origin: object) -> None:
    """Refuse labels that a binary target would treat as tumor although their names say otherwise."""
    for label, tissue in tissues.items():
        if label and (tissue.strip().lower() in _NOT_TUMOR or "cavity" in tissue.lower()):
            raise UserError(
                "a binary target calls every label tumor",
                f"label {label}, {tissue}, of {origin}",
                hint=f"rename it with the step label_map ({{map: {{{label}: 0}}}}), or set target to a preset",
            )
