"""What the end of a trial costs on one CPU core besides the network's forward passes, which here cost nothing.

Run: python benchmarks/trial_end.py EXPERIMENT COHORT [--val N]

The raw cohort is prepared and split as the experiment says; with `--val`, the last cases validate and the others train.
In the network's place stands the blurred truth with noise. Measured is CPU time: the choice of temperature, threshold
and clean-up, and the metrics with them; the statistics of the training cases, for the first trial of a search and for
the next one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from glioflow.bundle.prediction import Predictor
from glioflow.config import load_experiment, override
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.data.splits import Split, make_split
from glioflow.data.targets import TargetSettings
from glioflow.runs.train.selection import choose_and_measure, training_statistics


class Knowing(Predictor):
    """Gives the blurred truth of known cases, with noise."""

    def __init__(self, description: Any, cases: list[PreparedCase]) -> None:
        self.description = description
        self.known = [(case.image, blurred(case, description.target, k)) for k, case in enumerate(cases)]

    def run_network(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return what was made of the case with this image."""
        return next(made for known, made in self.known if np.shares_memory(known, image))


def blurred(case: PreparedCase, target: TargetSettings, seed: int) -> NDArray[np.float32]:
    """Return probabilities (S, h, w, K) near a case's truth."""
    truth = np.moveaxis(target.encode(np.asarray(case.mask)), 0, -1).astype(np.float32)
    noise = np.random.default_rng(seed).normal(-5, 1, truth.shape)
    return (1 / (1 + np.exp(-(8 * gaussian_filter(truth, (1, 2, 2, 0)) + noise)))).astype(np.float32)


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Print the CPU seconds of this thread."""
    began = time.thread_time()
    done = work()
    print(f"{name}: {time.thread_time() - began:.2f} s", flush=True)
    return done


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("experiment", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--val", type=int, help="number of validation cases")
    said = parser.parse_args()
    changes = {"training.final": False, "postprocess": {"choose": True}}
    experiment = override(load_experiment(said.experiment), changes)
    with tempfile.TemporaryDirectory() as home:
        cohort = find_or_prepare(said.cohort, experiment.preprocess, home=Path(home), target=experiment.target)
        if said.val:
            ids = tuple(entry.id for entry in cohort.entries())
            split = Split(train=ids[: -said.val], val=ids[-said.val :])
        else:
            split = make_split(cohort.entries(), experiment.split, folder=said.cohort.parent)
        train, val = cohort.cases(split.train), cohort.cases(split.val)
        description = SimpleNamespace(target=experiment.target, postprocess=experiment.postprocess)
        predictor = Knowing(description, val)
        print(f"{len(train)} cases train, {len(val)} validate, with {sum(len(each.image) for each in val)} slices")
        timed("choice and metrics", lambda: choose_and_measure(predictor, val))
        timed("statistics of the training cases, first trial", lambda: training_statistics(cohort, train))
        timed("statistics of the training cases, next trial", lambda: training_statistics(cohort, train))


if __name__ == "__main__":
    main()
