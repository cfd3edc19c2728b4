"""Prediction from a bundle and a study, in plain Python, shared by the CLI, the gate and the endpoint."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glioflow import bundle
from glioflow.bundle.ensemble import check_alike
from glioflow.bundle.study_checks import check_prepared, swap_warnings
from glioflow.bundle.tumor import Tumor, find_tumor
from glioflow.data.case import Case
from glioflow.data.checks.channel_checks import blank_channels
from glioflow.data.checks.drift import measure_drift, summarize_input
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.data.preprocessing.geometry import Move, restore
from glioflow.data.preprocessing.pipeline import preprocess
from glioflow.errors import UserError
from glioflow.evaluation import PostprocessSettings, Segmentation, apply_temperature, decode, measure_spread
from glioflow.evaluation.settings import Precision
from glioflow.features import MaskFeatures, measure_mask
from glioflow.survival import SurvivalAnswer, SurvivalStage

if TYPE_CHECKING:
    import torch

NOT_FOR_CLINICAL_USE = "Research software, not for clinical use."


@dataclass(frozen=True)
class Prediction:
    """All results for one study.

    Attributes:
        segmentation: The mask and what it came from.
        features: Shape features of the whole tumor.
        survival: The survival stage's answer, or None if the model has no stage.
        tumor: The presence and location of a tumor.
        warnings: Warnings for the reader.
        timing_ms: By stage.
        drift: See `measure_drift`; empty if the bundle has no statistics.
    """

    segmentation: Segmentation
    features: MaskFeatures
    survival: SurvivalAnswer | None
    tumor: Tumor
    warnings: tuple[str, ...]
    timing_ms: dict[str, float]
    drift: dict[str, float]


class Predictor:
    """A bundle, loaded and ready.

    Attributes:
        precision: Precision of the forward pass; `auto` is the fastest that the hardware supports.
    """

    precision: Precision = "auto"

    def __init__(
        self, description: bundle.Description, network: "torch.nn.Module", survival: SurvivalStage | None = None
    ) -> None:
        """Create a predictor from a network on its device and its bundle's contents."""
        self.description, self.network, self.survival = description, network, survival

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> "Predictor":
        """Load the bundle in `folder` onto `device`; raises `UserError` as `bundle.load` does."""
        from glioflow.evaluation.inference import choose_device

        loaded = bundle.load(folder)
        return cls(loaded.description, loaded.network.to(choose_device(device)), loaded.survival)

    def predict(self, case: Case, *, clinical: Mapping[str, object] | None = None, made_up: bool = False) -> Prediction:
        """Predict one study.

        Args:
            case: Case from a reader.
            clinical: Clinical values by column name; missing ones are imputed and listed.
            made_up: Whether the case is synthetic, so that its intensities need not be those of a patient.

        Raises:
            UserError: If the case lacks channels that the model needs, or its intensities are refused.
        """
        clock = _Clock()
        self._check(case)
        volume = preprocess(case, self.description.preprocess)
        known = self.description.input_statistics or {}
        drift = measure_drift(summarize_input(volume.image, volume.channels), known) if known and not made_up else {}
        if case.missing:  # what stands in for a sequence has no intensities to compare
            blank = blank_channels(volume.image, volume.channels)
            drift = {name: distance for name, distance in drift.items() if name not in blank}
        noticed = check_prepared(volume.image, drift, self.description)
        noticed += [] if made_up or case.missing else swap_warnings(volume.image, volume.channels, self.description)
        clock.lap("preprocess")
        segmentation = self.segment(volume.image, volume.moves, spread=True)
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
        tumor = find_tumor(segmentation, case, self.description)
        warnings = tuple(dict.fromkeys([*case.warnings, *noticed]))
        return Prediction(segmentation, features, survival, tumor, warnings, clock.laps, drift)

    def segment(
        self, image: NDArray[np.floating[Any]], moves: tuple[Move, ...], *, spread: bool = False
    ) -> Segmentation:
        """Segment a prepared image.

        Args:
            image: (S, h, w, C) in the network's geometry.
            moves: Geometry changes from the original geometry.
            spread: Whether to compare the masks of an ensemble's members, too.

        Returns:
            Masks and probabilities in the original geometry.
        """
        target, each = self.description.target, self.member_probabilities(image)
        whole = decode(target, self.description.postprocess, restore(_mean(each), moves))
        if not spread or len(each) < 2:
            return whole
        alone = [
            decode(target, clean_up, restore(one, moves)) for clean_up, one in zip(self.clean_ups, each, strict=True)
        ]
        measured = measure_spread([each.tumor_probability for each in alone], [each.labels > 0 for each in alone])
        return replace(whole, spread=measured)

    @property
    def clean_ups(self) -> tuple[PostprocessSettings, ...]:
        """Threshold and clean-up of each network."""
        return (self.description.postprocess,) * (len(self.description.folds) or 1)

    def probabilities(self, image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the networks' mean probabilities (S, h, w, K) of a prepared image."""
        return _mean(self.member_probabilities(image))

    def member_probabilities(self, image: NDArray[np.floating[Any]]) -> list[NDArray[np.float32]]:
        """Return each network's probabilities (S, h, w, K) of a prepared image, at the bundle's temperature."""
        description, softmax = self.description, self.description.target.kind == "multiclass"
        raw = self.run_network(image)
        if members := len(description.folds):
            return [each * np.float32(members if softmax else 1) for each in np.split(raw, members, axis=-1)]
        if description.postprocess.temperature == 1:
            return [raw]
        return [apply_temperature(raw, description.postprocess.temperature, softmax_axis=-1 if softmax else None)]

    def run_network(self, image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the output (S, h, w, K) of the bundle's network; of an ensemble (S, h, w, M K), see `SideBySide`."""
        from glioflow.evaluation.inference import predict_volume

        softmax, inference = self.description.target.kind == "multiclass", dict(self.description.inference)
        return predict_volume(self.network, image, softmax=softmax, precision=self.precision, **inference)

    def _check(self, case: Case) -> None:
        if case.channels != self.description.channels:
            raise UserError(
                f"a study must have the model's channels, {list(self.description.channels)}",
                f"one with {list(case.channels)}",
            )


class Ensemble(Predictor):
    """An ensemble of bundles: averages probabilities, adds up parameters, takes everything else from the first."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        """Create an ensemble of predictors for the same task on the same input.

        Raises:
            UserError: If two of them differ in target, preprocessing or channels.
        """
        first = members[0]
        check_alike([member.description for member in members])
        # A volume interval describes the errors of a single network.
        parameters = sum(member.description.num_parameters for member in members)
        description = first.description.model_copy(update={"volume_interval": None, "num_parameters": parameters})
        super().__init__(description, first.network, first.survival)
        self.members = tuple(members)

    @property
    def clean_ups(self) -> tuple[PostprocessSettings, ...]:
        """Threshold and clean-up of each network."""
        return tuple(each for member in self.members for each in member.clean_ups)

    def member_probabilities(self, image: NDArray[np.floating[Any]]) -> list[NDArray[np.float32]]:
        """Return each network's probabilities (S, h, w, K) of a prepared image."""
        return [each for member in self.members for each in member.member_probabilities(image)]


def _mean(probabilities: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.asarray(sum(probabilities[1:], probabilities[0]) / np.float32(len(probabilities)))


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round((now - self._last) * 1000, 3)
        self._last = now
