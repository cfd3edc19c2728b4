"""Tune's tuner for a search: number of trials at once, their resources, callbacks, and the folder of its files."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from glioflow import atomic, cluster
from glioflow.clock import stamp
from glioflow.cluster.autoscaled import letting_trials_wait
from glioflow.cluster.logins import without_password
from glioflow.cluster.remote_home import fetch, list_shared, ray_storage, share
from glioflow.cluster.storage import home_uri
from glioflow.config import Experiment
from glioflow.config.search import SearchSettings
from glioflow.errors import UserError
from glioflow.runs.search.board import Board
from glioflow.runs.search.observer import Announcer
from glioflow.runs.search.schedulers import domain
from glioflow.runs.search.searcher import Searcher
from glioflow.runs.search.study_store import STUDIES, studies_uri
from glioflow.runs.search.trial import TrialPlan, resources, run_trial

# Files of the folder: its run, Optuna's database, and the address of a database elsewhere.
_RUN_ID, _STUDY, _STUDIES = "run_id", "optuna.db", "studies"


@dataclass(frozen=True)
class SearchFolder:
    """The folder where a search keeps its state, named as the search."""

    name: str
    path: Path

    @property
    def storage(self) -> str:
        """Optuna's database."""
        return studies_uri() or f"sqlite:///{self.path / _STUDY}"

    @property
    def study(self) -> str:
        """Name of the study: in a database that many searches share, it is told from others by the search's run."""
        return self.name if studies_uri() is None else f"{self.name} {self.run_id}"

    @property
    def has_study(self) -> bool:
        """Whether the study was begun."""
        if (uri := studies_uri()) is None:
            return (self.path / _STUDY).exists()
        return self.study in optuna.get_all_study_names(uri)

    @property
    def tune(self) -> Path:
        """Tune's files of a population."""
        return self.path / "tune"

    @property
    def exists(self) -> bool:
        """Whether a search of this name was begun in this home."""
        return self.name in list_shared(self.path.parent)

    @property
    def has_begun(self) -> bool:
        """Whether trials were begun: the run is noted before."""
        return not {_STUDY, self.tune.name}.isdisjoint(list_shared(self.path))

    @property
    def has_population(self) -> bool:
        """Whether Tune left what a population continues from."""
        return self.tune.name in list_shared(self.path)

    @property
    def run_id(self) -> str | None:
        """The search's run, by which it is told from other people's searches of the same name; None if not noted."""
        return self._noted(_RUN_ID)

    def note_run(self, run_id: str) -> None:
        """Note the search's run, and which database has its study, unless it is a file here."""
        self._note(_RUN_ID, run_id)
        if (uri := studies_uri()) is not None:
            self._note(_STUDIES, without_password(uri))

    def check_study(self) -> None:
        """Refuse to continue in another database than the one with the search's study; raises `UserError`."""
        began, now = self._noted(_STUDIES), studies_uri()
        if not (self.run_id or self.has_begun) or began == (now and without_password(now)):
            return
        rule = f"search {self.name} must continue with its study, which is in {began or 'a file of its own'}"
        hint = f"set {STUDIES} to that database" if began else f"unset {STUDIES}"
        raise UserError(rule, f"{STUDIES} {without_password(now)}" if now else f"no {STUDIES}", hint=hint)

    def _note(self, name: str, text: str) -> None:
        atomic.write_text(self.path / name, text)
        share(self.path / name)

    def _noted(self, name: str) -> str | None:
        note = self.path / name
        if not note.is_file():
            fetch(note)
        return note.read_text().strip() if note.is_file() else None

    def fetch(self) -> None:
        """Fetch what the search continues from, as the node where it ran last left it."""
        for path in (self.path / name for name in (_RUN_ID, _STUDIES, _STUDY)):
            if home_uri() is not None:
                path.unlink(missing_ok=True)
            fetch(path)


def build_tuner(
    experiment: Experiment,
    folder: SearchFolder,
    trial_plan: TrialPlan,
    searcher: Searcher | None,
    scheduler: Any,
    many: int,
    board: Board,
) -> Any:
    """Return Tune's tuner for `many` trials, seen in `board`; without a searcher, for a population or what is left."""
    settings, training = experiment.search, experiment.training
    planned = tune.with_parameters(run_trial, plan_json=trial_plan.model_dump_json())
    trainable = tune.with_resources(planned, resources(experiment))
    if searcher is None and folder.has_population:
        storage = ray_storage(folder.tune)
        return tune.Tuner.restore(
            storage.pop("storage_path"), trainable=trainable, resume_unfinished=True, resume_errored=True, **storage
        )
    workers = {name.lower(): training.min_workers * each for name, each in training.resources_per_worker.items()}
    return tune.Tuner(
        trainable,
        param_space={} if searcher else {key: domain(parameter) for key, parameter in settings.space.items()},
        tune_config=tune.TuneConfig(
            search_alg=searcher or _population(settings),
            scheduler=scheduler,
            num_samples=many,
            max_concurrent_trials=_concurrent(experiment),
            reuse_actors=training.min_workers == 1,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            # Tune's own files are needed only to continue a population.
            name="tune" if searcher is None else f"tune-{stamp(microseconds=True)}",
            **ray_storage(folder.path),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
            failure_config=tune.FailureConfig(max_failures=1),
            callbacks=[Announcer(folder.name, board, workers=workers)],
            verbose=0,
        ),
    )


def _population(settings: SearchSettings) -> Any:
    return BasicVariantGenerator(
        points_to_evaluate=[dict(point) for point in settings.first] or None, random_state=settings.seed
    )


def letting_nodes_come(experiment: Experiment) -> AbstractContextManager[None]:
    """Let, in a block, as many trials wait as may run at once, where the cluster's autoscaler may still add nodes."""
    training = experiment.training
    at_once = _concurrent(experiment) or cluster.slots(cpus=training.cpus_per_worker, gpus=training.gpus)
    return letting_trials_wait(at_once, cluster.nodes_still_to_come())


def _concurrent(experiment: Experiment) -> int | None:
    """Return how many trials may run at once; of several workers no more than whose workers fit together."""
    training, wanted = experiment.training, experiment.search.concurrent
    if training.min_workers == 1:
        return wanted
    fit = cluster.slots(cpus=training.cpus_per_worker, gpus=training.gpus) // training.min_workers
    return max(1, min(wanted or fit, fit))
