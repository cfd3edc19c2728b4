"""What people see of a search while it runs: lines, the run in MLflow, the list of searches."""

import json
import threading
import time

import pytest
from typer.testing import CliRunner

from glioflow.cli import app
from glioflow.cluster.lease import holding
from glioflow.config import override
from glioflow.data.splits import make_split
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.search import parent_run as module
from glioflow.runs.search.board import Board, Row
from glioflow.runs.search.listing import list_searches
from glioflow.runs.search.observer import chosen_in
from glioflow.runs.search.parent_run import ParentRun, booking, line
from glioflow.runs.search.searcher import Searcher, objective_value
from glioflow.runs.search.tuner import SearchFolder
from glioflow.tracking.run import REASON, Run, begin_run, spool_of

SPACE = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}}
SEARCH = {"name": "s", "space": SPACE, "objectives": ["dice", "parameters"], "sampler": "random", "scheduler": "none"}


@pytest.fixture
def parent(tiny, prepared, tracking, tmp_path):
    """Return the run of a search with three finished trials, in MLflow and in its study, and one that failed."""
    setting = Setting(override(tiny, {"search": SEARCH}), prepared, make_split(prepared.records, tiny.split), tracking)
    run_id = begin_run(tracking, opening_of(setting, "search", "s"))
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    searcher = Searcher(setting.experiment.search, name="s", storage=storage)
    board = Board(5, 2)
    for k, dice in enumerate((0.5, 0.7, 0.6)):
        point = searcher.suggest(f"t{k}")
        searcher.on_trial_complete(
            f"t{k}", {"val_dice": dice, "epoch": 2, "finished": True, "parameters": 10.0 + 5 * dice}
        )
        tags = {"trial_id": str(k), "param.training.learning_rate": json.dumps(point["training.learning_rate"])}
        trial = tracking.start("tiny", f"trial-{k}", tags=tags, parent=run_id)
        tracking.log_metrics(trial, {"val/dice_mean": dice})
        tracking.finish(trial)
        board.rows[str(k)] = Row(str(k), "", 2, "finished", 2, dice, dice)
    failed = tracking.start("tiny", "trial-3", tags={"trial_id": "3", REASON: "loss is not finite"}, parent=run_id)
    tracking.finish(failed, "FAILED")
    board.rows["3"] = Row("3", "", 2, "failed")
    board.rows["4"] = Row("4", "", 2)
    board.best = 0.7
    made = ParentRun(setting, Run(tracking.uri, run_id, spool_of(run_id)), ("s", storage), "http://mlflow/#/x")
    made.see(board)
    return made


def test_a_line_says_how_far_a_search_is(parent):
    assert parent.line().startswith("1 running; 4 of 5 trials ended, 1 failed; best val/dice_mean 0.700; ")
    assert parent.line().endswith("left; http://mlflow/#/x")
    parent.link = "mlflow ui --backend-store-uri sqlite:///x.db, experiment tiny"
    assert parent.line().endswith(" left"), "a command is said at the start and not every half minute"


def test_a_search_whose_first_trial_waits_says_what_for(tiny):
    training = {"num_workers": 2, "gpus_per_worker": 1, "cpus_per_worker": 0.5}
    experiment = override(tiny, {f"training.{key}": value for key, value in training.items()})
    assert line(Board(5, 2), booking(experiment)) == "waiting for 1 CPU and 2 GPUs; 0 of 5 trials ended; no best yet"


@pytest.mark.parametrize(("budget_s", "left"), [(None, 300), (3600, 300), (130, 70), (10, 40)])
def test_the_time_left_is_at_most_what_the_budget_allows(budget_s, left):
    rows = {str(k): Row(str(k), "", 2, state="finished", seconds=40) for k in range(2)}
    board = Board(8, 2, rows=rows, budget_s=budget_s, began=time.monotonic() - 100)
    assert board.seconds_left == pytest.approx(left, abs=1)


def test_a_search_that_ended_has_nothing_running_and_no_time_left():
    rows = {str(k): Row(str(k), "", 2, state="finished") for k in range(2)}
    assert line(Board(2, 2, best=0.7, rows=rows), "1 CPU") == "2 of 2 trials ended; best val/dice_mean 0.700"


def test_a_trial_is_told_by_the_ends_of_its_keys_where_they_tell_enough():
    config = {"loss.name": "dice", "training.learning_rate": 0.001, "training.seed": 1, "split.seed": 2}
    assert chosen_in(config) == "loss.name dice, learning_rate 0.001, training.seed 1, split.seed 2"


def test_lines_come_at_the_start_and_now_and_then_where_there_is_no_table(parent, monkeypatch):
    monkeypatch.setattr(module, "LINE_S", 0.01)
    heard, enough = [], threading.Event()

    def say(text, part=None):
        heard.append(text)
        if len(heard) == 3:
            enough.set()

    with parent.followed(say):
        assert enough.wait(60)
    with parent.followed(None):
        pass
    assert all(text.startswith("1 running; 4 of 5 trials ended") for text in heard)


def test_the_run_of_a_search_shows_progress_the_best_the_front_the_failures_and_figures(parent, tracking):
    parent.update()
    run = tracking.run(parent.run.run_id)
    assert {key: run.data.metrics[key] for key in run.data.metrics if key.startswith("search/")} == {
        **{"search/num_ended": 4.0, "search/num_running": 1.0, "search/num_failed": 1.0, "search/best_dice": 0.7}
    }
    note = run.data.tags["mlflow.note.content"]
    assert note.index("| [1](#/experiments/") < note.index("| [2](#/experiments/") < note.index("| [0](#/experiments/")
    assert "| 0.700 |" in note
    assert "Pareto front:\n\n| trial | val/dice_mean | parameters |" in note
    assert "- 3: loss is not finite" in note
    page = tracking.download(f"runs:/{run.info.run_id}/search.html").read_text()
    for figure in ("Optimization History", "Parallel Coordinate", "Pareto-front"):
        assert f"{figure} Plot" in page


def test_an_update_costs_nothing_where_nothing_happened_and_fails_nothing_where_the_store_is_away(parent, monkeypatch):
    parent.update()
    monkeypatch.setattr(parent.setting.tracking, "children", lambda *_: 1 / 0)
    parent.update()
    parent.board.rows["4"].state = "finished"
    with parent.followed(None):
        pass


def test_searches_are_listed_with_their_state_and_best(parent, tracking, home):
    assert list_searches() == []
    SearchFolder("s", home / "searches" / "s").note_run(parent.run.run_id)
    parent.update()
    (found,) = list_searches()
    assert (found.name, found.state, found.ended, found.best) == ("s", "interrupted", 4, 0.7)
    with holding(home / "searches" / "s", "search s"):
        assert [each.state for each in list_searches()] == ["running"]
    tracking.finish(parent.run.run_id)
    assert [each.state for each in list_searches()] == ["finished"]
    (home / "searches" / "begun").mkdir()
    assert [(each.name, each.state) for each in list_searches()] == [("begun", "interrupted"), ("s", "finished")]
    done = CliRunner().invoke(app, ["searches", "--json"])
    assert [each["name"] for each in json.loads(done.stdout)["searches"]] == ["begun", "s"]


def test_the_objective_of_a_trial_is_what_its_last_report_says():
    assert objective_value({"val_dice": 0.5, "parameters": 3}, "parameters") == 3.0


def test_a_trial_that_failed_once_and_finished_after_all_is_no_failed_one(parent):
    tracking = parent.setting.tracking
    trials = tracking.children("tiny", parent.run.run_id)
    again = next(run.info.run_id for run in trials if run.data.tags["trial_id"] == "1")
    tracking.set_tags(again, {REASON: "the disk was full"})
    described = parent.describe(tracking.children("tiny", parent.run.run_id))
    assert "- 3: loss is not finite" in described
    assert "the disk was full" not in described
