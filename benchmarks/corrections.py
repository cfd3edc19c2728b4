"""Ten corrected studies chosen by the model's doubt beside ten at random, on LGG patients whose masks are the reader.

Run: GLIOFLOW_DATA=FOLDER python benchmarks/corrections.py ROWS.csv [--repeats 8] [--trainings N] [--out FILE]

FOLDER holds kaggle_3m, lgg_split_65.json and the encoder's weights. Each repeat deals the split's 52 train and val
patients anew: 10 begin, 26 wait for a reader, 16 judge; its test patients are not touched. A network trained on the
first ten answers the 26. Then two networks are trained alike, with the same seed: one on the ten and the ten studies
that the page's `Order by doubt` puts first, one on the ten and ten studies drawn at random. All is measured at the
network's size. Rows are added to ROWS.csv as each training ends, and a later call runs only what is missing, N
trainings at most.
"""

import argparse
import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glioflow.bundle.answer import measure_uncertainty
from glioflow.config import Experiment
from glioflow.config.experiment import load_experiment
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.prepared.preparation import prepare_in
from glioflow.data.splits import read_split
from glioflow.evaluation import decode, dice_per_case
from glioflow.evaluation.inference import predict_volume
from glioflow.training.fitting import build_and_fit

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "lgg-best.yaml"
SETTINGS = [
    "preprocess=[{step: unit}, {step: resize, size: 96}]",
    "model.options={decoder_channels: [64, 48, 32, 24, 16]}",
    "training.epochs=1",
    "training.steps_per_epoch=200",
    "training.batch_size=8",
    "training.precision=fp32",
    "inference.flip=false",
]
BEGIN, JUDGE, CORRECTED = 10, 16, 10
ARMS = ("begin", "doubt", "random")
Row = dict[str, str | int | float | None]


def open_patients(data: Path) -> tuple[Experiment, PreparedCohort, list[str]]:
    """Return the experiment, the prepared cohort, and the cases of the split's train and val patients."""
    experiment = load_experiment(EXPERIMENT, SETTINGS).resolved
    home = Path(os.environ.get("GLIOFLOW_HOME", "~/.glioflow")).expanduser()
    cohort = prepare_in(open_cohort(data / "kaggle_3m"), experiment.preprocess, home=home)
    split = read_split(experiment.split, data)
    own = {*split.train, *split.val}
    return experiment, cohort, sorted(entry.id for entry in cohort.entries() if {entry.id, entry.patient} & own)


def deal(ids: Sequence[str], repeat: int) -> tuple[list[str], list[str], list[str]]:
    """Return who begins, who waits for a reader, and who judges."""
    order = np.random.default_rng(repeat).permutation(np.array(ids)).tolist()
    return order[:BEGIN], order[BEGIN:-JUDGE], order[-JUDGE:]


def order_by_doubt(rows: Sequence[Row]) -> list[str]:
    """Return the waiting studies as the page orders them: the lowest expected Dice first, those without tumor last."""
    waiting = [row for row in rows if row["part"] == "waits"]
    key = {str(row["case"]): 1.0 if row["expected"] in (None, "") else float(row["expected"] or 0) for row in waiting}
    return sorted(key, key=lambda case: key[case])


def train_and_score(
    experiment: Experiment, learn: Sequence[PreparedCase], scored: dict[str, Sequence[PreparedCase]], seed: int
) -> list[Row]:
    """Train on `learn` and return Dice and expected Dice of each case, by the part of the cohort that it is in."""
    network, fitted = build_and_fit(
        experiment.model,
        experiment.loss,
        experiment.target,
        experiment.training.model_copy(update={"seed": seed}),
        learn,
        lambda _: {},
        lambda *_: None,
        num_threads=1,
    )
    network.load_state_dict(fitted.weights)
    network.eval()
    rows: list[Row] = []
    for part, cases in scored.items():
        for case in cases:
            probabilities = predict_volume(network, case.image, softmax=False, **dict(experiment.inference))
            whole = decode(experiment.target, experiment.postprocess, probabilities)
            expected = measure_uncertainty(whole)["expected_dice"]
            dice = float(dice_per_case(whole.parts["tumor"], np.asarray(case.mask) > 0))
            expected = None if expected is None else round(expected, 4)
            rows.append({"part": part, "case": case.record.id, "dice": round(dice, 4), "expected": expected})
    return rows


def run(
    arm: str, repeat: int, begun: Sequence[Row], experiment: Experiment, cohort: PreparedCohort, ids: Sequence[str]
) -> list[Row]:
    """Run one training; `begun` holds the rows of the repeat's first one, by which doubt chooses."""
    begin, waiting, judges = deal(ids, repeat)
    corrected = {
        "begin": [],
        "doubt": order_by_doubt(begun)[:CORRECTED],
        "random": np.random.default_rng(1000 + repeat).permutation(np.array(waiting)).tolist()[:CORRECTED],
    }[arm]
    scored = {"judges": cohort.cases(judges), **({"waits": cohort.cases(waiting)} if arm == "begin" else {})}
    rows = train_and_score(experiment, cohort.cases([*begin, *corrected]), scored, seed=repeat)
    chosen = [{"part": "corrected", "case": case, "dice": None, "expected": None} for case in corrected]
    return [{"repeat": repeat, "arm": arm, **row} for row in [*rows, *chosen]]


def main() -> None:
    """Run what is missing, training by training, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--trainings", type=int, default=1000)
    given = parser.parse_args()
    experiment, cohort, ids = open_patients(Path(os.environ["GLIOFLOW_DATA"]))
    for repeat in range(given.repeats):
        for arm in ARMS:
            rows = read(given.rows)
            if any((row["repeat"], row["arm"]) == (str(repeat), arm) for row in rows) or not given.trainings:
                continue
            began = time.perf_counter()
            begun = [row for row in rows if (row["repeat"], row["arm"]) == (str(repeat), "begin")]
            made = run(arm, repeat, begun, experiment, cohort, ids)
            append(given.rows, made)
            given.trainings -= 1
            dice = np.mean([row["dice"] for row in made if row["part"] == "judges"])
            print(f"repeat {repeat}, {arm}: Dice {dice:.4f}, {time.perf_counter() - began:.0f} s", flush=True)


def read(path: Path) -> list[Row]:
    """Return the rows that are there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to the file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
