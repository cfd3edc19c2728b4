"""Ten corrected studies chosen by the model's doubt beside ten at random, on LGG patients whose masks are the reader.

Run: GLIOFLOW_DATA=FOLDER python benchmarks/corrections.py ROWS.csv [--repeats 8] [--minutes M] [--out FILE]

FOLDER holds kaggle_3m, lgg_split_65.json and the encoder's weights. Each repeat deals the split's 52 train and val
patients anew: 10 begin, 26 wait for a reader, 16 judge; its test patients are not touched. A network trained on the
first ten answers the 26. Then two networks are trained alike, with the same seed: one on the ten and the ten studies
with the lowest expected Dice, those without tumor last, one on the ten and ten drawn at random. All is measured at the
network's size. Rows are added to ROWS.csv as each training ends, and a later call runs only what is missing; none
begins after M minutes.
"""

import argparse
import csv
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
from machine import first_lines

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
    """Return the waiting studies, the lowest expected Dice first, those without tumor last."""
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


def mean_dice(rows: Sequence[Row], **said: str) -> float:
    """Return the mean Dice of the rows that say this."""
    return float(np.mean([float(row["dice"] or 0) for row in rows if all(row[key] == said[key] for key in said)]))


def interval(values: Sequence[float]) -> str:
    """Return the mean of one value for each repeat, with its 95 % interval by Student's t."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    return f"{np.mean(values):+.3f} [{np.mean(values) - half:+.3f}, {np.mean(values) + half:+.3f}]"


@dataclass(frozen=True)
class Repeat:
    """One repeat: Dice of the judges by arm, what the chosen ten had before, and how well doubt orders the 26."""

    number: str
    dice: dict[str, float]
    dice_before: dict[str, float]
    rank_correlation: float
    without_tumor: int

    @classmethod
    def of(cls, number: str, rows: Sequence[Row]) -> "Repeat | None":
        """Return what the rows of a repeat say; None where a training is missing."""
        if {str(row["arm"]) for row in rows} != set(ARMS):
            return None
        waiting = {str(row["case"]): row for row in rows if row["part"] == "waits"}
        order = order_by_doubt(list(waiting.values()))
        before = {case: float(row["dice"] or 0) for case, row in waiting.items()}
        return cls(
            number,
            {arm: mean_dice(rows, arm=arm, part="judges") for arm in ARMS},
            {
                arm: float(
                    np.mean([before[str(r["case"])] for r in rows if (r["arm"], r["part"]) == (arm, "corrected")])
                )
                for arm in ARMS[1:]
            },
            float(scipy.stats.spearmanr(range(len(order)), [before[case] for case in order]).statistic),
            sum(row["expected"] in (None, "") for row in waiting.values()),
        )


def report(rows: Sequence[Row]) -> list[str]:
    """Return the table of all repeats that are whole, and what follows from it."""
    numbers = sorted({str(row["repeat"]) for row in rows}, key=int)
    found = [Repeat.of(number, [row for row in rows if row["repeat"] == number]) for number in numbers]
    repeats = [repeat for repeat in found if repeat is not None]
    if len(repeats) < 2:
        return ["fewer than two repeats are whole"]
    lines = ["| repeat | ten patients | + ten by doubt | + ten at random | doubt - random |", "|---|---|---|---|---|"]
    for each in repeats:
        cells = " | ".join(f"{each.dice[arm]:.3f}" for arm in ARMS)
        lines.append(f"| {each.number} | {cells} | {each.dice['doubt'] - each.dice['random']:+.3f} |")

    def gain(arm: str, over: str) -> list[float]:
        return [each.dice[arm] - each.dice[over] for each in repeats]

    before = [each.dice_before["doubt"] - each.dice_before["random"] for each in repeats]
    return [
        *lines,
        "",
        f"- Doubt minus random: {interval(gain('doubt', 'random'))} Dice; doubt is better in "
        f"{sum(value > 0 for value in gain('doubt', 'random'))} of {len(repeats)} repeats.",
        f"- Ten corrected studies minus none: by doubt {interval(gain('doubt', 'begin'))}, at random "
        f"{interval(gain('random', 'begin'))}.",
        f"- Dice before correction of the ten by doubt minus the ten at random: {interval(before)}.",
        f"- Rank correlation of the order by doubt with Dice among the 26, where 1 is perfect: "
        f"{np.mean([each.rank_correlation for each in repeats]):+.2f}, mean of the repeats.",
        f"- Studies in which no tumor was found, which come last in the order: "
        f"{sum(each.without_tumor for each in repeats)} of {26 * len(repeats)}.",
        "",
        "Intervals are 95 % over repeats, Student's t.",
    ]


def main() -> None:
    """Run what is missing, training by training, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    start, load = time.perf_counter(), os.getloadavg()[0]
    experiment, cohort, ids = open_patients(Path(os.environ["GLIOFLOW_DATA"]))
    for repeat, arm in itertools.product(range(given.repeats), ARMS):
        rows = read(given.rows)
        here = [row for row in rows if row["repeat"] == str(repeat)]
        late = time.perf_counter() - start > 60 * given.minutes
        if late or any(row["arm"] == arm for row in here):
            continue
        made = run(arm, repeat, here, experiment, cohort, ids)
        append(given.rows, made)
        print(
            f"repeat {repeat}, {arm}: Dice {np.mean([r['dice'] for r in made if r['part'] == 'judges']):.3f}",
            flush=True,
        )
    lines = report(read(given.rows))
    print("\n".join(lines))
    if given.out:
        head = first_lines("Corrections by doubt or at random", (time.perf_counter() - start) / 60, load)
        given.out.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
