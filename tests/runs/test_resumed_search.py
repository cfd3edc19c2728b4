"""What a search goes on with, what it refuses and why, and how a new one begins with the best of an earlier one."""

import json
import os

import pytest

from glioflow.cluster.lease import holding
from glioflow.config import override
from glioflow.data.splits import make_split
from glioflow.errors import UserError
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.search.earlier import earlier_points
from glioflow.runs.search.resumed import check_tables, resumed_search
from glioflow.runs.search.run import search
from glioflow.runs.search.searcher import Searcher
from glioflow.runs.search.survival_objective import TABLES, Tables
from glioflow.tracking.run import begin_run, resume_run

RATE = {"kind": "float", "low": 1e-4, "high": 1e-2}
ARCHITECTURE = {"kind": "choice", "values": ["unet", "buda-unet"]}
SEARCH = {"name": "s", "space": {"training.learning_rate": RATE, "model.architecture": ARCHITECTURE}}


@pytest.fixture
def begun(tiny, prepared, tracking):
    """Return the setting of a search that was begun, and its run."""
    experiment = override(tiny, {"model.options": {}, "search": SEARCH})
    setting = Setting(experiment, prepared, make_split(prepared.records, experiment.split), tracking)
    return setting, begin_run(tracking, opening_of(setting, "search", "s", tags={"search": "s", "kind": "search"}))


def with_changes(setting, changes):
    return Setting(override(setting.experiment, changes), setting.cohort, setting.split, setting.tracking)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training.epochs": 5}, "training.epochs is 5, was 2"),
        ({"search.space": {"training.learning_rate": RATE}}, "search.space.model.architecture.kind"),
        (
            {"search.space": {**SEARCH["space"], "model.architecture": {**ARCHITECTURE, "values": ["unet", "fpn"]}}},
            r'model.architecture.values is \["unet", "fpn"\], was \["unet", "buda-unet"\]',
        ),
        (
            {"search.space": {**SEARCH["space"], "training.learning_rate": {**RATE, "high": 1e-1}}},
            "learning_rate.high is 0.1, was 0.01",
        ),
        ({"search.sampler": "random"}, 'search.sampler is "random", was "tpe"'),
        ({"search.seed": 3}, "search.seed is 3, was 0"),
    ],
)
def test_what_would_mix_two_searches_is_refused_with_what_differs_and_how_to_begin_anew(begun, changes, expected):
    setting, run_id = begun
    with pytest.raises(UserError, match=rf"{expected}.*-o search.name=NEW_NAME -o search.warm_start=3"):
        resumed_search(with_changes(setting, changes), run_id)


@pytest.mark.parametrize(
    "changes",
    [
        {"search.trials": 99, "search.budget_hours": 1, "search.concurrent": 2},
        {"search.space": {**SEARCH["space"], "training.learning_rate": {**RATE, "low": 1e-3, "high": 5e-3}}},
    ],
)
def test_more_trials_and_narrower_ranges_go_on(begun, changes):
    setting, run_id = begun
    changed = with_changes(setting, changes)
    assert resumed_search(changed, run_id).experiment == changed.experiment


def test_samplers_that_could_not_use_their_points_any_more_take_no_narrower_range(tiny, prepared, tracking):
    space = {"training.learning_rate": RATE, "training.weight_decay": {"kind": "float", "low": 0.0, "high": 1e-2}}
    settings = {"sampler": "cmaes", "scheduler": "none", "space": space}
    setting = Setting(
        override(tiny, {"search": settings}), prepared, make_split(prepared.records, tiny.split), tracking
    )
    run_id = begin_run(tracking, opening_of(setting, "search", "s"))
    narrow = {"search.space": {**space, "training.learning_rate": {**RATE, "low": 1e-3}}}
    with pytest.raises(UserError, match=r"learning_rate.low is 0\.001, was 0\.0001"):
        resumed_search(with_changes(setting, narrow), run_id)


def test_a_search_draws_from_its_narrower_range_and_ends_what_was_open_as_it_was(begun, tmp_path):
    setting, _ = begun
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    first = Searcher(setting.experiment.search, name="s", storage=storage)
    drawn = [first.suggest(f"t{k}") for k in range(3)]
    narrow = {"search.space": {**SEARCH["space"], "training.learning_rate": {**RATE, "low": 9e-3}}}
    again = Searcher(with_changes(setting, narrow).experiment.search, name="s", storage=storage)
    assert again.plan(12) == 12
    points = [again.suggest(f"u{k}") for k in range(12)]
    assert points[:3] == drawn
    assert all(9e-3 <= point["training.learning_rate"] <= 1e-2 for point in points[3:])


def test_a_changed_clinical_table_would_rank_the_trials_of_one_search_by_two_measures(begun, tmp_path):
    setting, _ = begun
    tables = Tables(clinical=tmp_path / "data.csv")
    tables.clinical.write_text("Patient,death01\na,1\n")
    opening = opening_of(setting, "search", "s", tags={TABLES: tables.digest})
    run = setting.tracking.run(begin_run(setting.tracking, opening))
    check_tables(run, tables)
    tables.clinical.write_text("Patient,death01\na,0\n")
    with pytest.raises(UserError, match=r"have changed; got .*data\.csv.*NEW_NAME"):
        check_tables(run, tables)


def test_a_search_that_another_process_runs_is_refused_and_begins_nothing(begun, home, lgg):
    experiment = begun[0].experiment
    folder = home / "searches" / "s"
    with holding(folder, "search s"), pytest.raises(UserError, match=f"search s is run by process {os.getpid()} on "):
        search(experiment, lgg, resume="s")
    folder.rmdir()


def test_a_training_that_another_process_runs_is_refused(begun, home):
    tracking, run_id = begun[0].tracking, begun[1]
    with resume_run(tracking, run_id), pytest.raises(UserError, match=f"run {run_id} is run by process"):
        resume_run(tracking, run_id).__enter__()
    assert tracking.run(run_id).info.status == "FINISHED"


def test_a_new_search_of_another_space_begins_with_the_best_of_earlier_ones(begun):
    setting, parent = begun
    tracking = setting.tracking
    for dice, rate, architecture in ((0.5, 1e-3, "unet"), (0.9, 2e-3, "buda-unet"), (0.7, 3e-3, "unet")):
        point = {"training.learning_rate": rate, "model.architecture": architecture}
        tags = {f"param.{key}": json.dumps(value) for key, value in point.items()}
        trial = tracking.start("tiny", "trial", tags=tags, parent=parent)
        tracking.log_metrics(trial, {"val/dice_mean": dice})
        tracking.finish(trial)
    space = {"training.learning_rate": RATE, "model.architecture": {**ARCHITECTURE, "values": ["unet", "fpn"]}}
    other = with_changes(setting, {"search.space": space})
    points = earlier_points(other, 2, besides="the new search's run")
    assert points == [
        {"training.learning_rate": 2e-3},
        {"training.learning_rate": 3e-3, "model.architecture": "unet"},
    ]
    assert earlier_points(other, 2, besides=parent) == [], "a search does not begin with itself"
