"""What is chosen once a network is trained, on cases that it did not learn from, and the baseline fitted beside it."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from pydantic import BaseModel, ConfigDict

from glioflow import atomic
from glioflow.bundle.prediction import Predictor
from glioflow.data.checks.channel_looks import PairLooks, fit_channel_looks
from glioflow.data.checks.drift import InputStatistics, fit_input_statistics
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.evaluation import (
    PostprocessSettings,
    apply_temperature,
    choose_postprocessing,
    fit_flair_threshold,
    fit_temperature,
)

_MOST_SIZES = 3


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


class TrainingStatistics(BaseModel):
    """What is computed from the training cases alone, whatever network is trained on them.

    Attributes:
        flair_threshold: Of the FLAIR-threshold baseline; None where the network sees no FLAIR.
        input_statistics: Of the intensities of each channel, which new studies are compared with.
        channel_looks: How the channels differ, by which swapped ones are found.
        input_sizes: Height and width of most images, for which an endpoint gets ready at loading.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    flair_threshold: float | None
    input_statistics: InputStatistics
    channel_looks: tuple[PairLooks, ...]
    input_sizes: tuple[tuple[int, int], ...]


def training_statistics(cohort: PreparedCohort, cases: Sequence[PreparedCase]) -> TrainingStatistics:
    """Return the statistics of training cases, computed once for all trainings on them, a case at a time.

    They are kept beside the cohort's arrays, where that folder can be written.
    """
    ids = hashlib.sha256("\n".join(case.record.id for case in cases).encode()).hexdigest()[:32]
    kept = cohort.path / "statistics" / f"{ids}.json"
    with suppress(OSError, ValueError):
        return TrainingStatistics.model_validate_json(kept.read_bytes())
    sizes = Counter((int(case.image.shape[1]), int(case.image.shape[2])) for case in cases)
    statistics = TrainingStatistics(
        flair_threshold=_fit_flair(cases),
        input_statistics=fit_input_statistics((case.image for case in cases), cohort.channels),
        channel_looks=fit_channel_looks((case.image for case in cases), cohort.channels),
        input_sizes=tuple(size for size, _ in sizes.most_common(_MOST_SIZES)),
    )
    with suppress(OSError):
        atomic.write_text(kept, statistics.model_dump_json(indent=1))
    return statistics


def _fit_flair(cases: Sequence[PreparedCase]) -> float | None:
    """Fit the FLAIR-threshold baseline; None where the network sees no FLAIR."""
    if not cases or "flair" not in cases[0].record.channels:
        return None
    channel = cases[0].record.channels.index("flair")
    return fit_flair_threshold(
        lambda: ((np.asarray(case.image[..., channel], np.float32), np.asarray(case.mask) > 0) for case in cases)
    )
