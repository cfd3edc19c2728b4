"""Changes allowed before a search continues: more trials, narrower ranges; others would mix two searches."""

from typing import Any

from glioflow.config import Experiment, load_recorded
from glioflow.config.search import Choice, Parameter
from glioflow.errors import UserError, option
from glioflow.runs.launch import EXPERIMENT, Setting
from glioflow.runs.resuming import check_source, resumed_experiment, resumed_setting
from glioflow.runs.search.survival_objective import TABLES, Tables
from glioflow.runs.source import Source
from glioflow.tracking import Tracking

# Keys that may differ when a search continues: its extent, and what is read only at its beginning.
_FREE = ("name", "trials", "budget_hours", "concurrent", "disk_gb", "first", "warm_start")
FREE = tuple(f"search.{name}" for name in _FREE)
# Samplers that can use points drawn from wider ranges.
_TAKE_NARROWER = ("tpe", "random")


def resumed_search(setting: Setting, run_id: str) -> Setting:
    """Return the setting with which a search continues: the current one, with the split that its run recorded.

    Raises:
        UserError: If the cohort, the split, or more of the experiment changed than may; says what.
    """
    besides = _free_keys(setting.experiment, setting.tracking, run_id)
    return resumed_setting(setting, run_id, besides=besides, hint=_anew())


def check_begun(experiment: Experiment, source: Source, tracking: Tracking, run_id: str) -> None:
    """Refuse what a search cannot go on with, before Ray starts; raises `UserError` as `resumed_search`."""
    besides = _free_keys(experiment, tracking, run_id)
    resumed_experiment(experiment, tracking, run_id, besides=besides, hint=_anew())
    check_source(experiment, source, tracking, run_id, hint=_anew())


def _free_keys(experiment: Experiment, tracking: Tracking, run_id: str) -> tuple[str, ...]:
    recorded = load_recorded(tracking.download(f"runs:/{run_id}/{EXPERIMENT}"))
    return (*FREE, *narrowed_ranges(recorded, experiment))


def check_tables(run: Any, tables: Tables | None) -> None:
    """Refuse to rank trials of one search by two states of its clinical tables.

    Args:
        run: MLflow's run of the search as it began; earlier versions recorded no tables.
        tables: As they are now; None where the search needs none.

    Raises:
        UserError: If they changed.
    """
    if tables is not None and run.data.tags.get(TABLES, tables.digest) != tables.digest:
        begun = "the clinical tables that the search began with"
        rule = f"{option('resume')} ranks all trials by {begun}, and these have changed"
        shown = " and ".join(str(path) for path in (tables.clinical, tables.outcomes) if path is not None)
        raise UserError(rule, shown, hint=_anew())


def narrowed_ranges(before: Experiment, now: Experiment) -> list[str]:
    """Return the keys by which `now` has narrower ranges than `before`, where its sampler can continue with them."""
    if now.search.sampler not in _TAKE_NARROWER or now.search.scheduler == "pbt":
        return []
    was, is_ = before.search.space, now.search.space
    keys = [key for key in is_ if key in was and _is_within(is_[key], was[key])]
    return [f"search.space.{key}.{end}" for key in keys for end in ("low", "high")]


def _is_within(now: Parameter, before: Parameter) -> bool:
    if isinstance(now, Choice) or isinstance(before, Choice):
        return False
    return before.low <= now.low and now.high <= before.high


def _anew() -> str:
    return (
        "undo the changes, or begin a new search that tries the best of this one first: leave out "
        f"{option('resume')} and add -o search.name=NEW_NAME -o search.warm_start=3"
    )
