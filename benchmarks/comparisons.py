"""The comparisons that published works leave open, each paired over all 65 LGG patients by short cross-validations.

Run: GLIOFLOW_DATA=... python benchmarks/comparisons.py [--only NAME ...] [--steps 250]

Every variant is `lgg-best` with a few keys changed, trained for the same number of steps in the same three folds; each
is compared with the plain one by `glioflow compare`. Short trainings: differences, not records. Runs that exist already
under GLIOFLOW_HOME with the same keys are found again, so that an interrupted run goes on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXPERIMENT = HERE.parent / "experiments" / "lgg-best.yaml"
FOLDS = 3
RESIZE = "{step: resize, size: 128}"
# Name: what it asks, and the keys that differ from the plain variant.
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "plain": ("all three channels (before contrast, FLAIR, after), encoder free but for its batch norm", []),
    "flair": (
        "FLAIR alone",
        [f"preprocess=[{{step: unit}}, {{step: channels, keep: [flair]}}, {RESIZE}]"],
    ),
    "clahe": ("CLAHE", [f"preprocess=[{{step: unit}}, {{step: clahe}}, {RESIZE}]"]),
    "equalize": ("histogram equalization", [f"preprocess=[{{step: unit}}, {{step: equalize}}, {RESIZE}]"]),
    "frozen": ("encoder frozen as loaded", ["model.freeze=encoder"]),
    "3d": (
        "residual 3D U-Net from random numbers, patches of 16 x 96 x 96",
        [
            "model={architecture: unet3d}",
            "training.batch_size=2",
            "training.learning_rate=2.0e-3",
            "training.sampling.patch=[16, 96, 96]",
            "inference.batch_size=2",
        ],
    ),
}
QUESTIONS = {
    "flair": "one channel against three",
    "clahe": "CLAHE against nothing",
    "equalize": "histogram equalization against nothing",
    "frozen": "frozen against free encoder",
    "3d": "3D against 2D",
}


def glioflow(*arguments: str) -> dict[str, Any]:
    """Run a verb and return its JSON answer."""
    done = subprocess.run(
        [sys.executable, "-m", "glioflow", *arguments, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def cross_validate(name: str, steps: int, notes: Path) -> dict[str, Any]:
    """Return a variant's answer, with its wall time; read where it is written already."""
    known = notes / f"{name}-{steps}.json"
    if known.exists():
        return dict(json.loads(known.read_text()))
    keys = [f"training.steps_per_epoch={steps // 2}", "training.epochs=2", "training.cpus_per_worker=1"]
    overrides = [part for key in [f"name=compare-{name}", *VARIANTS[name][1], *keys] for part in ("-o", key)]
    began = time.monotonic()
    answer = glioflow("crossval", str(EXPERIMENT), "--folds", str(FOLDS), *overrides)
    answer["wall_s"] = time.monotonic() - began
    known.write_text(json.dumps(answer))
    return answer


def main() -> None:
    """Run what is missing and write comparisons.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(QUESTIONS), choices=list(QUESTIONS))
    parser.add_argument("--steps", type=int, default=250)
    chosen = parser.parse_args()
    notes = Path(os.environ.get("GLIOFLOW_HOME", ".glioflow")) / "comparisons"
    notes.mkdir(parents=True, exist_ok=True)
    done = {name: cross_validate(name, chosen.steps, notes) for name in ["plain", *chosen.only]}
    lines = [
        f"# Paired comparisons on 65 LGG patients, {date.today()}",
        "",
        f"`GLIOFLOW_DATA=... python benchmarks/comparisons.py --steps {chosen.steps}` ({os.cpu_count()} cores, "
        f"{platform.machine()}, no GPU): `lgg-best` with the keys named in the program changed, {chosen.steps} steps "
        f"in each of {FOLDS} folds, every patient predicted by a model that never saw it; the same folds for all. "
        "Short trainings: they say what helps early, not where long ones end. Each variant less the plain one, by "
        "`glioflow compare`: paired bootstrap by patient and Wilcoxon's test, not corrected for there being "
        f"{len(chosen.only)} of them.",
        "",
        "| question | variant | mean / median Dice | Dice less plain [95 %] | p | false-positive slices less plain |",
        "|---|---|---|---|---|---|",
        f"| plain | {VARIANTS['plain'][0]} | {_dice(done['plain'])} | | | |",
    ]
    for name in chosen.only:
        paired = glioflow("compare", done[name]["run_id"], done["plain"]["run_id"], "--report", str(notes / name))
        dice, false = paired["metrics"]["dice"], paired["metrics"]["false_positive_slice_rate"]
        lines.append(
            f"| {QUESTIONS[name]} | {VARIANTS[name][0]} | {_dice(done[name])} | {_said(dice)} "
            f"| {dice['p_value']:.2g} | {_said(false)} |"
        )
    (HERE / "comparisons.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _dice(answer: dict[str, Any]) -> str:
    return f"{answer['dice_mean']:.3f} / {answer['dice_median']:.3f}"


def _said(compared: dict[str, Any]) -> str:
    low, high = compared["ci95"]
    return f"{compared['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
