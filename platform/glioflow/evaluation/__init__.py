"""Evaluation by patient: metrics, post-processing, calibration, intervals, baselines. Imports no torch."""

from glioflow.evaluation.baselines import NearestSlice, fit_flair_threshold, predict_empty, predict_flair_threshold
from glioflow.evaluation.calibration import (
    Reliability,
    Spread,
    VolumeInterval,
    apply_temperature,
    count_reliability,
    fit_temperature,
    fit_volume_interval,
    mean_entropy,
    measure_spread,
)
from glioflow.evaluation.comparison import Comparison, compare_paired, compare_rows
from glioflow.evaluation.decoding import Segmentation, decode
from glioflow.evaluation.intervals import bootstrap_interval
from glioflow.evaluation.metrics import auroc, dice_of_counts, dice_per_case, evaluate_case
from glioflow.evaluation.postprocessing import PostprocessSettings, apply_postprocessing, choose_postprocessing
from glioflow.evaluation.regions import evaluate_parts, split_regions
from glioflow.evaluation.summary import flatten_summary, summarize

__all__ = [
    "Comparison",
    "NearestSlice",
    "PostprocessSettings",
    "Reliability",
    "Segmentation",
    "Spread",
    "VolumeInterval",
    "apply_postprocessing",
    "apply_temperature",
    "auroc",
    "bootstrap_interval",
    "choose_postprocessing",
    "compare_paired",
    "compare_rows",
    "count_reliability",
    "decode",
    "dice_of_counts",
    "dice_per_case",
    "evaluate_case",
    "evaluate_parts",
    "fit_flair_threshold",
    "fit_temperature",
    "fit_volume_interval",
    "flatten_summary",
    "mean_entropy",
    "measure_spread",
    "predict_empty",
    "predict_flair_threshold",
    "split_regions",
    "summarize",
]
