"""Conversion of a network's probabilities to masks: thresholds, classes, regions, clean-up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glioflow.evaluation.calibration import Spread
from glioflow.evaluation.postprocessing import PostprocessSettings, apply_postprocessing


class Target(Protocol):
    """Interface of the task for decoding."""

    @property
    def kind(self) -> str:
        """`binary`, `multiclass` or `regions`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each foreground output."""

    def settle(self, parts: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
        """Return the masks of the outputs as they would be after storing as labels."""

    def labels_of(self, parts: dict[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
        """Return stored labels from the masks of the foreground outputs."""


@dataclass(frozen=True)
class Segmentation:
    """The segmentation of one case in the original geometry.

    Attributes:
        labels: (S, H, W) uint8, with the label values of the cohort.
        parts: Mask of each foreground output, (S, H, W), consistent with `labels`.
        probability: (S, H, W, K) float32 of the foreground outputs.
        tumor_probability: (S, H, W) float32, of any foreground output.
        spread: Disagreement of the members of an ensemble; None for a single model.
    """

    labels: NDArray[np.uint8]
    parts: dict[str, NDArray[np.bool_]]
    probability: NDArray[np.float32]
    tumor_probability: NDArray[np.float32]
    spread: Spread | None = None


def decode(target: Target, settings: PostprocessSettings, probabilities: NDArray[Any]) -> Segmentation:
    """Turn a network's probabilities into masks, post-processing included.

    Args:
        target: The task.
        settings: Threshold and clean-up.
        probabilities: (S, H, W, K) in the original geometry; exclusive classes begin with the background.
    """
    full = np.asarray(probabilities, dtype=np.float32)
    if target.kind == "multiclass":
        winner = _without_small(full, target.names, settings.min_total_px)
        full = full[..., 1:]
        anywhere = full.sum(axis=-1)  # the classes are exclusive
        raw = {name: winner == index for index, name in enumerate(target.names, start=1)}
        parts = apply_postprocessing(raw, settings, already_decided=True)
    else:
        raw = {name: full[..., k] for k, name in enumerate(target.names)}
        anywhere = full.max(axis=-1)
        parts = apply_postprocessing(raw, settings)
    parts = target.settle(parts)  # metrics and answers use the same masks
    return Segmentation(target.labels_of(parts), parts, full, anywhere)


def _without_small(
    probabilities: NDArray[np.float32], names: Sequence[str], least: Mapping[str, int]
) -> NDArray[np.intp]:
    """Return the likeliest class of each voxel; those of a class with too few voxels get their next likeliest."""
    winner: NDArray[np.intp] = probabilities.argmax(axis=-1)
    counts = np.bincount(winner.ravel(), minlength=probabilities.shape[-1])
    small = [k for k, name in enumerate(names, start=1) if counts[k] and counts[k] < least.get(name, 0)]
    if not small:
        return winner
    others = probabilities.copy()
    others[..., small] = -1
    return np.asarray(np.where(np.isin(winner, small), others.argmax(axis=-1), winner))
