"""Five folds of settings on LGG patients, one training after another in one process: paired Dice, patient by patient.

Run: GLIOFLOW_DATA=FOLDER python benchmarks/lgg.py OUT.csv SETTING...

FOLDER holds kaggle_3m, lgg_split_65.json and the encoder's weights; the split's train and val patients are dealt into
five folds as `glioflow crossval --hold-out-test` deals them, and its test patients are not touched. Settings are named
in SETTINGS. It needs neither Ray nor MLflow, so that it runs on a borrowed GPU. Scores are of whole volumes in the
original geometry, at the threshold and with the clean-up of the experiment.
"""

import csv
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.config import Experiment
from glioflow.config.experiment import load_experiment
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.prepared.preparation import prepare_in
from glioflow.data.preprocessing.geometry import restore
from glioflow.data.splits import deal, read_split
from glioflow.evaluation import decode, dice_per_case
from glioflow.evaluation.inference import predict_volume
from glioflow.training.fitting import build_and_fit

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "lgg-best.yaml"
_192 = "preprocess=[{step: unit}, {step: resize, size: 192}]"
SETTINGS: dict[str, list[str]] = {
    "best": [],
    "strong-2400": ["training.sampling.augmentation=strong", "training.epochs=16"],
    "strong-2400-192px": ["training.sampling.augmentation=strong", "training.epochs=16", _192],
    "light-2400-192px": ["training.epochs=16", _192],
    # Short, to compare the augmentation in torch with that of the first release, which is albumentations.
    **{
        f"{policy}-450": ["training.epochs=3", f"training.sampling.augmentation={policy}"]
        for policy in ("light", "light-0.1", "strong", "strong-0.1")
    },
}
Row = dict[str, str | int | float]


def score(experiment: Experiment, case: PreparedCase, probabilities: NDArray[np.floating]) -> Row:
    """Return Dice, sensitivity and precision of a case."""
    whole = restore(probabilities, case.record.moves)
    mask = decode(experiment.target, experiment.postprocess, whole).parts["tumor"]
    reference = experiment.target.split(case.reference())["tumor"]
    both = float((mask & reference).sum())
    return {
        "case": case.record.id,
        "dice": round(float(dice_per_case(mask, reference)), 4),
        "sensitivity": round(both / max(1.0, float(reference.sum())), 4),
        "precision": round(both / max(1.0, float(mask.sum())), 4),
    }


def run(name: str, data: Path, pool: ProcessPoolExecutor) -> Iterator[list[Row]]:
    """Train and measure the folds of a setting; yield the rows of each as it ends."""
    experiment = load_experiment(EXPERIMENT, SETTINGS[name]).resolved
    home = Path(os.environ.get("GLIOFLOW_HOME", "~/.glioflow")).expanduser()
    cohort = prepare_in(open_cohort(data / "kaggle_3m"), experiment.preprocess, home=home, map_cases=pool.map)
    split = read_split(experiment.split, data)
    own = {*split.train, *split.val}
    cases = [cohort.case(entry.id) for entry in cohort.entries() if {entry.id, entry.patient} & own]
    dices: list[float] = []
    for fold, part in enumerate(deal([case.record for case in cases], 5, seed=experiment.split.seed)):
        began = time.perf_counter()
        network, fitted = build_and_fit(
            experiment.model,
            experiment.loss,
            experiment.target,
            experiment.training,
            [case for case in cases if case.record.id not in part],
            lambda _: {},
            lambda *_: None,
            num_threads=min(6, os.cpu_count() or 1),
        )
        network.load_state_dict(fitted.weights)
        waiting: list[Future[Row]] = []
        for case in (case for case in cases if case.record.id in part):
            probabilities = predict_volume(network.eval(), case.image, softmax=False, **dict(experiment.inference))
            waiting.append(pool.submit(score, experiment, case, probabilities))
        rows: list[Row] = [{"setting": name, "fold": fold, **each.result()} for each in waiting]
        dices += [float(row["dice"]) for row in rows]
        minutes = (time.perf_counter() - began) / 60
        reached = f"{np.mean(dices):.4f}, median {np.median(dices):.4f}"
        print(f"{name}, fold {fold}: {minutes:.1f} min; so far {reached}", flush=True)
        yield rows


def main() -> None:
    """Run the named settings; add the rows of each to a csv file as it ends."""
    out, *names = sys.argv[1:]
    data = Path(os.environ["GLIOFLOW_DATA"])
    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2) - 4)) as pool:
        # One fold of each after the other, so that what was done when the time was up is paired.
        for rows in chain.from_iterable(zip(*(run(name, data, pool) for name in names or SETTINGS), strict=True)):
            new = not Path(out).exists()
            with Path(out).open("a", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                if new:
                    writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
