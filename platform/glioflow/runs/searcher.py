"""The searcher between Tune and Optuna: a typed space, and stopped trials told to Optuna as pruned, not as complete."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from glioflow.config.search import Choice, Parameter, Real, SearchSettings

METRIC = "val_dice"


@dataclass(frozen=True)
class Space:
    """The experiment's space as Optuna's define-by-run function; picklable, as Tune demands."""

    parameters: dict[str, Parameter]

    def __call__(self, trial: Any) -> None:
        """Suggest every parameter whose conditions hold."""
        chosen: dict[str, Any] = {}
        for key, parameter in self.parameters.items():
            if all(other in chosen and chosen[other] in values for other, values in parameter.when.items()):
                chosen[key] = _suggest(trial, key, parameter)


def _suggest(trial: Any, key: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return trial.suggest_categorical(key, list(parameter.values))
    if isinstance(parameter, Real):
        return trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)
    return trial.suggest_int(key, parameter.low, parameter.high, log=parameter.log)


class Searcher(OptunaSearch):  # type: ignore[misc]
    """Tune's OptunaSearch, but honest about pruned trials and about epochs as steps."""

    def __init__(self, settings: SearchSettings, *, name: str, storage: str) -> None:
        """Make or load the study `name` in the SQL database `storage`."""
        self._unfinished: set[str] = set()
        self._told: set[tuple[str, int]] = set()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            Space(dict(settings.space)),
            metric=METRIC,
            mode="max",
            points_to_evaluate=[dict(point) for point in settings.first] or None,
            sampler=build_sampler(settings),
            storage=optuna.storages.RDBStorage(storage),
            study_name=name,
        )

    @property
    def study(self) -> optuna.Study:
        """Optuna's own study."""
        return self._ot_study

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna an epoch's value."""
        if trial_id in self._completed_trials or METRIC not in result:
            return
        step = (trial_id, int(result["epoch"]))
        if step not in self._told:
            self._ot_trials[trial_id].report(result[METRIC], step[1])
            self._told.add(step)
        (self._unfinished.discard if result["finished"] else self._unfinished.add)(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna the end: complete, failed, or pruned with what was reported until then."""
        if result and not error:
            self.on_trial_result(trial_id, result)  # the last one comes only here
        if error or trial_id not in self._unfinished:
            super().on_trial_complete(trial_id, None if error else result, error)
            return
        if trial_id not in self._completed_trials:
            self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.PRUNED)
            self._completed_trials.add(trial_id)


def count_open(name: str, storage: str) -> int:
    """Return how many trials of a study nobody has told the end of: more than none where a search was interrupted."""
    study = optuna.load_study(study_name=name, storage=storage)
    return sum(trial.state == TrialState.RUNNING for trial in study.trials)


def build_sampler(settings: SearchSettings) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler for the settings."""
    import warnings

    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=settings.seed, multivariate=True, group=True, n_startup_trials=5)
