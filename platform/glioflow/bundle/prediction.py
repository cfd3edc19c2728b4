"""Bundle and study to an answer, in plain Python: the same object under the CLI, the gate and the endpoint."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from glioflow import bundle
from glioflow.data.case import Case
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.data.preprocessing.geometry import Move, restore
from glioflow.data.preprocessing.pipeline import preprocess
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation import (
    PostprocessSettings,
    Spread,
    apply_postprocessing,
    apply_temperature,
    evaluate_parts,
    measure_spread,
    predict_flair_threshold,
)
from glioflow.evaluation.inference import Precision, choose_device, predict_volume
from glioflow.features import MaskFeatures, measure_mask
from glioflow.survival import SurvivalAnswer, SurvivalStage

if TYPE_CHECKING:
    import torch

NOT_FOR_CLINICAL_USE = "Research software, not for clinical use."


@dataclass(frozen=True)
class Segmentation:
    """What the network says of one case, in the original geometry.

    Attributes:
        labels: (S, H, W) uint8, as the cohort numbers them.
        parts: Mask of each foreground output, (S, H, W) each, as `labels` hold them.
        probability: (S, H, W, K) float32 of the foreground outputs.
        tumor_probability: (S, H, W) float32, of any of them.
        spread: How far the members of an ensemble disagree; None of one model.
    """

    labels: NDArray[np.uint8]
    parts: dict[str, NDArray[np.bool_]]
    probability: NDArray[np.float32]
    tumor_probability: NDArray[np.float32]
    spread: Spread | None = None


class TumorVolume(TypedDict):
    """The tumor's volume with its conformal interval.

    Keys:
        value: In `unit`.
        unit: `mm3` where the spacing is known, else `px`.
        interval: [low, high]; None where the bundle has none in this unit or it rests on too few patients.
        level: Of the interval, in (0, 1); None where the bundle has none.
    """

    value: float
    unit: Literal["mm3", "px"]
    interval: list[float] | None
    level: float | None


class Tumor(TypedDict):
    """Whether there is a tumor and where.

    Keys:
        detected: Whether any voxel is called tumor.
        probability: The highest of all voxels, in [0, 1].
        slices: Numbers of the slices with tumor, as the files' names have them.
        volume: How large it is.
    """

    detected: bool
    probability: float
    slices: list[int]
    volume: TumorVolume


@dataclass(frozen=True)
class Prediction:
    """All answers about one study.

    Attributes:
        segmentation: The mask and what it came from.
        features: Shape features of the whole tumor.
        survival: The survival stage's answer, or None where the model has no stage.
        tumor: Whether there is one and where.
        warnings: What a reader should know.
        timing_ms: By stage.
    """

    segmentation: Segmentation
    features: MaskFeatures
    survival: SurvivalAnswer | None
    tumor: Tumor
    warnings: tuple[str, ...]
    timing_ms: dict[str, float]


class Predictor:
    """A bundle, loaded and ready.

    Attributes:
        precision: Of the forward pass; `auto` is the fastest that the hardware has.
    """

    precision: Precision = "auto"

    def __init__(
        self, description: bundle.Description, network: "torch.nn.Module", survival: SurvivalStage | None = None
    ) -> None:
        """Take a network on its device, with what its bundle says."""
        self.description, self.network, self.survival = description, network, survival

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> "Predictor":
        """Load the bundle in `folder` onto `device`; raises `UserError` as `bundle.load` does."""
        loaded = bundle.load(folder)
        return cls(loaded.description, loaded.network.to(choose_device(device)), loaded.survival)

    def predict(self, case: Case, *, clinical: Mapping[str, object] | None = None) -> Prediction:
        """Answer for one study.

        Args:
            case: As a reader gave it.
            clinical: Clinical values by column name; those that are missing are imputed and named.

        Raises:
            UserError: If the case does not have the channels that the model needs.
        """
        clock = _Clock()
        self._check(case)
        volume = preprocess(case, self.description.preprocess)
        clock.lap("preprocess")
        segmentation = self.segment(volume.image, volume.moves)
        clock.lap("segment")
        mask = segmentation.labels > 0
        features = measure_mask(
            mask,
            spacing_mm=case.spacing_mm,
            probability=segmentation.tumor_probability,
            brain=locate_brain(case.image),
        )
        clock.lap("features")
        survival = None if self.survival is None else self.survival.predict(features.volume, clinical or {})
        clock.lap("survival")
        tumor = _find_tumor(segmentation, case, self.volume(features.volume))
        return Prediction(segmentation, features, survival, tumor, case.warnings, clock.laps)

    def segment(self, image: NDArray[np.floating[Any]], moves: tuple[Move, ...]) -> Segmentation:
        """Segment a prepared image.

        Args:
            image: (S, h, w, C) in the network's geometry.
            moves: The way there from the original geometry.

        Returns:
            Masks and probabilities in the original geometry.
        """
        said = self.description
        return decode(said.target, said.postprocess, self.probabilities(image), moves)

    def probabilities(self, image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the network's probabilities (S, h, w, K) of a prepared image, at the bundle's temperature."""
        said, softmax = self.description, self.description.target.kind == "multiclass"
        raw = predict_volume(self.network, image, softmax=softmax, precision=self.precision, **dict(said.inference))
        if said.postprocess.temperature == 1:
            return raw
        return apply_temperature(raw, said.postprocess.temperature, softmax_axis=-1 if softmax else None)

    def volume(self, features: Mapping[str, float | None]) -> TumorVolume:
        """Return the tumor's volume among shape features, with its conformal interval."""
        unit: Literal["mm3", "px"] = "px" if features["volume_mm3"] is None else "mm3"
        value, fitted = float(features[f"volume_{unit}"] or 0), self.description.volume_interval
        interval = fitted.interval([value]) if fitted is not None and fitted.unit == unit else None
        return {
            "value": value,
            "unit": unit,
            "interval": None if interval is None else list(interval),
            "level": None if fitted is None else fitted.level,
        }

    def _check(self, case: Case) -> None:
        if case.channels != self.description.channels:
            raise UserError(
                f"this model takes the channels {list(self.description.channels)}",
                f"a study with {list(case.channels)}",
            )


class Ensemble(Predictor):
    """Several bundles as one: their probabilities are averaged, parameters added, all else is the first one's."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        """Take predictors of the same task on the same input.

        Raises:
            UserError: If two of them differ in target, preprocessing or channels.
        """
        first = members[0]
        for member in members[1:]:
            for key in ("target", "preprocess", "channels"):
                if getattr(member.description, key) != getattr(first.description, key):
                    raise UserError(f"the models of an ensemble have the same {key}")
        # A volume interval is of one network's errors.
        parameters = sum(member.description.num_parameters for member in members)
        said = first.description.model_copy(update={"volume_interval": None, "num_parameters": parameters})
        super().__init__(said, first.network, first.survival)
        self.members = tuple(members)

    def segment(self, image: NDArray[np.floating[Any]], moves: tuple[Move, ...]) -> Segmentation:
        """Segment a prepared image by the members' mean probabilities; `spread` is of what each alone would answer."""
        each = [member.probabilities(image) for member in self.members]
        said = self.description
        whole = decode(said.target, said.postprocess, _mean(each), moves)
        if len(each) < 2:
            return whole
        alone = [
            decode(said.target, m.description.postprocess, p, moves) for m, p in zip(self.members, each, strict=True)
        ]
        spread = measure_spread([found.tumor_probability for found in alone], [found.labels > 0 for found in alone])
        return replace(whole, spread=spread)

    def probabilities(self, image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the members' mean probabilities (S, h, w, K) of a prepared image."""
        return _mean([member.probabilities(image) for member in self.members])


def _mean(probabilities: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.asarray(sum(probabilities[1:], probabilities[0]) / np.float32(len(probabilities)))


def decode(
    target: TargetSettings,
    postprocess: PostprocessSettings,
    probabilities: NDArray[np.float32],
    moves: tuple[Move, ...],
) -> Segmentation:
    """Turn network probabilities (S, h, w, K) into masks in the original geometry, post-processing included."""
    full = np.asarray(restore(probabilities, moves), dtype=np.float32)
    if target.kind == "multiclass":
        winner = full.argmax(axis=-1)
        full = full[..., 1:]
        anywhere = full.sum(axis=-1)  # the classes exclude each other
        raw = {name: winner == index for index, name in enumerate(target.names, start=1)}
        parts = apply_postprocessing(raw, postprocess, already_decided=True)
    else:
        raw = {name: full[..., k] for k, name in enumerate(target.names)}
        anywhere = full.max(axis=-1)
        parts = apply_postprocessing(raw, postprocess)
    if target.kind == "regions":  # labels can only say nested regions: what is measured is what is answered
        inside = np.ones(full.shape[:-1], dtype=bool)
        parts = {name: (inside := inside & parts[name]) for name in target.names}
    return Segmentation(target.labels_of(parts), parts, full, anywhere)


Row = dict[str, Any]


def measure(predictor: Predictor, cases: Iterable[PreparedCase]) -> list[Row]:
    """Measure a model on labeled prepared cases, in the original geometry against the original masks.

    Returns:
        Per case `id`, `patient`, `institution` and the metrics of `evaluate_parts`.
    """
    target = predictor.description.target
    return [measure_segmentation(predictor.segment(case.image, case.record.moves), case, target) for case in cases]


def measure_segmentation(segmentation: Segmentation, case: PreparedCase, target: TargetSettings) -> Row:
    """Measure one segmentation against the case's original mask."""
    probabilities = {name: segmentation.probability[..., k] for k, name in enumerate(target.names)}
    return _row(case, segmentation.parts, target, probabilities)


def measure_flair_threshold(description: bundle.Description, cases: Iterable[PreparedCase]) -> list[Row] | None:
    """Measure the baseline that calls everything tumor that is brighter in FLAIR than the fitted threshold.

    Returns:
        Rows as `measure` gives them; None where the model sees no FLAIR or its target has several parts.
    """
    threshold, channels = description.flair_threshold, description.network_channels
    if threshold is None or "flair" not in channels or len(description.target.names) > 1:
        return None
    name, k = description.target.names[0], channels.index("flair")
    rows = []
    for case in cases:
        bright = predict_flair_threshold(np.asarray(case.image[..., k], dtype=np.float32), threshold)
        restored = np.asarray(restore(bright.astype(np.uint8), case.record.moves)) > 0
        rows.append(_row(case, {name: restored}, description.target, None))
    return rows


def measure_empty(target: TargetSettings, cases: Iterable[PreparedCase]) -> list[Row]:
    """Measure the baseline that never finds anything."""
    return [
        _row(case, {name: np.zeros(case.record.shape, bool) for name in target.names}, target, None) for case in cases
    ]


def _row(
    case: PreparedCase,
    parts: Mapping[str, NDArray[np.bool_]],
    target: TargetSettings,
    probabilities: Mapping[str, NDArray[np.float32]] | None,
) -> Row:
    record = case.record
    measured = evaluate_parts(
        parts, target.split(case.reference()), spacing_mm=record.spacing_mm, probabilities=probabilities
    )
    return {"id": record.id, "patient": record.patient, "institution": record.institution, **measured}


def numbers(summary: Mapping[str, Any], prefix: str) -> dict[str, float | None]:
    """Return a summary's plain numbers under `prefix/`, as runs log them; intervals become `_low` and `_high`."""
    flat: dict[str, float | None] = {}
    for key, value in summary.items():
        if isinstance(value, list | tuple):
            flat |= {f"{prefix}/{key}_low": float(value[0]), f"{prefix}/{key}_high": float(value[1])}
        elif value is None or isinstance(value, int | float):
            flat[f"{prefix}/{key}"] = value
    return flat


def _find_tumor(segmentation: Segmentation, case: Case, volume: TumorVolume) -> Tumor:
    slices = np.flatnonzero(segmentation.labels.any(axis=(1, 2)))
    highest = min(1.0, float(segmentation.tumor_probability.max(initial=0.0)))
    return {
        "detected": bool(slices.size),
        "probability": highest,
        "slices": [case.slice_numbers[index] for index in slices],
        "volume": volume,
    }


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round((now - self._last) * 1000, 3)
        self._last = now
