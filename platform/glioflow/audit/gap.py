"""What a split by slice would make of a score: one experiment trained under it and under its split by patient.

A split by slice exists only here, and only to be measured. Both trainings are measured alike, in the network's
geometry and without clean-up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.config import Experiment
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.splits import Split
from glioflow.errors import UserError
from glioflow.evaluation import dice_of_counts
from glioflow.evaluation.baselines import NearestSlice, fit_flair_threshold, predict_flair_threshold

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["slice", "patient"]
BoolVolume = NDArray[np.bool_]
Find = Callable[[PreparedCase], BoolVolume]
_PARTS = ("train", "val", "test")


class Scores(BaseModel):
    """How well tumor was found in the test slices.

    Attributes:
        dice: Mean over patients of the Dice of each one's test slices together; those without tumor in them left out.
        dice_pooled: Over the voxels of all test slices together.
        dice_per_slice: Mean over test slices, as published scores often are: 1 where an empty one is called empty.
        dice_tumor_slices: Mean over the test slices with tumor.
        num_patients: With test slices.
        num_slices: Tested.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    dice: float
    dice_pooled: float
    dice_per_slice: float
    dice_tumor_slices: float
    num_patients: int
    num_slices: int


@dataclass(frozen=True)
class Trial:
    """One of the two trainings, as it travels to a worker."""

    experiment: Experiment
    prepared: Path
    split: Split
    kind: Kind


class SomeSlices(PreparedCase):
    """Some slices of a prepared case as a case of its own, whose truth is the prepared mask."""

    def __init__(self, case: PreparedCase, kept: NDArray[np.bool_]) -> None:
        """Take the slices of a labeled case that are set in `kept` (S,)."""
        image, mask = np.asarray(case.image)[kept], np.asarray(case.mask)[kept]
        areas = tuple(int(area) for area in np.count_nonzero(mask, axis=(1, 2)))
        moved = {"moves": (), "shape": mask.shape, "areas_px": areas, "volume_px": sum(areas)}
        super().__init__(case.record.model_copy(update=moved), case.folder)
        self.image, self.mask = image, mask

    def reference(self) -> NDArray[np.uint8]:
        """Return the truth, (S, h, w)."""
        assert self.mask is not None
        return self.mask


def run_trial(trial: Trial) -> dict[str, Scores]:
    """Train under one kind of split; score the network, and the baselines that know the same training slices.

    Returns:
        `network`, `all_empty`, and `flair_threshold` and `nearest_slice` where they apply.

    Raises:
        UserError: If a part of the split has no slice.
    """
    cases = deal(PreparedCohort(trial.prepared), trial.split, trial.kind, seed=trial.experiment.split.seed)
    finders = {"network": _train(trial.experiment, cases["train"], cases["val"]), "all_empty": _find_nothing}
    finders |= _simple_finders(cases["train"])
    return {name: score(find, cases["test"]) for name, find in finders.items()}


def deal(cohort: PreparedCohort, split: Split, kind: Kind, *, seed: int) -> dict[str, list[PreparedCase]]:
    """Return the slices of train, val and test as cases; `slice` deals as many of each, whoever's they are.

    Raises:
        UserError: If a part would be empty.
    """
    ids = {part: getattr(split, part) for part in _PARTS}
    cases = [cohort.case(case_id) for part in _PARTS for case_id in ids[part]]
    parts = [np.full(len(case.image), k) for k, part in enumerate(_PARTS) for case in cohort.cases(ids[part])]
    for part, name in enumerate(_PARTS):
        if not any((found == part).any() for found in parts):
            raise UserError("the leakage gap needs slices in train, val and test", f"none in {name}")
    if kind == "slice":
        ends = np.cumsum([len(found) for found in parts])[:-1]
        parts = np.split(np.random.default_rng(seed).permutation(np.concatenate(parts)), ends)
    return {
        name: [SomeSlices(case, found == part) for case, found in zip(cases, parts, strict=True) if part in found]
        for part, name in enumerate(_PARTS)
    }


def score(find: Find, cases: Sequence[PreparedCase]) -> Scores:
    """Score what `find` calls tumor (S, h, w) in each of the test cases."""
    masks = [(find(case), case.reference() > 0) for case in cases]
    by_patient = [_Overlap.of(*pair) for pair in masks]
    by_slice = [_Overlap.of(*pair) for predicted, truth in masks for pair in zip(predicted, truth, strict=True)]
    return Scores(
        dice=_mean_dice([each for each in by_patient if each.truth]),
        dice_pooled=dice_of_counts(sum(each.both for each in by_slice), sum(each.total for each in by_slice)),
        dice_per_slice=_mean_dice(by_slice),
        dice_tumor_slices=_mean_dice([each for each in by_slice if each.truth]),
        num_patients=len({case.record.patient for case in cases}),
        num_slices=len(by_slice),
    )


@dataclass(frozen=True)
class _Overlap:
    """Voxels in both of two masks, in each of them added up, and in the true one."""

    both: int
    total: int
    truth: int

    @classmethod
    def of(cls, predicted: BoolVolume, truth: BoolVolume) -> "_Overlap":
        size = int(truth.sum())
        return cls(int((predicted & truth).sum()), int(predicted.sum()) + size, size)


def _mean_dice(overlaps: Sequence[_Overlap]) -> float:
    return float(np.mean([dice_of_counts(each.both, each.total) for each in overlaps])) if overlaps else 1.0


def _train(experiment: Experiment, train: Sequence[PreparedCase], val: Sequence[PreparedCase]) -> Find:
    from glioflow.training.fitting import build_and_fit

    def validate(network: "nn.Module") -> dict[str, float]:
        return {"val/dice": score(_finder(network, experiment), val).dice_pooled}

    network, fitted = build_and_fit(
        experiment.model,
        experiment.loss,
        experiment.target,
        experiment.training,
        train,
        validate,
        lambda *_: None,
        num_threads=experiment.training.cpus_per_worker,
    )
    network.load_state_dict(fitted.weights)
    return _finder(network, experiment)


def _finder(network: "nn.Module", experiment: Experiment) -> Find:
    from glioflow.evaluation.inference import predict_volume

    exclusive = experiment.target.kind == "multiclass"

    def find(case: PreparedCase) -> BoolVolume:
        probability = predict_volume(network, case.image, softmax=exclusive, batch_size=experiment.inference.batch_size)
        if exclusive:
            return np.asarray(probability.argmax(axis=-1) > 0)
        return np.asarray(probability.max(axis=-1) > experiment.postprocess.threshold)

    return find


def _find_nothing(case: PreparedCase) -> BoolVolume:
    return np.zeros(case.record.shape, dtype=bool)


def _simple_finders(train: Sequence[PreparedCase]) -> Mapping[str, Find]:
    """Return the baselines that learn from the training slices, as far as they apply."""
    finders: dict[str, Find] = {}
    masks = [case.reference() > 0 for case in train]
    channels = train[0].record.channels
    if "flair" in channels:
        k = channels.index("flair")
        threshold = fit_flair_threshold([_channel(case.image, k) for case in train], masks)
        finders["flair_threshold"] = lambda case: predict_flair_threshold(_channel(case.image, k), threshold)
    if len({case.record.shape[1:] for case in train}) == 1:
        nearest = NearestSlice([case.image for case in train], masks)
        finders["nearest_slice"] = lambda case: np.asarray(nearest.predict(case.image)) > 0
    return finders


def _channel(image: NDArray[Any], k: int) -> NDArray[np.float32]:
    return np.asarray(image[..., k], dtype=np.float32)
