"""The searcher between Tune and Optuna's study; a resumed search continues from the study alone.

Stopped trials end as pruned, failed ones as failed, and trials that an interruption left open are handed out again.
"""

import contextlib
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher as TuneSearcher

from glioflow.cluster.remote_home import share
from glioflow.config.search import Choice, Parameter, Point, Real, SearchSettings
from glioflow.runs.search.study_store import studies_uri

# The value that Tune compares: `val/dice` after each epoch; in a finished trial's last report its `val/dice_mean`.
# The key has another name because saved schedulers of populations from earlier versions use it.
METRIC: Final = "val_dice"
# Key of a trial's number in the configuration that it gets; no key of an experiment.
NUMBER = "trial"
_BEGUN = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
DIRECTIONS = {"dice": "maximize", "hd95": "minimize", "parameters": "minimize", "c_index": "maximize"}


class TrialReport(TypedDict, total=False):
    """A trial's report to Tune after an epoch and at its end.

    Keys:
        epoch: Number of finished epochs.
        val_dice: The value of `METRIC`.
        finished: Whether this is its last report.
        run_id: Its run; empty before the run is open.
        failed: Reason why it ended without a model.
        open: Whether a resumed search runs it again.
        hd95: HD95 of a finished trial; this and the next two are None where undefined.
        parameters: Number of parameters of its network.
        c_index: C-index of the survival stage on its masks.
        placement_group: Placement group of its workers.
        time_total_s: Added by Tune.
    """

    epoch: int
    val_dice: float
    finished: bool
    run_id: str
    failed: str
    open: bool
    hd95: float | None
    parameters: int
    c_index: float | None
    placement_group: str
    time_total_s: float


def suggest_point(trial: Any, settings: SearchSettings) -> Point:
    """Suggest every parameter whose conditions hold, in Optuna's define-by-run way."""
    point: Point = {}
    for key, parameter in settings.space.items():
        if settings.active(key, point):
            point[key] = _suggest(trial, key, parameter)
    return point


def _suggest(trial: Any, key: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        named = {_as_choice(value): value for value in parameter.values}
        return named[trial.suggest_categorical(key, list(named))]
    if isinstance(parameter, Real):
        return trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)
    return trial.suggest_int(key, parameter.low, parameter.high, log=parameter.log)


def _as_choice(value: Any) -> Any:
    """Return the value as Optuna stores choices: lists and mappings as their JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def chosen_point(stored: Mapping[str, Any], settings: SearchSettings) -> Point:
    """Return a trial's parameters as the space lists them, which Optuna may have stored as text."""
    point = dict(stored)
    for key, parameter in settings.space.items():
        if key in point and isinstance(parameter, Choice):
            point[key] = next((each for each in parameter.values if _as_choice(each) == point[key]), point[key])
    return point


def open_study(settings: SearchSettings, *, name: str, storage: str) -> optuna.Study:
    """Make or load the study `name` in the SQL database `storage`; a new one gets its first points."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=build_sampler(settings, begun=0),
        directions=[DIRECTIONS[objective] for objective in settings.objectives],
        load_if_exists=True,
    )
    if not study.get_trials(deepcopy=False) or _drop_impossible(study, settings, storage):
        enqueue(study, list(settings.first))
        if settings.sampler == "grid":
            enqueue(study, list(settings.grid()))
    return study


def _drop_impossible(study: optuna.Study, settings: SearchSettings, storage: str) -> bool:
    """End points that were enqueued and that the space does not have: `search.first` was mended since.

    Returns:
        Whether there were any.
    """
    dropped = False
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
        fixed = trial.system_attrs.get("fixed_params", {})
        for key, value in fixed.items():
            parameter = settings.space.get(key)
            known = [_as_choice(each) for each in parameter.values] if isinstance(parameter, Choice) else None
            if parameter is None or (known is not None and value not in known):
                database, trial_id = _in_database(study.study_name, storage, trial.number)
                database.set_trial_state_values(trial_id, TrialState.FAIL)
                dropped = True
                break
    return dropped


def _in_database(name: str, storage: str, number: int) -> tuple[optuna.storages.RDBStorage, int]:
    """Return the database of a study, and the id that a trial of it has there."""
    database = optuna.storages.RDBStorage(storage)
    study_id = database.get_study_id_from_name(name)
    return database, database.get_trial_id_from_study_id_trial_number(study_id, number)


def enqueue(study: optuna.Study, points: Sequence[Point]) -> None:
    """Let these points be tried before the sampler is asked, each once."""
    for point in points:
        study.enqueue_trial({key: _as_choice(value) for key, value in point.items()}, skip_if_exists=True)


class Searcher(TuneSearcher):  # type: ignore[misc]
    """Asks the study for configurations and reports their results to it."""

    def __init__(self, settings: SearchSettings, *, name: str, storage: str) -> None:
        """Open the study `name` in the SQL database `storage`; what its last process left open comes first."""
        super().__init__(metric=METRIC, mode="max")
        self.settings, self.name, self.storage = settings, name, storage
        self.study = open_study(settings, name=name, storage=storage)
        self._trials: dict[str, optuna.Trial] = {}
        self._steps: dict[str, set[int]] = {}
        self._last: dict[str, TrialReport] = {}
        self._left = [trial.number for trial in self._in(TrialState.RUNNING)]
        self._new = settings.num_trials
        self._began = time.monotonic()
        # The reason why no trial can continue, such as a full disk.
        self.trouble: str | None = None

    def _in(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        return list(self.study.get_trials(deepcopy=False, states=states or None))

    def plan(self, trials: int) -> int:
        """Return how many trials are to run now, for the study to have `trials` in all."""
        begun = self._in(*_BEGUN)
        if self.settings.sampler == "grid":
            trials = min(trials, len(begun) + len(self._in(TrialState.WAITING)))
        self._new = max(0, trials - len(begun))
        return len(self._left) + self._new

    def reached(self) -> tuple[int, float | None]:
        """Return how many trials have ended, and the best Dice of the finished ones; None before the first."""
        position = self.settings.objectives.index("dice")
        dice = [trial.values[position] for trial in self._in(TrialState.COMPLETE)]
        ended = self._in(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return len(ended), max(dice, default=None)

    def suggest(self, trial_id: str) -> Point | str | None:
        """Return a trial's configuration, with its number; `FINISHED` where no more is to begin."""
        if self._left:
            number = self._left.pop(0)
            self.study.sampler = build_sampler(self.settings, begun=number)
            trial = self._reopen(number)
        elif self._new and not self._spent():
            self._new -= 1
            self.study.sampler = build_sampler(self.settings, begun=len(self._in(*_BEGUN)))
            trial = self.study.ask()
        else:
            return str(TuneSearcher.FINISHED)
        self._trials[trial_id] = trial
        self._steps[trial_id] = set(self._in()[trial.number].intermediate_values)
        with warnings.catch_warnings():  # of an open trial with a value outside a range that was narrowed since
            warnings.simplefilter("ignore", RuntimeWarning)
            point = suggest_point(trial, self.settings)
        self._copy()
        return {**point, NUMBER: trial.number}

    def _reopen(self, number: int) -> optuna.Trial:
        """Return a trial that is open in the study, with its parameters and what it reported."""
        return optuna.Trial(self.study, _in_database(self.name, self.storage, number)[1])

    def _spent(self) -> bool:
        hours = self.settings.budget_hours
        return hours is not None and time.monotonic() - self._began > 3600 * hours

    def on_trial_result(self, trial_id: str, result: TrialReport) -> None:
        """Tell Optuna an epoch's value."""
        trial = self._trials.get(trial_id)
        if trial is None or METRIC not in result:
            return
        if not self._last.get(trial_id, {}).get("finished"):  # a late report does not change a trial's end
            self._last[trial_id] = result
        step = int(result["epoch"])
        # With several objectives, Optuna accepts no intermediate values.
        if step not in self._steps[trial_id] and len(self.settings.objectives) == 1 and not result.get("failed"):
            trial.report(result[METRIC], step)
            self._steps[trial_id].add(step)

    def on_trial_complete(self, trial_id: str, result: TrialReport | None = None, error: bool = False) -> None:
        """Tell Optuna the end: complete, failed, or pruned with what was reported until then."""
        if result and not error:
            self.on_trial_result(trial_id, result)  # the last one is reported only here
        trial, last = self._trials.pop(trial_id, None), self._last.pop(trial_id, None)
        if trial is None:
            return
        if last and last.get("open"):
            self.give_up(str(last["failed"]))
            return
        if error or last is None or last.get("failed"):
            self.study.tell(trial, state=TrialState.FAIL)
        elif last["finished"]:
            self.study.tell(trial, [objective_value(last, name) for name in self.settings.objectives])
        else:
            self.study.tell(trial, state=TrialState.PRUNED)
        self._copy()

    def _copy(self) -> None:
        """Let another node continue from the study as it is now; if it cannot be copied, the next time."""
        with contextlib.suppress(OSError):
            share_study(self.storage)

    def give_up(self, reason: str) -> None:
        """Begin no more trials; running ones continue."""
        self.trouble, self._left, self._new = reason, [], 0

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: all is in the study."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, object]:
        """Travel as what opens the study, without an address that may hold a password: Tune writes it down."""
        storage = self.storage if _is_file(self.storage) else None
        return {"settings": self.settings, "name": self.name, "storage": storage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the study again."""
        storage = state["storage"] or studies_uri()
        self.__init__(state["settings"], name=state["name"], storage=storage)  # type: ignore[misc]


def objective_value(result: Mapping[str, Any], objective: str) -> float:
    """Return what a finished trial reached in one objective."""
    return float(result[METRIC if objective == "dice" else objective])


def share_study(storage: str) -> None:
    """Copy a study's file to the home's object store; its one writer calls this, and does not write meanwhile."""
    if _is_file(storage):
        share(Path(storage.removeprefix("sqlite:///")))


def _is_file(storage: str) -> bool:
    return storage.startswith("sqlite:///")


def count_open(name: str, storage: str) -> int:
    """Return how many trials of a study have no end: more than 0 where a search was interrupted."""
    study = optuna.load_study(study_name=name, storage=storage)
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def build_sampler(settings: SearchSettings, *, begun: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that draws the next point of a study; for a grid, whose points are all enqueued, a random one.

    Its random numbers depend on the study alone, so that a resumed search draws what an uninterrupted one would.

    Args:
        settings: Settings with the sampler and its seed.
        begun: How many trials the study has begun.
    """
    seed = int(np.random.SeedSequence([settings.seed, begun]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=5)
        if settings.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=5)
        if settings.sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed)
        if settings.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, settings.num_trials // 4)))
    return optuna.samplers.RandomSampler(seed=seed)
