"""The leakage gap: the score of one experiment under a split by slice, and under its split by patient.

Only this module splits by slice, and only to measure the effect. Both trainings are measured in the same way, in the
geometry of the network and without clean-up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.config import Experiment
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.prepared.remote import open_here
from glioflow.data.splits import Split
from glioflow.errors import UserError
from glioflow.evaluation import dice_of_counts
from glioflow.evaluation.baselines import NearestSlice, fit_flair_threshold, predict_flair_threshold
from glioflow.evaluation.patients import patient_means

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["slice", "patient"]
BoolVolume = NDArray[np.bool_]
Segment = Callable[[PreparedCase], BoolVolume]
_PARTS = ("train", "val", "test")


class Scores(BaseModel):
    """Scores of segmentations of the test slices.

    Attributes:
        dice: Dice over all test slices of a case, mean over a patient's cases, then over the patients with tumor in
            these slices.
        dice_pooled: Dice over the voxels of all test slices.
        dice_per_slice: Mean over test slices, as often published; an empty slice predicted as empty counts 1.
        dice_tumor_slices: Mean over the test slices with tumor.
        num_patients: Number of patients with test slices.
        num_slices: Number of test slices.
        num_empty_both: Of these, how many have no tumor and no prediction, which counts 1 in `dice_per_slice`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    dice: float
    dice_pooled: float
    dice_per_slice: float
    dice_tumor_slices: float
    num_patients: int
    num_slices: int
    num_empty_both: int = 0


@dataclass(frozen=True)
class Trial:
    """One of the two trainings, as it is sent to a worker."""

    experiment: Experiment
    prepared: Path
    split: Split
    kind: Kind


class SomeSlices(PreparedCase):
    """Some slices of a prepared case as a separate case; its reference is the prepared mask."""

    def __init__(self, case: PreparedCase, kept: NDArray[np.bool_]) -> None:
        """Take those slices of a labeled case that `kept` (S,) selects."""
        image, mask = np.asarray(case.image)[kept], np.asarray(case.mask)[kept]
        areas = tuple(int(area) for area in np.count_nonzero(mask, axis=(1, 2)))
        changes = {"moves": (), "shape": mask.shape, "areas_px": areas, "volume_px": sum(areas)}
        super().__init__(case.record.model_copy(update=changes), case.folder)
        self._image, self._mask = image, mask

    @property
    def image(self) -> NDArray[np.float16]:
        """The slices, (S, h, w, C)."""
        return self._image

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Their labels, (S, h, w)."""
        return self._mask

    def reference(self) -> NDArray[np.uint8]:
        """Return the true mask, (S, h, w)."""
        return self._mask


def run_trial(trial: Trial, report: Callable[..., None] = lambda *_: None) -> dict[str, Scores]:
    """Train under one kind of split; score the network, and the baselines fitted on the same training slices.

    Args:
        trial: The training.
        report: Called after each epoch, as by `build_and_fit`.

    Returns:
        `network`, `all_empty`, and `flair_threshold` and `nearest_slice` where they apply.

    Raises:
        UserError: If a part of the split has no slice.
    """
    cases = deal(open_here(trial.prepared), trial.split, trial.kind, seed=trial.experiment.split.seed)
    network = _train(trial.experiment, cases["train"], cases["val"], report)
    models = {"network": network, "all_empty": _segment_nothing, **_fit_baselines(cases["train"])}
    return {name: score(segment, cases["test"]) for name, segment in models.items()}


def deal(cohort: PreparedCohort, split: Split, kind: Kind, *, seed: int) -> dict[str, list[PreparedCase]]:
    """Return the slices of train, val and test as cases.

    The kind `slice` gives each part as many slices, drawn at random from all patients.

    Raises:
        UserError: If a part would be empty.
    """
    ids = {part: getattr(split, part) for part in _PARTS}
    cases = [cohort.case(case_id) for part in _PARTS for case_id in ids[part]]
    parts = [np.full(len(case.image), k) for k, part in enumerate(_PARTS) for case in cohort.cases(ids[part])]
    for part, name in enumerate(_PARTS):
        if not any((of_case == part).any() for of_case in parts):
            raise UserError(f"the leakage gap needs slices in train, val and test, and {name} has none")
    if kind == "slice":
        ends = np.cumsum([len(of_case) for of_case in parts])[:-1]
        parts = np.split(np.random.default_rng(seed).permutation(np.concatenate(parts)), ends)
    return {
        name: [SomeSlices(case, own == part) for case, own in zip(cases, parts, strict=True) if part in own]
        for part, name in enumerate(_PARTS)
    }


def score(segment: Segment, cases: Sequence[PreparedCase]) -> Scores:
    """Score the masks (S, h, w) that `segment` returns for the test cases."""
    masks = [(segment(case), case.reference() > 0) for case in cases]
    by_case = [(case.record.patient, _Overlap.of(*pair)) for case, pair in zip(cases, masks, strict=True)]
    rows = [{"patient": patient, "dice": _mean_dice([each])} for patient, each in by_case if each.truth]
    by_slice = [_Overlap.of(*pair) for predicted, truth in masks for pair in zip(predicted, truth, strict=True)]
    return Scores(
        dice=fmean(patient_means(rows, "dice").values()) if rows else 1.0,
        dice_pooled=dice_of_counts(sum(each.both for each in by_slice), sum(each.total for each in by_slice)),
        dice_per_slice=_mean_dice(by_slice),
        dice_tumor_slices=_mean_dice([each for each in by_slice if each.truth]),
        num_patients=len({case.record.patient for case in cases}),
        num_slices=len(by_slice),
        num_empty_both=sum(not each.total for each in by_slice),
    )


@dataclass(frozen=True)
class _Overlap:
    """Numbers of voxels: in both of two masks, in each of them added up, and in the true one."""

    both: int
    total: int
    truth: int

    @classmethod
    def of(cls, predicted: BoolVolume, truth: BoolVolume) -> "_Overlap":
        size = int(truth.sum())
        return cls(int((predicted & truth).sum()), int(predicted.sum()) + size, size)


def _mean_dice(overlaps: Sequence[_Overlap]) -> float:
    return float(np.mean([dice_of_counts(each.both, each.total) for each in overlaps])) if overlaps else 1.0


def _train(
    experiment: Experiment, train: Sequence[PreparedCase], val: Sequence[PreparedCase], report: Callable[..., None]
) -> Segment:
    from glioflow.training.fitting import build_and_fit

    def validate(network: "nn.Module") -> dict[str, float]:
        # Not `fitting.validate`: slices dealt one by one are no volumes, whose Dice it takes in the original geometry.
        return {"val/dice": score(_segmenter(network, experiment), val).dice_pooled}

    network, fitted = build_and_fit(
        experiment.model,
        experiment.loss,
        experiment.target,
        experiment.training,
        train,
        validate,
        report,
        num_threads=experiment.training.cpus_per_worker,
    )
    network.load_state_dict(fitted.weights)
    return _segmenter(network, experiment)


def _segmenter(network: "nn.Module", experiment: Experiment) -> Segment:
    from glioflow.evaluation.inference import predict_volume

    exclusive = experiment.target.kind == "multiclass"

    def segment(case: PreparedCase) -> BoolVolume:
        probability = predict_volume(network, case.image, softmax=exclusive, batch_size=experiment.inference.batch_size)
        if exclusive:
            return np.asarray(probability.argmax(axis=-1) > 0)
        return np.asarray(probability.max(axis=-1) > experiment.postprocess.threshold)

    return segment


def _segment_nothing(case: PreparedCase) -> BoolVolume:
    return np.zeros(case.record.shape, dtype=bool)


def _fit_baselines(train: Sequence[PreparedCase]) -> Mapping[str, Segment]:
    """Return the baselines that are fitted on the training slices, as far as they apply."""
    baselines: dict[str, Segment] = {}
    masks = [case.reference() > 0 for case in train]
    channels = train[0].record.channels
    if "flair" in channels:
        k = channels.index("flair")
        threshold = fit_flair_threshold(lambda: zip((_channel(case.image, k) for case in train), masks, strict=True))
        baselines["flair_threshold"] = lambda case: predict_flair_threshold(_channel(case.image, k), threshold)
    if len({case.record.shape[1:] for case in train}) == 1:
        nearest = NearestSlice([case.image for case in train], masks)
        baselines["nearest_slice"] = lambda case: np.asarray(nearest.predict(case.image)) > 0
    return baselines


def _channel(image: NDArray[Any], k: int) -> NDArray[np.float32]:
    return np.asarray(image[..., k], dtype=np.float32)
