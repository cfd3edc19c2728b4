"""The golden study: a synthetic study that a version answers at registration and again before promotion."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle import Description
from glioflow.bundle.prediction import Prediction, Predictor
from glioflow.data.case import Case
from glioflow.errors import UserError

GOLDEN = "golden.json"
_SHAPE = (6, 64, 64)


class GoldenNumbers(TypedDict):
    """The recorded and compared numbers of an answer, over the study's tumor and over any foreground."""

    tumor_voxels: int
    mean_probability: float
    highest_probability: float
    risk_score: float | None


class Refusal(TypedDict):
    """The answer of a model that refuses the golden study."""

    refused: str


def golden_study(description: Description) -> Case:
    """Return the study for a model: a bright blob in a gray ball, in whole numbers of 0 to 255, always the same."""
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in _SHAPE]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    texture = np.random.default_rng(0).integers(-12, 13, (*_SHAPE, len(description.channels)))
    ball = np.where(0.4 * z**2 + y**2 + x**2 < 0.8, 90, 0)[..., None]
    blob = np.where(z**2 + (y - 0.2) ** 2 + (x + 0.3) ** 2 < 0.1, 110, 0)[..., None]
    image: NDArray[np.uint8] = (np.clip(ball + blob + texture, 0, 255) * (ball > 0)).astype(np.uint8)
    spacing = None if description.origin.cohort_format == "lgg" else (1.0, 1.0, 1.0)
    return Case("golden", "golden", image, None, description.channels, tuple(range(1, _SHAPE[0] + 1)), spacing)


def golden_answer(predictor: Predictor) -> GoldenNumbers | Refusal:
    """Answer the golden study in fp32, which all machines compute alike.

    For a model that refuses it (it may need more than images), return the reason.
    """
    before, predictor.precision = predictor.precision, "fp32"
    try:
        prediction = predictor.predict(golden_study(predictor.description), made_up=True)
    except UserError as error:
        return {"refused": error.rule}
    finally:
        predictor.precision = before
    return numbers_of(prediction)


def numbers_of(prediction: Prediction) -> GoldenNumbers:
    """Return the numbers of an answer that are recorded and compared."""
    probability = prediction.segmentation.tumor_probability
    return {
        "tumor_voxels": int(np.count_nonzero(prediction.segmentation.labels)),
        "mean_probability": float(probability.mean()),
        "highest_probability": float(probability.max()),
        "risk_score": None if prediction.survival is None else prediction.survival.risk_score,
    }


def golden_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Return the largest relative difference of two answers' numbers; infinite if their keys differ.

    Voxels are compared as a share of the whole study, so that one voxel at a threshold counts little.
    """
    if before.keys() != now.keys() or "refused" in before:
        return 0.0 if before == now else float("inf")
    largest = 0.0
    for name, was in before.items():
        value = now[name]
        if was is None or value is None:
            largest = max(largest, 0.0 if was is value else float("inf"))
        else:
            scale = float(np.prod(_SHAPE)) if name == "tumor_voxels" else max(1.0, abs(was))
            largest = max(largest, abs(value - was) / scale)
    return largest
