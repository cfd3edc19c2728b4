"""Calibration: reliability of probabilities, temperature, and an interval for the tumor volume."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from glioflow.evaluation.metrics import dice_per_case
from glioflow.evaluation.patients import patient_means

Probabilities = NDArray[np.floating[Any]]
_SMALLEST = 1e-6
# A voxel whose probability is within this distance of 0 or 1 is certain.
CERTAIN = 0.01


class Reliability(BaseModel):
    """Voxels counted by their probability in bins of equal width; the counts of several patients can be added.

    Attributes:
        counts: Number of voxels in each bin.
        probability_sums: Sum of their probabilities, in each bin.
        tumor_counts: Number of tumor voxels in each bin.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    counts: tuple[int, ...]
    probability_sums: tuple[float, ...]
    tumor_counts: tuple[int, ...]

    def __add__(self, other: "Reliability") -> "Reliability":
        """Return the sum of the counts."""
        pairs = {name: zip(getattr(self, name), getattr(other, name), strict=True) for name in type(self).model_fields}
        return Reliability(**{name: tuple(a + b for a, b in values) for name, values in pairs.items()})

    @property
    def curve(self) -> list[tuple[float, float, int]]:
        """Mean probability, fraction of tumor, and number of voxels of each bin that is not empty."""
        bins = zip(self.counts, self.probability_sums, self.tumor_counts, strict=True)
        return [(total / count, tumor / count, count) for count, total, tumor in bins if count]

    @property
    def expected_error(self) -> float | None:
        """Expected calibration error in [0, 1]; None without voxels.

        Source: Naeini 2015.
        """
        voxels = sum(self.counts)
        return sum(abs(p - t) * count for p, t, count in self.curve) / voxels if voxels else None


def count_reliability(probability: Probabilities, reference: NDArray[np.bool_], *, num_bins: int = 15) -> Reliability:
    """Count the voxels of one patient, or of a part of the image (nearly all voxels are easy background)."""
    bins = np.minimum((probability.ravel() * num_bins).astype(np.int64), num_bins - 1)
    weights = (None, probability.ravel(), reference.ravel())
    counts, sums, tumor = (np.bincount(bins, weights=weight, minlength=num_bins) for weight in weights)
    return Reliability(
        counts=tuple(counts.tolist()),
        probability_sums=tuple(sums.tolist()),
        tumor_counts=tuple(tumor.astype(np.int64).tolist()),
    )


def apply_temperature(
    probability: Probabilities, temperature: float, *, softmax_axis: int | None = None
) -> Probabilities:
    """Return the probabilities with their logits divided by the temperature.

    Args:
        probability: Any shape, in [0, 1].
        temperature: Positive; above 1 makes them less certain.
        softmax_axis: Axis of exclusive classes; None if every entry is the output of a sigmoid.

    Source: Guo 2017.
    """
    from scipy.special import expit, logit

    if softmax_axis is None:
        return np.asarray(expit(logit(np.clip(probability, _SMALLEST, 1 - _SMALLEST)) / temperature))
    powered = np.clip(probability, _SMALLEST, 1) ** (1 / temperature)
    return np.asarray(powered / powered.sum(axis=softmax_axis, keepdims=True))


def fit_temperature(
    probabilities: Sequence[Probabilities],
    references: Iterable[NDArray[Any]],
    *,
    softmax: bool = False,
    max_voxels: int = 500_000,
    seed: int = 0,
) -> float:
    """Fit one temperature by maximum likelihood on voxels of validation patients.

    Args:
        probabilities: For each patient: sigmoids of any shape; with `softmax`, exclusive classes (..., K).
        references: For each patient: tumor or not, of the same shape; with `softmax`, the class of each voxel (...).
        softmax: Whether the outputs are exclusive classes.
        max_voxels: Largest number of voxels; if there are more, a random sample is drawn equally from all patients.
        seed: Seed of the sample.

    Returns:
        The temperature, in [0.05, 20]; 1 if all voxels are of one class, or there are none.

    Source: Guo 2017.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    rng, share = np.random.default_rng(seed), max(1, max_voxels // max(1, len(probabilities)))
    scores, truths = [], []
    for probability, reference in zip(probabilities, references, strict=True):
        truth = reference.ravel().astype(np.int64)
        chosen = rng.integers(truth.size, size=share) if truth.size > share else np.arange(truth.size)
        p = probability.reshape(truth.size, -1)[chosen].astype(np.float64)
        p = p if softmax else np.concatenate([1 - p, p], axis=1)  # a sigmoid is a softmax over two classes
        scores.append(np.log(np.clip(p, _SMALLEST, 1)))
        truths.append(truth[chosen])
    if len(np.unique(np.concatenate([*truths, np.zeros(0, np.int64)]))) < 2:
        return 1.0
    logits, truth = np.concatenate(scores), np.concatenate(truths)[:, None]
    right = np.take_along_axis(logits, truth, axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        heat = math.exp(log_temperature)
        return float((logsumexp(logits / heat, axis=1) - right / heat).mean())

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x)


def mean_entropy(probability: Probabilities) -> float:
    """Return the uncertainty of a study: the mean entropy of its uncertain voxels, in nats.

    The mean is over voxels whose probability is not within 1 % of 0 or 1, so that background does not dilute it; 0
    without any such voxel.
    """
    p = probability[(probability > CERTAIN) & (probability < 1 - CERTAIN)].astype(np.float64)
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()) if p.size else 0.0


class Spread(BaseModel):
    """Disagreement of the members of an ensemble about one study; all values are 0 if they agree.

    Attributes:
        num_members: At least two.
        probability_std: Standard deviation of their tumor probabilities, in [0, 0.5], averaged over the voxels that
            any member predicts as tumor; None if there are none.
        mask_disagreement: 1 minus the Dice of two members' masks, in [0, 1], averaged over all pairs.
        volume_variation: Standard deviation of their tumor volumes divided by the mean; None if no member finds any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_members: int
    probability_std: float | None
    mask_disagreement: float
    volume_variation: float | None


def measure_spread(probabilities: Sequence[Probabilities], masks: Sequence[NDArray[np.bool_]]) -> Spread:
    """Measure the disagreement of several models about one study.

    Args:
        probabilities: Tumor probability of each model, (S, H, W); at least two.
        masks: Mask of each model, (S, H, W).
    """
    union = np.logical_or.reduce(masks)
    in_union = np.stack([each[union] for each in probabilities]).astype(np.float64)
    volumes = np.array([np.count_nonzero(mask) for mask in masks], dtype=np.float64)
    # Subtract the first member's probabilities, so that equal members have no deviation from rounding.
    return Spread(
        num_members=len(masks),
        probability_std=float((in_union - in_union[0]).std(axis=0).mean()) if in_union.size else None,
        mask_disagreement=1 - float(np.mean([dice_per_case(a, b) for a, b in combinations(masks, 2)])),
        volume_variation=float(volumes.std() / volumes.mean()) if in_union.size else None,
    )


class IntervalSummary(TypedDict):
    """The facts about a fitted volume interval that reports show; see `VolumeInterval`."""

    level: float
    unit: str
    num_patients: int
    available: bool


class VolumeInterval(BaseModel):
    """A conformal interval for the tumor volume, from out-of-fold predictions.

    Residuals are differences of log(1 + volume), so that the interval grows with the tumor.

    Attributes:
        residuals: Absolute residual of each patient.
        folds: Fold of each patient whose network was not trained on the patient.
        level: Nominal coverage; CV+ guarantees 2 level - 1 and reaches about `level`.
        unit: Unit of the volumes.
        held_out: Digest of the test patients that were excluded; empty if there are none.
        regions: Residuals of each region of a model with several, by name, for the same patients.

    Source: Barber et al. 2021 (CV+).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    residuals: tuple[float, ...]
    folds: tuple[int, ...]
    level: float
    unit: Literal["px", "mm3"] = "px"
    held_out: str = ""
    regions: dict[str, tuple[float, ...]] = Field(default_factory=dict)

    @property
    def available(self) -> bool:
        """Whether there are enough patients for this level."""
        return math.ceil(self.level * (len(self.residuals) + 1)) <= len(self.residuals)

    def described(self) -> IntervalSummary:
        """Return the facts about the interval that reports show."""
        return {
            "level": self.level,
            "unit": self.unit,
            "num_patients": len(self.residuals),
            "available": self.available,
        }

    def interval(self, volumes: Sequence[float], *, region: str | None = None) -> tuple[float, float] | None:
        """Return the lower and upper end for a new study; None if there were too few patients.

        Args:
            volumes: Volume predicted by each fold's network, or a single one by a network that replaces them.
            region: One of `regions`; None for the whole tumor.
        """
        if not self.available:
            return None
        residuals = self.residuals if region is None else self.regions[region]
        n = len(residuals)
        rank = math.ceil(self.level * (n + 1))
        predicted = np.log1p(np.asarray(volumes, dtype=np.float64))
        centers = predicted[np.asarray(self.folds)] if len(predicted) > 1 else np.repeat(predicted, n)
        low, high = np.sort(centers - residuals)[n - rank], np.sort(centers + residuals)[rank - 1]
        return max(0.0, float(np.expm1(low))), float(np.expm1(high))


def fit_volume_interval(
    predicted: Sequence[float],
    reference: Sequence[float],
    folds: Sequence[int],
    *,
    patients: Sequence[str] | None = None,
    level: float = 0.9,
    unit: Literal["px", "mm3"] = "px",
    held_out: str = "",
    regions: Mapping[str, tuple[Sequence[float], Sequence[float]]] = MappingProxyType({}),
) -> VolumeInterval:
    """Fit the interval, with one residual for each patient: the mean over their cases.

    Args:
        predicted: Volume of each case, predicted by a network and post-processing chosen without this patient.
        reference: True volume of each case, in the same unit.
        folds: Fold of each case, from 0.
        patients: The person of each case; None if each case is a different person.
        level: Nominal coverage, in (0, 1).
        unit: Unit of the volumes.
        held_out: Digest of the test patients, who are not among these patients.
        regions: Predicted and true volume of each case's regions, by name.
    """
    people = list(patients) if patients is not None else [str(index) for index in range(len(predicted))]
    means = _residuals(predicted, reference, people)
    fold_of = dict(zip(people, folds, strict=True))
    return VolumeInterval(
        residuals=tuple(means.values()),
        folds=tuple(fold_of[name] for name in means),
        level=level,
        unit=unit,
        held_out=held_out,
        regions={name: tuple(_residuals(*volumes, people).values()) for name, volumes in regions.items()},
    )


def _residuals(predicted: Sequence[float], reference: Sequence[float], people: Sequence[str]) -> dict[str, float]:
    """Return the mean absolute residual of each person's cases."""
    residuals = np.abs(np.log1p(np.asarray(predicted)) - np.log1p(np.asarray(reference)))
    rows = [{"patient": name, "residual": value} for name, value in zip(people, residuals.tolist(), strict=True)]
    return patient_means(rows, "residual")
