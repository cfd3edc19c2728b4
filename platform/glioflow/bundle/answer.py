"""The JSON form of an answer about one study, for prediction, endpoint, files, page and notebook."""

import base64
import zlib
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle.encoded_mask import EncodedMask
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE, Prediction
from glioflow.bundle.tumor import Tumor
from glioflow.data.case import Case
from glioflow.data.checks.drift import InputStatistics
from glioflow.evaluation import Segmentation
from glioflow.evaluation.calibration import CERTAIN, mean_entropy
from glioflow.features import MaskFeatures
from glioflow.features.mask import NO_SPACING
from glioflow.json_values import JsonObject
from glioflow.reports.overlay import OverlayJson


class ModelId(TypedDict):
    """The model that answered: its name, registered version and run, if it has them."""

    name: str
    version: int | None
    run_id: str | None


class StudyFacts(TypedDict):
    """The study: `slices` are the numbers in the files' names, `warnings` one sentence each."""

    id: str
    slices: list[int]
    spacing_mm: tuple[float, float, float] | None
    warnings: list[str]


class Uncertainty(TypedDict):
    """The model's confidence in its mask, by its own probabilities.

    Keys:
        expected_dice: Expected Dice in [0, 1] if the probabilities are calibrated; None without any tumor.
        mean_entropy: In nats, see `glioflow.evaluation.calibration.mean_entropy`.
        uncertain_px: Voxels with a probability of tumor from 0.1 to 0.9.
        ensemble: Disagreement of an ensemble's members, see `glioflow.evaluation.Spread`; absent for a single model.
    """

    expected_dice: float | None
    mean_entropy: float
    uncertain_px: int
    ensemble: NotRequired[dict[str, float | None]]


class FeaturesJson(TypedDict):
    """Shape features from `glioflow.features.MaskFeatures`, with the positions of slices in the study.

    In `volume`, names with `_slice` count from 0 like arrays, and so does `slice` of a row in `slices`. Among the added
    fields, `..._number` is a number in the files' names, `..._position` counts from 0, and `..._mm` is the
    distance from the first slice. Each row has `number`, `position` and `position_mm`.
    """

    volume: dict[str, float | None]
    slices: list[dict[str, float | int | None]]
    undefined: dict[str, str]


class SurvivalJson(TypedDict):
    """The survival stage's answer from `glioflow.survival.SurvivalAnswer`."""

    task: str
    risk_score: float
    probability: float | None
    horizon_days: float | None
    interval: tuple[float, float] | None
    predicted_days: float | None
    category: str | None
    basis: list[str]
    imputed: list[str]
    beats_baselines: bool
    warnings: list[str]
    curve: dict[str, list[float]] | None


class ProbabilityJson(TypedDict):
    """The probability of any tumor in each voxel.

    Keys:
        encoding: `zlib-bytes`: a byte for each voxel, 255 for 1, in C order, compressed by zlib, in base64.
        shape: [S, H, W].
    """

    encoding: Literal["zlib-bytes"]
    shape: list[int]
    data: str


class AnswerJson(TypedDict):
    """The complete answer about one study; `mask`, `overlay`, `probability` and `request_id` if requested."""

    model: ModelId
    study: StudyFacts
    tumor: Tumor
    uncertainty: Uncertainty
    features: FeaturesJson
    survival: SurvivalJson | None
    timing_ms: dict[str, float]
    notice: str
    mask: NotRequired[EncodedMask]
    overlay: NotRequired[OverlayJson]
    probability: NotRequired[ProbabilityJson]
    request_id: NotRequired[str]


class CardInput(TypedDict):
    """The input of a model: see `glioflow.bundle.Description`."""

    channels: list[str]
    network_channels: list[str]
    preprocess: list[JsonObject]
    statistics: InputStatistics | None
    entry: JsonObject


class ServingState(TypedDict):
    """The versions in a predictor and its device: see `glioflow.serving`.

    Keys:
        engine: The champion's way of computing on its machine.
        challenger: The version that is tested on live traffic.
        trial: Its share of the traffic.
        refused: Reasons why versions could not be served, by `name/version`.
        stepped_back: Reason why the challenger gets no more traffic; absent if there is no challenger.
    """

    engine: JsonObject | None
    challenger: ModelId | None
    trial: JsonObject
    refused: dict[str, str]
    stepped_back: NotRequired[str | None]


class OriginJson(TypedDict):
    """The origin of a model: see `glioflow.bundle.Origin`."""

    experiment: str
    cohort_format: str
    fingerprint: str
    source_fingerprint: str
    split: str
    test: str
    num_patients: dict[str, int]
    fitted_on: dict[str, str]
    created: str
    version: str
    labels: NotRequired[dict[str, str]]


class ModelCard(TypedDict):
    """The model that an endpoint serves, with the settings in the bundle's description.

    `feedback` is whether the endpoint accepts corrected masks, which requires a token.
    """

    model: ModelId
    format: int
    architecture: JsonObject
    num_parameters: int
    input: CardInput
    inference: JsonObject
    target: JsonObject
    postprocess: JsonObject
    metrics: dict[str, float | None]
    fingerprint: str
    origin: OriginJson
    survival: JsonObject | None
    serving: ServingState
    notice: str
    feedback: NotRequired[bool]


def answer_to_json(case: Case, prediction: Prediction, model: ModelId) -> AnswerJson:
    """Return the answer about a study without its mask (see `encoded_mask.encode_mask`)."""
    survival = prediction.survival
    return {
        "model": model,
        "study": {
            "id": case.id,
            "slices": list(case.slice_numbers),
            "spacing_mm": case.spacing_mm,
            "warnings": list(prediction.warnings),
        },
        "tumor": prediction.tumor,
        "uncertainty": measure_uncertainty(prediction.segmentation),
        "features": locate_features(prediction.features, case),
        "survival": None if survival is None else cast(SurvivalJson, survival.model_dump(mode="json")),
        "timing_ms": prediction.timing_ms,
        "notice": NOT_FOR_CLINICAL_USE,
    }


def locate_features(features: MaskFeatures, case: Case) -> FeaturesJson:
    """Return features with the numbers, positions and millimeters of their slices."""
    located = cast(FeaturesJson, features.model_dump(mode="json"))
    volume, undefined = located["volume"], located["undefined"]
    for name in ("largest_slice", "centroid_slice"):
        position = volume.get(name)
        stem = name.removesuffix("_slice")
        volume[f"{stem}_position"] = position
        volume[f"{stem}_position_mm"] = None if position is None else case.position_mm(position)
        undefined |= {f"{stem}_position{unit}": undefined[name] for unit in ("", "_mm") if name in undefined}
        if position is not None and case.spacing_mm is None:
            undefined[f"{stem}_position_mm"] = NO_SPACING
    largest = volume["largest_position"]
    volume["largest_number"] = None if largest is None else float(case.slice_numbers[int(largest)])
    if largest is None:
        undefined["largest_number"] = undefined["largest_position"]
    for row in located["slices"]:
        position = int(row["slice"] or 0)
        row |= {"number": case.slice_numbers[position], "position": position, "position_mm": case.position_mm(position)}
    return located


def encode_probability(probability: NDArray[np.uint8]) -> ProbabilityJson:
    """Return the JSON form of a probability map (S, H, W), 255 for 1."""
    data = base64.b64encode(zlib.compress(probability.tobytes(), 1)).decode()
    return {"encoding": "zlib-bytes", "shape": list(probability.shape), "data": data}


def measure_uncertainty(segmentation: Segmentation) -> Uncertainty:
    """Return the model's confidence in its mask."""
    probability, mask = segmentation.tumor_probability, segmentation.labels > 0
    volume = int(np.count_nonzero(mask))
    size = float(probability.sum(axis=(1, 2)).sum(dtype=np.float64)) + volume
    promised = 2 * float(np.sum(probability[mask], dtype=np.float64)) / size if volume else None
    doubtful = probability[probability > CERTAIN]  # the background is most of a study
    uncertainty: Uncertainty = {
        "expected_dice": promised,
        "mean_entropy": mean_entropy(doubtful),
        "uncertain_px": int(np.count_nonzero((doubtful >= 0.1) & (doubtful <= 0.9))),
    }
    if segmentation.spread is not None:
        uncertainty["ensemble"] = segmentation.spread.model_dump()
    return uncertainty
