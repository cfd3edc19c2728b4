"""Early stopping of poor trials: Tune's schedulers by name, and their knowledge of a resumed search's trials."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from ray import tune
from ray.tune import schedulers

from glioflow.config import Experiment
from glioflow.config.search import Choice, Parameter, Real
from glioflow.runs.search.searcher import METRIC, NUMBER

# The median rule would let trials alternate while there are few, and each change costs a start.
_NEVER = float("inf")


def build_scheduler(experiment: Experiment) -> Any:
    """Return Tune's scheduler for the experiment's search; it sees `val/dice` after each epoch."""
    settings = experiment.search
    epochs = settings.most_epochs(experiment.training.epochs)
    grace = min(settings.grace_epochs, epochs)
    seen: dict[str, str] = {"time_attr": "epoch", "metric": METRIC, "mode": "max"}
    if settings.scheduler in ("asha", "hyperband"):
        return _Halving(
            settings.seed,
            **seen,
            max_t=epochs + 1,  # the longest trial ends by itself with its last epoch, as finished, not as stopped
            grace_period=grace,
            reduction_factor=settings.reduction,
            brackets=_num_brackets(epochs, grace, settings.reduction) if settings.scheduler == "hyperband" else 1,
        )
    if settings.scheduler == "median":
        return _Median(**seen, grace_period=grace, min_samples_required=3, min_time_slice=_NEVER)
    if settings.scheduler == "pbt":
        return schedulers.PopulationBasedTraining(
            **seen,
            perturbation_interval=settings.grace_epochs,
            hyperparam_mutations={key: domain(parameter) for key, parameter in settings.space.items()},
        )
    return schedulers.FIFOScheduler()


class _ByNumber:
    """A scheduler that knows trials by their numbers: one that a resumed search continues is the one that it was."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._added: set[Any] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take a trial, such as into one of ASHA's brackets, unless it was taken before."""
        if _numbered(trial) not in self._added:
            self._added.add(_numbered(trial))
            super().on_trial_add(tune_controller, _numbered(trial))  # type: ignore[misc]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """Return whether the trial continues."""
        return super().on_trial_result(tune_controller, _numbered(trial), result)  # type: ignore[misc]

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take the last result of a trial."""
        super().on_trial_complete(tune_controller, _numbered(trial), result)  # type: ignore[misc]

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget the bracket of a trial."""
        super().on_trial_remove(tune_controller, _numbered(trial))  # type: ignore[misc]


class _Halving(_ByNumber, schedulers.AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA: a trial's bracket depends on its number and the seed, so that a continued one has its bracket and rungs."""

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._seed = seed

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Draw a trial's bracket, which Ray does with numpy's global generator."""
        numbered, before = _numbered(trial), np.random.get_state()
        if isinstance(numbered, _Earlier):
            np.random.seed(np.random.SeedSequence([self._seed, numbered.number]).generate_state(1))
        try:
            super().on_trial_add(tune_controller, trial)
        finally:
            np.random.set_state(before)


class _Median(_ByNumber, schedulers.MedianStoppingRule):  # type: ignore[misc]
    """The median rule: a continued trial has one running mean, over all its epochs, and is not compared with itself."""


def _numbered(trial: Any) -> Any:
    return _Earlier(trial.config[NUMBER]) if NUMBER in trial.config else trial


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
        earlier = _Earlier(trial.number)
        scheduler.on_trial_add(None, earlier)
        for epoch, value in steps:
            tell = scheduler.on_trial_complete if median else scheduler.on_trial_result
            tell(None, earlier, {"epoch": epoch, METRIC: value})


@dataclass(frozen=True)
class _Earlier:
    """A trial by its number, with what schedulers ask of a trial: whether it is the same, and its id."""

    number: int

    @property
    def trial_id(self) -> str:
        return f"trial-{self.number}"

    @property
    def config(self) -> dict[str, int]:
        return {NUMBER: self.number}
