"""What is chosen once a network is trained, on cases that it did not learn from, and the baseline fitted beside it."""

import numpy as np

from glioflow.bundle.prediction import Predictor
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.evaluation import (
    PostprocessSettings,
    apply_temperature,
    choose_postprocessing,
    fit_flair_threshold,
    fit_temperature,
)


def choose_for(predictor: Predictor, cases: list[PreparedCase]) -> PostprocessSettings:
    """Choose temperature, threshold and clean-up on labeled cases that trained nothing; softmax has no threshold."""
    description = predictor.description
    if not (description.postprocess.choose and cases):
        return description.postprocess
    softmax = description.target.kind == "multiclass"
    probabilities = [predictor.probabilities(case.image) for case in cases]
    encoded = [description.target.encode(np.asarray(case.mask)) for case in cases]
    truths = [one if softmax else np.moveaxis(one, 0, -1) for one in encoded]
    heat = fit_temperature(probabilities, truths, softmax=softmax)
    total = float(np.clip(heat * description.postprocess.temperature, 0.05, 20))
    settings = description.postprocess.model_copy(update={"temperature": total})
    if softmax:
        return settings
    restored = [
        np.asarray(case.restore(apply_temperature(one, heat))) for case, one in zip(cases, probabilities, strict=True)
    ]
    return choose_postprocessing(
        [{name: full[..., k] for k, name in enumerate(description.target.names)} for full in restored],
        [description.target.split(case.reference()) for case in cases],
        settings=settings,
    )


def fit_flair(cases: list[PreparedCase]) -> float | None:
    """Fit the FLAIR-threshold baseline on training patients; None where the network sees no FLAIR."""
    if not cases or "flair" not in cases[0].record.channels:
        return None
    channel = cases[0].record.channels.index("flair")
    images = [np.asarray(case.image[..., channel], dtype=np.float32) for case in cases]
    return fit_flair_threshold(images, [np.asarray(case.mask) > 0 for case in cases])
