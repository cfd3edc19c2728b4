"""Measurement of a model and simple baselines on labeled cases, in the original geometry with original masks."""

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle.format import Description
from glioflow.bundle.prediction import Predictor
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.preprocessing.geometry import restore
from glioflow.data.targets import TargetSettings
from glioflow.evaluation import Segmentation, evaluate_parts, predict_flair_threshold
from glioflow.evaluation.patients import CaseScores


def measure(predictor: Predictor, cases: Iterable[PreparedCase]) -> list[CaseScores]:
    """Measure a model on labeled prepared cases, in the original geometry against the original masks.

    Returns:
        Per case `id`, `patient`, `institution` and the metrics of `evaluate_parts`.
    """
    target = predictor.description.target
    return [measure_segmentation(predictor.segment(case.image, case.record.moves), case, target) for case in cases]


def measure_segmentation(segmentation: Segmentation, case: PreparedCase, target: TargetSettings) -> CaseScores:
    """Measure one segmentation against the case's original mask."""
    probabilities = {name: segmentation.probability[..., k] for k, name in enumerate(target.names)}
    return _row(case, segmentation.parts, target, probabilities)


def measure_flair_threshold(description: Description, cases: Iterable[PreparedCase]) -> list[CaseScores] | None:
    """Measure the baseline that predicts tumor where FLAIR is brighter than the fitted threshold.

    Returns:
        Rows as from `measure`; None if the model uses no FLAIR or its target has several parts.
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


def measure_empty(target: TargetSettings, cases: Iterable[PreparedCase]) -> list[CaseScores]:
    """Measure the baseline that never predicts tumor."""
    return [
        _row(case, {name: np.zeros(case.record.shape, bool) for name in target.names}, target, None) for case in cases
    ]


def _row(
    case: PreparedCase,
    parts: Mapping[str, NDArray[np.bool_]],
    target: TargetSettings,
    probabilities: Mapping[str, NDArray[np.float32]] | None,
) -> CaseScores:
    record = case.record
    measured = evaluate_parts(
        parts, target.split(case.reference()), spacing_mm=record.spacing_mm, probabilities=probabilities
    )
    row = {"id": record.id, "patient": record.patient, "institution": record.institution, **measured}
    return cast(CaseScores, row)  # no type can list the keys of all metrics
