"""Early stopping of poor trials: Tune's schedulers by name, and their knowledge of a resumed search's trials."""

from typing import Any

import optuna
from ray import tune
from ray.tune import schedulers

from glioflow.config import Experiment
from glioflow.config.search import Choice, Parameter, Real
from glioflow.runs.search.searcher import METRIC

# The median rule would let trials alternate while there are few, and each change costs a start.
_NEVER = float("inf")


def build_scheduler(experiment: Experiment) -> Any:
    """Return Tune's scheduler for the experiment's search; it sees `val/dice` after each epoch."""
    settings = experiment.search
    epochs = settings.most_epochs(experiment.training.epochs)
    grace = min(settings.grace_epochs, epochs)
    seen: dict[str, str] = {"time_attr": "epoch", "metric": METRIC, "mode": "max"}
    if settings.scheduler in ("asha", "hyperband"):
        return schedulers.AsyncHyperBandScheduler(
            **seen,
            max_t=epochs + 1,  # the longest trial ends by itself with its last epoch, as finished, not as stopped
            grace_period=grace,
            reduction_factor=settings.reduction,
            brackets=_num_brackets(epochs, grace, settings.reduction) if settings.scheduler == "hyperband" else 1,
        )
    if settings.scheduler == "median":
        return schedulers.MedianStoppingRule(**seen, grace_period=grace, min_samples_required=3, min_time_slice=_NEVER)
    if settings.scheduler == "pbt":
        return schedulers.PopulationBasedTraining(
            **seen,
            perturbation_interval=settings.grace_epochs,
            hyperparam_mutations={key: domain(parameter) for key, parameter in settings.space.items()},
        )
    return schedulers.FIFOScheduler()


def _num_brackets(epochs: int, grace: int, reduction: int) -> int:
    """Return how many brackets have a rung: the b-th grants grace * reduction ** b epochs."""
    count = 1
    while grace * reduction**count <= epochs:
        count += 1
    return count


def domain(parameter: Parameter) -> Any:
    """Return a parameter as Tune's own domain, for the one scheduler that changes parameters itself."""
    if isinstance(parameter, Choice):
        return tune.choice(list(parameter.values))
    if isinstance(parameter, Real):
        return (tune.loguniform if parameter.log else tune.uniform)(parameter.low, parameter.high)
    return (tune.lograndint if parameter.log else tune.randint)(parameter.low, parameter.high + 1)


def replay(scheduler: Any, study: optuna.Study) -> None:
    """Tell a new scheduler what the study's trials reported before, as if it had been there."""
    # It accepts no further report of a trial that it would stop.
    median = isinstance(scheduler, schedulers.MedianStoppingRule)
    for trial in study.get_trials(deepcopy=False):
        steps = sorted(trial.intermediate_values.items())
        if not steps:
            continue
        earlier = _Earlier(f"earlier-{trial.number}")
        scheduler.on_trial_add(None, earlier)
        for epoch, value in steps:
            tell = scheduler.on_trial_complete if median else scheduler.on_trial_result
            tell(None, earlier, {"epoch": epoch, METRIC: value})


class _Earlier:
    """A trial of an earlier process, as schedulers know trials: by identity and id."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
