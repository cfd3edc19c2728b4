"""What an `auto` reads from the runs of its trainings."""

from typing import Any

from glioflow.config import Experiment
from glioflow.json_values import JsonObject
from glioflow.runs.search.earlier import point_of


def describe_trial(run: Any, experiment: Experiment) -> JsonObject:
    """Return the parameters, the status, the Dice and the seconds of a trial, and whether the plan asked for it."""
    metrics = run.data.metrics
    dice = metrics.get("val/dice_mean", metrics.get("val/dice"))
    point = point_of(run, experiment)
    planned = all(point.get(key) == value for key, value in experiment.search.first[0].items())
    ended = {"status": run.info.status, "dice": dice, "seconds": seconds_of(run)}
    return {"params": point, "planned": planned, **ended}


def seconds_of(run: Any) -> float:
    """Return how long an MLflow run took."""
    return float(run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0


def step_seconds(run: Any, experiment: Experiment) -> float:
    """Return the seconds of a training's step, as its loop measured them, without validations and interruptions."""
    rates = [value for key, value in run.data.metrics.items() if key.startswith("train/") and key.endswith("_per_s")]
    return float(run.data.metrics.get("train/batch_size", experiment.training.batch_size)) / float(rates[0])
