"""A search: Tune runs the trials that Optuna's study proposes, each in its own MLflow run below the search's."""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from glioflow.clock import stamp
from glioflow.cluster.lease import holding
from glioflow.cluster.remote_home import check_home
from glioflow.cluster.storage import home
from glioflow.config import Experiment, data_source
from glioflow.config.experiment import check_search
from glioflow.config.search import NAME
from glioflow.data.splits import Split
from glioflow.errors import RunFailed, UserError, last_line, option
from glioflow.progress import Say, quiet
from glioflow.runs.launch import (
    Setting,
    check_searched_batches,
    check_searched_weights,
    open_setting,
    opening_of,
)
from glioflow.runs.plan import plan_of
from glioflow.runs.search.board import Board
from glioflow.runs.search.conclusion import Searched, conclude
from glioflow.runs.search.earlier import SPACE, earlier_points
from glioflow.runs.search.interrupt import stopping_at_interrupt
from glioflow.runs.search.listing import unknown_search
from glioflow.runs.search.memory_guard import surviving_memory_kills
from glioflow.runs.search.observer import LISTENERS, Listener
from glioflow.runs.search.parent_run import ParentRun, link_to
from glioflow.runs.search.prepared_variants import VARIANTS, check_variants, prepare_variants
from glioflow.runs.search.resumed import check_begun, check_tables, resumed_search
from glioflow.runs.search.schedulers import build_scheduler, replay
from glioflow.runs.search.searcher import Searcher, count_open, enqueue, open_study, share_study
from glioflow.runs.search.study_store import check_studies
from glioflow.runs.search.survival_objective import TABLES, Tables, find_tables, locate_tables
from glioflow.runs.search.trial import TrialPlan, open_trial
from glioflow.runs.search.trial_folds import deal_folds
from glioflow.runs.search.tuner import SearchFolder, build_tuner, letting_nodes_come
from glioflow.runs.source import Source
from glioflow.tracking import Tracking
from glioflow.tracking.run import Run, close_children, open_run, resume_run

FOLDS = "glioflow.search_folds"


def search(
    experiment: Experiment,
    data: str | Path | None,
    *,
    trials: int | None = None,
    resume: str | None = None,
    say: Say = quiet,
    show: Callable[[Board], None] | None = None,
) -> Searched:
    """Search the experiment's space and log every trial below one parent run.

    Args:
        experiment: Experiment with `search.space`.
        data: Cohort, raw or prepared; None takes the experiment's.
        trials: How many configurations; None takes `search.trials`.
        resume: Name of an interrupted search to continue.
        say: Called with each line of progress.
        show: Called with the table of trials whenever it changes.

    Raises:
        UserError: If anything given is wrong.
        RunFailed: If no trial succeeded, or none can continue (a full disk); finished work is kept for `resume`.
    """
    _check_searchable(experiment)
    if resume is None:
        check_searched_batches(experiment)
    check_home()
    if resume is not None and not re.fullmatch(NAME, resume):
        raise unknown_search(resume)
    check_studies()
    name = resume or experiment.search.name or f"{experiment.name}-{stamp()}"
    folder = SearchFolder(name, home() / "searches" / name)
    if resume and not folder.exists:
        raise unknown_search(name)
    if not resume and folder.exists:
        hint = f"continue with {option('resume', name)}, or choose another search.name"
        raise UserError(f"a search named {name} exists already", name, hint=hint)
    try:
        with holding(folder.path, f"search {name}"):
            folder.fetch()
            folder.check_study()
            return _search(experiment, data, folder, trials, resumed=resume is not None, say=say, show=show)
    finally:
        with contextlib.suppress(OSError):  # it is not empty once a search has begun
            folder.path.rmdir()


def _check_searchable(experiment: Experiment) -> None:
    if experiment.training.final:
        rule = "training.final must be false in a search, which compares trials on validation patients"
        raise UserError(rule, True, hint="search first, then train the search's best.yaml with training.final=true")
    check_search(experiment)
    if not experiment.search.space:
        raise UserError(f"the experiment {experiment.name} has no search.space", hint="list the searched keys there")
    if experiment.training.elastic:
        rule = "training.num_workers must be one number in a search, which books its trials before they begin"
        hint = "give one number, such as -o training.num_workers=1"
        raise UserError(rule, experiment.training.num_workers, hint=hint)


def _search(
    experiment: Experiment,
    data: str | Path | None,
    folder: SearchFolder,
    trials: int | None,
    *,
    resumed: bool,
    say: Say,
    show: Callable[[Board], None] | None,
) -> Searched:
    """Search in the folder that this process holds."""
    earlier = folder.run_id if resumed else None
    sizes: dict[str, float] = {}

    def check(tracking: Tracking, source: Source) -> None:
        sizes.update(_check_before_ray(experiment, source, tracking, earlier))

    setting = open_setting(experiment, data, resume=earlier, early=check, say=say)
    if resumed and (begun := _begun_as(setting, folder)) is not None:
        setting = resumed_search(setting, begun.info.run_id)
    folds = deal_folds(setting)
    tables = find_tables(setting, folds, say=say)
    source = data_source(data, experiment.data.source)
    variants = prepare_variants(experiment, source, sizes, uri=setting.tracking.uri, say=say)
    prepared = {name: cohort.path for name, cohort in variants.items()}
    with _open_search(setting, folder, folds, tables, resumed=resumed) as run, _ending_trials(setting, run.run_id):
        folder.note_run(run.run_id)
        if variants:
            run.set_tags({VARIANTS: " ".join(cohort.manifest.fingerprint for cohort in variants.values())})
        say(f"search {folder.name}, run {run.run_id}")
        link = link_to(setting.tracking, experiment.name, run.run_id)
        say(f"MLflow: {link}")
        study = None if experiment.search.scheduler == "pbt" else (folder.study, folder.storage)
        parent = ParentRun(setting, run, study, link)
        trial_plan = TrialPlan(
            plan=plan_of(setting, ""),
            parent=run.run_id,
            search=folder.name,
            prepared=prepared,
            folds=folds,
            tables=tables,
            experiment_id=setting.tracking.experiment(experiment.name),
        )
        many = trials or experiment.search.num_trials
        _run(setting, folder, trial_plan, many, parent=parent, say=say, show=show)
        return conclude(setting, folder, parent, [setting.cohort.path, *prepared.values()])


def _check_before_ray(
    experiment: Experiment, source: Source, tracking: Tracking, earlier: str | None
) -> Mapping[str, float]:
    """Check what does not need Ray; give the sizes that `check_variants` returns.

    Args:
        experiment: Experiment with `search.space`.
        source: Its cohort.
        tracking: MLflow.
        earlier: The run of a search to resume, which must have begun with the same; None of a new one.

    Raises:
        UserError: If a check fails.
    """
    tables = locate_tables(experiment, source)
    if earlier is not None:
        check_begun(experiment, source, tracking, earlier)
        check_tables(tracking.run(earlier), tables)
    check_searched_weights(experiment)
    return check_variants(experiment, source)


@contextlib.contextmanager
def _ending_trials(setting: Setting, run_id: str) -> Iterator[None]:
    """Close the runs of a search's trials if a block fails or is interrupted."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # if the store or the disk fails, the first error matters
            close_children(setting.tracking, setting.experiment.name, run_id)
        raise


def _open_search(
    setting: Setting, folder: SearchFolder, folds: Sequence[Split], tables: Tables | None = None, *, resumed: bool
) -> AbstractContextManager[Run]:
    """Open the run of a search, or the one that a resumed search began with again.

    Raises:
        UserError: If it began with other folds or tables, or in another store.
    """
    settings, name = setting.experiment.search, folder.name
    tags = {"search": name, "kind": "search", SPACE: settings.space_digest, FOLDS: " ".join(f.digest for f in folds)}
    earlier = _begun_as(setting, folder) if resumed else None
    if earlier is not None:
        if earlier.data.tags.get(FOLDS, "") != tags[FOLDS]:
            hint = "give the cohort, split and search.folds that it began with, or choose another search.name"
            raise UserError(f"search {name} began with other folds", hint=hint)
        check_tables(earlier, tables)
        return resume_run(setting.tracking, earlier.info.run_id)
    tags |= {} if tables is None else {TABLES: tables.digest}
    opening = opening_of(setting, "search", name, tags=tags)
    texts = {
        "search.json": json.dumps(settings.model_dump(mode="json"), indent=1),
        "folds.json": json.dumps([fold.model_dump(mode="json") for fold in folds], indent=1),
    }
    return open_run(setting.tracking, replace(opening, texts={**opening.texts, **texts}))


def _begun_as(setting: Setting, folder: SearchFolder) -> Any | None:
    """Return the run that a search began with; of one that an earlier version began, the newest of its name."""
    if folder.run_id is not None:
        return setting.tracking.run(folder.run_id)
    if not folder.has_begun:  # a search of this name in the store belongs to another home
        return None
    return setting.tracking.find(setting.experiment.name, search=folder.name, kind="search")


def _run(
    setting: Setting,
    folder: SearchFolder,
    trial_plan: TrialPlan,
    trials: int,
    *,
    parent: ParentRun,
    say: Say,
    show: Callable[[Board], None] | None,
) -> None:
    """Run the rest of `trials`; return once all of them ended, raise if some are still open."""
    experiment, name, tracking = setting.experiment, folder.name, setting.tracking
    scheduler, searcher, many = build_scheduler(experiment), None, trials
    hours = experiment.search.budget_hours
    board = Board(trials, experiment.search.folds * experiment.training.epochs, budget_s=hours and 3600 * hours)
    if experiment.search.scheduler != "pbt":
        searcher = _open_searcher(setting, folder, besides=trial_plan.parent)
        many = searcher.plan(trials)
        replay(scheduler, searcher.study)
        ended, board.best = searcher.reached()
        board.before, board.num_trials = ended, ended + many
    parent.see(board)
    if many == 0:
        return

    def see(board: Board) -> None:
        parent.see(board)
        if show is not None:
            show(board)

    opening = partial(open_trial, tracking, trial_plan, trial_plan.plan)
    LISTENERS[name] = Listener(say, see, tracking, opening, searcher.give_up if searcher else None)
    tuner = build_tuner(experiment, folder, trial_plan, searcher, scheduler, many, board)
    resuming = f"continue with {option('resume', name)}"
    try:
        with (
            parent.followed(say if show is None else None),
            surviving_memory_kills(),
            letting_nodes_come(experiment),
            stopping_at_interrupt(say),
        ):
            results = tuner.fit()
        if searcher is not None:
            share_study(folder.storage)
    except KeyboardInterrupt:
        say(f"interrupted; {resuming}")
        raise
    except Exception as error:
        raise RunFailed(f"search {name} stopped ({last_line(error)}); {resuming}") from error
    if searcher is not None and (trouble := searcher.trouble):
        raise RunFailed(f"search {name} cannot continue ({trouble}); solve this, and {resuming}")
    if _was_interrupted(folder, results, in_population=searcher is None):
        say(f"interrupted; {resuming}")
        raise KeyboardInterrupt


def _open_searcher(setting: Setting, folder: SearchFolder, *, besides: str) -> Searcher:
    """Open the search's study; a new one begins with the best points of earlier searches, without run `besides`."""
    settings = setting.experiment.search
    if not folder.has_study:
        study = open_study(settings, name=folder.study, storage=folder.storage)
        enqueue(study, earlier_points(setting, settings.warm_start, besides=besides))
    return Searcher(settings, name=folder.study, storage=folder.storage)


def _was_interrupted(folder: SearchFolder, results: Iterable[Any], *, in_population: bool) -> bool:
    """Return whether trials are still open: Tune handles the first Ctrl-C itself and returns normally."""
    if in_population:
        return any(not (each.metrics or {}).get("finished") and each.error is None for each in results)
    return count_open(folder.study, folder.storage) > 0
