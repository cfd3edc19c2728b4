"""Choices after a network's training, on cases that it did not learn from, and the fitted FLAIR baseline."""

import fcntl
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow import atomic
from glioflow.bundle import Description
from glioflow.bundle.measurement import measure, measure_segmentation
from glioflow.bundle.prediction import Predictor
from glioflow.data.checks.channel_looks import PairLooks, fit_channel_looks
from glioflow.data.checks.drift import InputStatistics, fit_input_statistics
from glioflow.data.prepared.arrays import map_array, write_array
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.evaluation import (
    PostprocessSettings,
    apply_temperature,
    choose_postprocessing,
    decode,
    fit_flair_threshold,
    fit_temperature,
)
from glioflow.evaluation.patients import CaseScores

_MOST_SIZES = 3


def choose_and_measure(
    predictor: Predictor, cases: Sequence[PreparedCase]
) -> tuple[PostprocessSettings, list[CaseScores]]:
    """Choose temperature, threshold and clean-up on labeled cases that trained nothing; softmax has no threshold.

    Returns:
        The settings, and the cases' rows from `measure` with them. The network runs once for each case.
    """
    description = predictor.description
    if not (description.postprocess.choose and cases):
        return description.postprocess, measure(predictor, cases)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.npy" for number in range(len(cases))]
        probabilities = [
            _put_aside(predictor.probabilities(case.image), file) for case, file in zip(cases, files, strict=True)
        ]
        heat, settings = _choose(description, cases, probabilities)
        target, axis = description.target, _softmax_axis(description)
        heated = (apply_temperature(one, heat, softmax_axis=axis) for one in probabilities)
        rows = [
            measure_segmentation(decode(target, settings, case.restore(one)), case, target)
            for one, case in zip(heated, cases, strict=True)
        ]
    return settings, rows


def _choose(
    description: Description, cases: Sequence[PreparedCase], probabilities: Sequence[NDArray[np.float32]]
) -> tuple[float, PostprocessSettings]:
    """Return the factor by which the temperature changes, and the settings with it."""
    softmax = _softmax_axis(description) is not None
    encoded = (description.target.encode(np.asarray(case.mask)) for case in cases)
    truths = (one if softmax else np.moveaxis(one, 0, -1) for one in encoded)
    before = description.postprocess.temperature
    total = float(np.clip(fit_temperature(probabilities, truths, softmax=softmax) * before, 0.05, 20))
    settings, heat = description.postprocess.model_copy(update={"temperature": total}), total / before
    if softmax:
        return heat, settings
    pairs = zip(cases, probabilities, strict=True)
    restored = (np.asarray(case.restore(apply_temperature(one, heat))) for case, one in pairs)
    return heat, choose_postprocessing(
        ({name: full[..., k] for k, name in enumerate(description.target.names)} for full in restored),
        (description.target.split(case.reference()) for case in cases),
        settings=settings,
    )


def _softmax_axis(description: Description) -> int | None:
    return -1 if description.target.kind == "multiclass" else None


def _put_aside(array: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """Return an array mapped from a file, so that those of all cases need no memory; itself where the disk is full."""
    try:
        write_array(path, array)
        return map_array(path)
    except OSError:
        return array


class TrainingStatistics(BaseModel):
    """Statistics of the training cases, independent of the network.

    Attributes:
        flair_threshold: Threshold of the FLAIR baseline; None if the network sees no FLAIR.
        input_statistics: Statistics of the intensities of each channel, which new studies are compared with.
        channel_looks: Differences between the channels, for detecting swapped ones.
        input_sizes: Height and width of most images, for which an endpoint prepares at loading.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    flair_threshold: float | None
    input_statistics: InputStatistics
    channel_looks: tuple[PairLooks, ...]
    input_sizes: tuple[tuple[int, int], ...]


def training_statistics(cohort: PreparedCohort, cases: Sequence[PreparedCase]) -> TrainingStatistics:
    """Return the statistics of training cases, computed once for all trainings on them, a case at a time.

    They are kept beside the cohort's arrays, where that folder can be written; trials that end together on one machine
    wait for the first of them.
    """
    ids = hashlib.sha256("\n".join(case.record.id for case in cases).encode()).hexdigest()[:32]
    kept = cohort.path / "statistics" / f"{ids}.json"
    with _one_at_a_time(kept.with_name(f".{ids}.lock")):
        with suppress(OSError, ValueError):
            return TrainingStatistics.model_validate_json(kept.read_bytes())
        statistics = _statistics_of(cohort, cases)
        with suppress(OSError):
            atomic.write_text(kept, statistics.model_dump_json(indent=1))
    return statistics


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes of this machine out meanwhile, where a file can be written."""
    with ExitStack() as files:
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            fcntl.flock(files.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def _statistics_of(cohort: PreparedCohort, cases: Sequence[PreparedCase]) -> TrainingStatistics:
    sizes = Counter((int(case.image.shape[1]), int(case.image.shape[2])) for case in cases)
    return TrainingStatistics(
        flair_threshold=_fit_flair(cases),
        input_statistics=fit_input_statistics((case.image for case in cases), cohort.channels),
        channel_looks=fit_channel_looks((case.image for case in cases), cohort.channels),
        input_sizes=tuple(size for size, _ in sizes.most_common(_MOST_SIZES)),
    )


def _fit_flair(cases: Sequence[PreparedCase]) -> float | None:
    """Fit the FLAIR-threshold baseline; None where the network sees no FLAIR."""
    if not cases or "flair" not in cases[0].record.channels:
        return None
    channel = cases[0].record.channels.index("flair")
    return fit_flair_threshold(
        lambda: ((np.asarray(case.image[..., channel], np.float32), np.asarray(case.mask) > 0) for case in cases)
    )
