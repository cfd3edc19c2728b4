"""A search beside the plain ways to do the same, and a large one on paper.

Run: python benchmarks/search.py [overhead|nested|rate|scaling|schedule ...] [--data COHORT] [--trials 8] [--epochs 6]
[--steps 20]; without a name all five, in this order. Writes what it found to search.md beside this file.

overhead  the same training in a bare loop in this process, before and after, and as one-worker trials, 3 * STEPS an
          epoch: what a trial costs before its first step, for the first one and for those that reuse its process; the
          speed of epochs, with a checkpoint and MLflow after each, which the bare loop has not.
nested    what a trial of two workers, on Ray Train, costs before its first step.
rate      trials an hour of the platform, one CPU each, beside a bare Optuna loop in one process on all cores, on the
          same cohort and the same random points; first trained to their end (half the epochs), then with the same
          rungs of successive halving, where the order of ends decides who is stopped. The loop runs on one core, too:
          there the platform must find the same in every epoch, to the last digit, since two cores round differently.
scaling   slices a second of one worker and of two, one CPU each, through Ray Train, in turn, at 128 x 128; the batch of
          16 is shared by the workers.
schedule  1,000 trials on 64 GPUs, simulated with the scheduler that a search uses; no training.

Without --data a synthetic LGG cohort is used.
"""

import argparse
import heapq
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from machine import first_lines, goal

from glioflow import cluster
from glioflow.clock import now
from glioflow.cluster.storage import prepared_home
from glioflow.config import Experiment, override
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.data.splits import Split, make_split
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.runs.plan import Plan
from glioflow.runs.search.run import search
from glioflow.runs.search.schedulers import build_scheduler
from glioflow.runs.search.searcher import METRIC, build_sampler, suggest_point
from glioflow.runs.train.run import fit_on_train
from glioflow.runs.train.worker import Worker, fit_network
from glioflow.tracking import Tracking

SPACE = {
    "training.learning_rate": {"kind": "float", "low": 3e-4, "high": 1e-2, "log": True},
    "loss.name": {"kind": "choice", "values": ["dice_bce", "focal_tversky"]},
}


def build_experiment(epochs: int, steps: int, *, size: int = 64, **search_settings: Any) -> Experiment:
    """Return U-Net/MobileNetV2 at `size` pixels a side from scratch, with a small search."""
    return Experiment.model_validate(
        {
            "name": "benchmark",
            "preprocess": [{"step": "unit"}, {"step": "resize", "size": size}],
            "split": {"method": "kfold", "folds": 4},
            "model": {"architecture": "unet", "encoder": "mobilenet_v2"},
            "training": {"epochs": epochs, "steps_per_epoch": steps, "batch_size": 16, "learning_rate": 2e-3},
            "search": {"space": SPACE, **search_settings},
        }
    )


@contextmanager
def fresh_home() -> Iterator[Path]:
    """Give this benchmark a home of its own."""
    with tempfile.TemporaryDirectory(prefix="glioflow-benchmark-") as folder:
        os.environ["GLIOFLOW_HOME"] = folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        yield Path(folder)


def open_data(data: Path | None, home: Path, experiment: Experiment) -> tuple[Path, PreparedCohort, Split]:
    """Return the raw cohort, its prepared form and its split."""
    source = data or home / "kaggle_3m"
    if data is None and not source.exists():
        synthesize_lgg(source, patients=16, seed=0, size=128, slices=(20, 30))
    cohort = find_or_prepare(source, experiment.preprocess, home=prepared_home())
    return source, cohort, make_split(cohort.records, experiment.split)


def bare_epochs(experiment: Experiment, cohort: PreparedCohort, split: Split) -> list[float]:
    """Train in this process with the loop alone, writing no checkpoint; return when each epoch ended, in seconds."""
    ended: list[float] = []
    cases = cohort.cases(split.train), cohort.cases(split.val)
    fit_network(experiment, *cases, Worker(lambda epoch, metrics, write: ended.append(time.time())))
    return ended


def pace(ended: list[float]) -> float:
    """Return the median seconds of an epoch, the first one left out."""
    return statistics.median(b - a for a, b in itertools.pairwise(ended))


def search_alone(experiment: Experiment, source: Path) -> tuple[float, list[float]]:
    """Search one trial after the other; return the seconds of an epoch, and those of each trial before its first."""
    began = time.time()
    done = search(experiment, source)
    tracking = Tracking()
    runs = sorted(tracking.children("benchmark", done.run_id), key=lambda run: run.info.start_time)
    ended = []
    for run in runs:
        history = sorted(tracking.client.get_metric_history(run.info.run_id, "val/dice"), key=lambda each: each.step)
        ended.append([entry.timestamp / 1000 for entry in history])
    trial = statistics.median(pace(each) for each in ended)
    before = [began, *(run.info.end_time / 1000 for run in runs)]
    return trial, [each[0] - trial - last for each, last in zip(ended, before, strict=False)]


def nested(said: argparse.Namespace, home: Path) -> list[str]:
    """Say what a trial of two workers costs before its first step: driver, Ray Train's controller, two workers."""
    rates = {"kind": "choice", "values": [1e-3 * (k + 1) for k in range(3)]}
    settings = {"name": "nested", "sampler": "grid", "scheduler": "none", "concurrent": 1}
    experiment = build_experiment(3, said.steps, **settings, space={"training.learning_rate": rates})
    experiment = override(experiment, {"training.num_workers": 2})
    source, *_ = open_data(said.data, home, experiment)
    cluster.connect()
    _, starts = search_alone(experiment, source)
    return [
        "| trial of two workers, one CPU each | before its first step |",
        "|---|---|",
        f"| the first, the search's own start included | {starts[0]:.1f} s |",
        f"| the others | {', '.join(f'{start:.1f} s' for start in starts[1:])} |",
    ]


def overhead(said: argparse.Namespace, home: Path) -> list[str]:
    """Compare one trial with the loop that it runs."""
    rates = {"kind": "choice", "values": [1e-3 * (k + 1) for k in range(3)]}
    settings = {"name": "overhead", "sampler": "grid", "scheduler": "none", "concurrent": 1}
    # Steps of an epoch as in experiments/lgg-search.yaml.
    experiment = build_experiment(4, 3 * said.steps, **settings, space={"training.learning_rate": rates})
    source, cohort, split = open_data(said.data, home, experiment)
    bare_epochs(override(experiment, {"training.epochs": 2}), cohort, split)  # kernels are chosen on the first steps
    bare = [pace(bare_epochs(experiment, cohort, split))]
    cluster.connect()
    trial, starts = search_alone(experiment, source)
    bare.append(pace(bare_epochs(experiment, cohort, split)))
    ratio = statistics.mean(bare) / trial
    return [
        "| one-worker trial beside the bare loop, one CPU each | found | |",
        "|---|---|---|",
        f"| seconds an epoch: bare before, bare after, in a trial | {bare[0]:.2f}, {bare[1]:.2f}, {trial:.2f} | |",
        goal("throughput at least 97 % of the bare loop's", f"{ratio:.1%}", reached=ratio >= 0.97),
        f"| before the first step: the first trial, the search's own start included | {starts[0]:.1f} s | |",
        f"| before the first step: trials that reuse its process | {statistics.median(starts[1:]):.1f} s | |",
    ]


def rate(said: argparse.Namespace, home: Path) -> list[str]:
    """Compare trials an hour, and what they find, with a bare Optuna loop."""
    began = time.perf_counter()
    cluster.connect()
    connected = time.perf_counter() - began
    lines = [
        "| search | trials an hour | epochs trained | best validation Dice | best of each trial |",
        "|---|---|---|---|---|",
    ]
    goals, cores = [], {os.cpu_count() or 1, 1}
    for pruner, epochs in (("none", max(1, said.epochs // 2)), ("asha", said.epochs)):
        settings = {"name": f"rate-{pruner}", "trials": said.trials, "scheduler": pruner, "grace_epochs": 1}
        experiment = build_experiment(epochs, said.steps, **settings, reduction=2, sampler="random")
        source, cohort, split = open_data(said.data, home, experiment)
        loops = {each: optuna_loop(experiment, cohort, split, said.trials, cores=each) for each in cores}
        began = time.perf_counter()
        done = search(experiment, source)
        ours = time.perf_counter() - began
        children = Tracking().children("benchmark", done.run_id)
        found = sorted((int(run.data.tags["trial_id"]), run.info.run_id) for run in children)
        histories = [Tracking().metric_history(run_id, "val/dice") for _, run_id in found]
        rows = [(f"bare loop, cores: {each}", *loop) for each, loop in loops.items()]
        for name, seconds, each in (*rows, ("GlioFlow, two trials at once", ours, histories)):
            best = [max(history) for history in each]
            lines.append(
                f"| {name}, {pruner}, {epochs} epochs | {3600 * said.trials / seconds:.0f} | {sum(map(len, each))} | "
                f"{max(best):.3f} | {', '.join(f'{value:.3f}' for value in best)} |"
            )
        plain, (_, one_core) = min(seconds for seconds, _ in loops.values()), loops[1]
        row = f"{pruner}: as many trials an hour as the faster loop"
        goals.append(goal(row, f"ratio {plain / ours:.2f}", reached=plain >= ours))
        if pruner == "none":
            pairs = zip(itertools.chain(*histories), itertools.chain(*one_core), strict=True)
            apart = max(abs(a - b) for a, b in pairs)
            row = f"{pruner}: every epoch's Dice as on one core, largest difference"
            goals.append(goal(row, f"{apart:.0e}", reached=apart == 0))
        more = max(map(max, histories)) - max(map(max, one_core))
        row = f"{pruner}: the same best Dice as on one core, to 0.02"
        goals.append(goal(row, f"{more:+.3f}", reached=more >= -0.02))
    said_of_ray = f"Ray's own start, {connected:.1f} s, is not in these rates."
    return [*lines, "", "| goal | found | |", "|---|---|---|", *goals, "", said_of_ray]


def optuna_loop(
    experiment: Experiment, cohort: PreparedCohort, split: Split, trials: int, *, cores: int
) -> tuple[float, list[list[float]]]:
    """Search in this process, as one would without a platform; return the seconds and each trial's Dices by epoch."""
    began = time.perf_counter()
    everything = override(experiment, {"training.cpus_per_worker": cores})
    train, val = cohort.cases(split.train), cohort.cases(split.val)
    histories: list[list[float]] = []

    def objective(trial: optuna.Trial) -> float:
        chosen = override(everything, suggest_point(trial, experiment.search))
        histories.append([])

        def report(epoch: int, metrics: dict[str, float], write_checkpoint: Any) -> None:
            histories[-1].append(metrics["val/dice"])
            trial.report(metrics["val/dice"], epoch + 1)
            if trial.should_prune():
                raise optuna.TrialPruned

        _, fitted = fit_network(chosen, train, val, Worker(report))
        return fitted.dice

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if experiment.search.scheduler == "asha":
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=experiment.search.grace_epochs, reduction_factor=experiment.search.reduction
        )
    study = optuna.create_study(direction="maximize", sampler=build_sampler(experiment.search), pruner=pruner)
    study.optimize(objective, n_trials=trials)
    return time.perf_counter() - began, histories


def scaling(said: argparse.Namespace, home: Path) -> list[str]:
    """Compare the speed of one worker and of two."""
    base = build_experiment(min(said.epochs, 3), said.steps, size=128)
    _, cohort, split = open_data(said.data, home, base)
    tracking = Tracking()
    cluster.connect()
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):
        for workers, values in speeds.items():
            run_id = tracking.start("benchmark", f"{workers} workers", tags={})
            plan = Plan(
                experiment=override(base, {"training.num_workers": workers}),
                prepared=cohort.path,
                split=split,
                run_id=run_id,
                tracking_uri=tracking.uri,
                folder=home / "runs" / run_id,
                created=now(),
            )
            fit_on_train(plan)
            values += tracking.metric_history(run_id, "train/slices_per_s")[1:]
    medians = {workers: statistics.median(values) for workers, values in speeds.items()}
    return [
        "| workers of one CPU each, through Ray Train, two runs of each in turn | slices/s, median | from - to |",
        "|---|---|---|",
        *(f"| {k} | {medians[k]:.1f} | {min(values):.1f} - {max(values):.1f} |" for k, values in speeds.items()),
        "",
        f"Two workers are {medians[2] / medians[1]:.2f} times as fast as one.",
    ]


class PaperTrial:
    """A trial that takes no time: its learning curve rises to a height that it draws."""

    def __init__(self, number: int, rng: np.random.Generator) -> None:
        self.trial_id, self.epoch = f"{number}", 0
        self.height, self.speed = float(rng.beta(5, 2)), float(rng.uniform(0.1, 0.4))
        self.epoch_s = float(rng.lognormal(math.log(60), 0.5))

    def dice(self, rng: np.random.Generator) -> float:
        """Return the validation Dice after the current epoch, with noise."""
        return self.height * (1 - math.exp(-self.speed * self.epoch)) + float(rng.normal(0, 0.01))


def schedule(said: argparse.Namespace, home: Path) -> list[str]:
    """Simulate a large search: who waits for whom, and what stopping early saves."""
    trials, gpus, start_s, epochs = 1000, 64, 5.0, 50
    lines = [
        f"| {trials} trials on {gpus} GPUs, on paper | hours | GPU hours | at work | at the last of {epochs} epochs "
        "| best Dice, and best there was |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("none", "asha"):
        experiment = build_experiment(epochs, 1, scheduler=name, reduction=3)
        scheduler, rng = build_scheduler(experiment), np.random.default_rng(0)
        np.random.seed(0)
        waiting = [PaperTrial(number, rng) for number in range(trials)]
        best_possible = max(trial.height for trial in waiting)
        events: list[tuple[float, int, PaperTrial]] = []
        busy, clock, finished, reached, order = 0.0, 0.0, 0, 0.0, 0
        while waiting or events:
            while waiting and len(events) < gpus:
                trial = waiting.pop(0)
                scheduler.on_trial_add(None, trial)
                order += 1
                heapq.heappush(events, (clock + start_s + trial.epoch_s, order, trial))
                busy += start_s + trial.epoch_s
            clock, _, trial = heapq.heappop(events)
            trial.epoch += 1
            result = {"epoch": trial.epoch, METRIC: trial.dice(rng)}
            stopped = scheduler.on_trial_result(None, trial, result) == "STOP"
            if trial.epoch == epochs:
                finished, reached = finished + 1, max(reached, trial.height)
            elif not stopped:
                order += 1
                heapq.heappush(events, (clock + trial.epoch_s, order, trial))
                busy += trial.epoch_s
        lines.append(
            f"| {name} | {clock / 3600:.1f} | {busy / 3600:.0f} | {busy / (gpus * clock):.0%} | {finished} | "
            f"{reached:.3f}, {best_possible:.3f} |"
        )
    return lines


def main() -> None:
    """Measure, print and write."""
    parts = {"overhead": overhead, "nested": nested, "rate": rate, "scaling": scaling, "schedule": schedule}
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", help=f"of {', '.join(parts)}; default: all")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    said = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    load, began, lines = os.getloadavg()[0], time.monotonic(), []
    with fresh_home() as home, cluster.ending():
        for name in said.what or parts:
            found = [f"## {name}", "", *parts[name](said, home), ""]
            print("\n".join(found), flush=True)
            lines += found
    said.out.write_text("\n".join([*first_lines("Search", (time.monotonic() - began) / 60, load), *lines]))


if __name__ == "__main__":
    main()
