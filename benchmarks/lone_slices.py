"""A model's masks of whole volumes next to those of the same slices sent one by one: Dice by patient.

Run: python benchmarks/lone_slices.py MODEL COHORT SPLIT.json

The test patients of the split are answered. A lone slice is scaled, cropped and cleaned up by itself. Dice is of the
whole volume both times: the masks of lone slices are stacked.
"""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from glioflow.bundle.prediction import Predictor
from glioflow.bundle.study_checks import conform
from glioflow.data.case import Case
from glioflow.data.formats.detect import open_cohort
from glioflow.evaluation import dice_per_case
from glioflow.runs.model_loading import as_one, open_members


def segment(predictor: Predictor, case: Case) -> np.ndarray:
    """Return the tumor (S, H, W) of a case."""
    return predictor.predict(conform(case, predictor.description)).segmentation.labels > 0


def by_slice(predictor: Predictor, case: Case) -> np.ndarray:
    """Return the tumor of a case whose slices are answered one by one."""
    slices = [
        replace(case, image=case.image[s : s + 1], mask=None, slice_numbers=case.slice_numbers[s : s + 1])
        for s in range(case.shape[0])
    ]
    return np.concatenate([segment(predictor, each) for each in slices])


def main(model: str, cohort: str, split: str) -> None:
    """Print one row for each patient, and the means."""
    logging.disable(logging.WARNING)
    predictor, opened = as_one(open_members(model)), open_cohort(Path(cohort))
    rows = []
    print(
        "| case | volume | lone slices | tumor-free slices with a false tumor, volume | lone |\n|---|---|---|---|---|"
    )
    for name in json.loads(Path(split).read_text())["test"]:
        case = opened.read(name)
        assert case.mask is not None
        truth, free = case.mask > 0, ~(case.mask > 0).any(axis=(1, 2))
        masks = [segment(predictor, case), by_slice(predictor, case)]
        false = [int((mask.any(axis=(1, 2)) & free).sum()) for mask in masks]
        rows.append([dice_per_case(mask, truth) for mask in masks] + [each / free.sum() for each in false])
        print(
            f"| {name} | {rows[-1][0]:.3f} | {rows[-1][1]:.3f} | {false[0]} of {free.sum()} | {false[1]} |", flush=True
        )
    means = np.mean(rows, axis=0)
    print(f"| mean of {len(rows)} | {means[0]:.3f} | {means[1]:.3f} | {means[2]:.1%} | {means[3]:.1%} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
