"""`auto` goes through its stages once each, goes on where it stopped, and reports what it did."""

import json
import re

import pytest

import glioflow as gf
from glioflow.api import auto_state
from glioflow.api.auto import STAGES, _result, go_through, how_to_serve, say_how_to_go_on
from glioflow.api.auto_stages import BEST, FINAL, Work, _finished, _unfinished, lengthened, settle
from glioflow.api.auto_state import AutoState, begin_state, read_state
from glioflow.atomic import write_text
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import StoreFailed, UserError, option
from glioflow.planning.budget import Shares
from glioflow.progress import quiet
from glioflow.reports.auto_page import auto_page
from glioflow.runs.launch import to_yaml
from glioflow.tracking import Tracking


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_an_interrupted_auto_goes_on_with_the_stage_that_did_not_end(home, tmp_path):
    ran = []

    def ends(work: Work):
        ran.append(len(work.state.stages))
        return {"value": float("nan"), "pair": (1, 2)}

    def breaks(work: Work):
        raise KeyboardInterrupt

    state = begin_state("a", tmp_path, 1.0)
    with pytest.raises(KeyboardInterrupt):
        go_through(state, quiet, every={"first": ends, "second": ends, "third": breaks, "last": ends})
    assert ran == [0, 1]
    again = read_state("a", tmp_path, None)
    assert again.stages["second"]["pair"] == [1, 2]
    assert again.stages["second"]["value"] is None
    go_through(again, quiet, every={"first": ends, "second": ends, "third": ends, "last": ends})
    assert ran == [0, 1, 2, 3]
    go_through(read_state("a", tmp_path, None), quiet, every=dict.fromkeys(again.stages, breaks))


def test_the_time_of_earlier_processes_is_spent_and_a_resumed_one_may_get_more(home, tmp_path):
    state = begin_state("a", tmp_path, 0.5)
    state.before_s = 600
    state.note("check", {}, 1.0)
    again = read_state("a", tmp_path, None)
    assert 1199 < again.left_s <= 1200
    assert 4799 < read_state("a", tmp_path, 1.5).left_s <= 4800
    go_through(again, quiet, every={"check": STAGES["check"], "plan": lambda work: {}})
    assert 599 <= again.stages["plan"]["seconds"] < 601, "an earlier process had begun the stage"


def test_a_store_that_is_away_for_a_moment_ends_no_stage(home, tmp_path, monkeypatch):
    def away(_):
        raise StoreFailed("the object store of GLIOFLOW_HOME: away")

    state = begin_state("a", tmp_path, 1.0)
    monkeypatch.setattr(auto_state, "share", away)
    monkeypatch.setattr(auto_state, "_KEEP_S", 0.0)
    state.keep_now_and_then()
    with pytest.raises(StoreFailed):
        state.note("check", {}, 1.0)


def test_a_new_auto_does_not_go_on_with_a_search_that_is_not_its_own(home, tmp_path):
    (home / "searches" / "auto-a").mkdir(parents=True)
    with pytest.raises(UserError, match=r"the search auto-a, which exists already.*choose another name"):
        begin_state("a", tmp_path, 1.0)


def test_every_line_says_what_is_left_and_the_bar_shows_what_is_spent(home, tmp_path):
    state, lines = begin_state("a", tmp_path, 1.0), []
    state.before_s = 1800
    go_through(state, lambda *line: lines.append(line), every={"check": lambda work: work.say("case 1") or {}})
    assert [text for text, _ in lines] == ["check: begins [30 min left]", "check: case 1 [30 min left]"]
    assert all(0.49 < part < 0.51 for _, part in lines)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({}, "needs a budget"),
        ({"hours": 0}, "must be a finite number above 0"),
        ({"hours": float("inf")}, "must be a finite number above 0"),
        ({"hours": 0.01}, "must be at least 0.05"),
        ({"hours": 1, "name": "../x"}, "name must begin with a letter"),
        ({"hours": 1, "name": "n" * 76}, "name must have at most 75 characters; got 76"),
        ({"hours": 1, "name": "starter"}, "ships with GlioFlow"),
        ({"resume": "b"}, "resume must name an earlier auto"),
        ({"resume": "a", "name": "b"}, "name must be left out"),
        ({"hours": 1, "name": "a"}, "an auto named a exists already"),
        ({"hours": 1, "name": "b"}, "holds no files of a known cohort format"),
    ],
)
def test_what_cannot_be_begun_is_refused_before_anything_is_written(home, tmp_path, words, rule):
    begin_state("a", tmp_path, 1.0).keep()
    before = sorted(home.rglob("*"))
    with pytest.raises(UserError, match=rule):
        gf.auto(tmp_path, **words)
    assert sorted(home.rglob("*")) == before


def test_an_auto_goes_on_with_its_cohort_in_another_place_and_with_no_other(home, tmp_path):
    for name, seed in (("here", 0), ("other", 1)):
        synthesize_lgg(tmp_path / name, patients=3, seed=seed, size=32)
    check = {"check": STAGES["check"]}
    go_through(begin_state("a", tmp_path / "here", 1.0), quiet, every=check)
    with pytest.raises(UserError, match=r"began with the cohort .*here, and this one has other files"):
        read_state("a", tmp_path / "other", None)
    moved = (tmp_path / "here").rename(tmp_path / "there")
    go_through(read_state("a", moved, None), quiet, every=check)
    assert read_state("a", moved, None).cohort == str(moved)


def test_an_auto_whose_cohort_changed_is_checked_again_until_it_is_planned_and_refused_after(home, tmp_path):
    synthesize_lgg(tmp_path / "here", patients=3, seed=0, size=32)
    go_through(begin_state("a", tmp_path / "here", 1.0), quiet, every={"check": STAGES["check"]})
    assert list(read_state("a", tmp_path / "here", None).stages) == ["check"]
    next((tmp_path / "here").rglob("*_1.tif")).write_bytes(next((tmp_path / "here").rglob("*_2.tif")).read_bytes())
    changed = read_state("a", tmp_path / "here", None)
    assert changed.stages == {}
    changed.note("check", {"fingerprint": "of other files"}, 1.0)
    changed.note("plan", {}, 1.0)
    with pytest.raises(UserError, match=r"files of the cohort changed since auto a began.*restore them"):
        read_state("a", tmp_path / "here", None)
    changed.note("report", {}, 1.0)
    assert "report" in read_state("a", tmp_path / "here", None).stages, "it is finished"


def test_only_the_auto_itself_says_how_it_is_continued(home, tmp_path):
    def stopped(work: Work):
        work.say(f"interrupted; continue with {option('resume', 'a-run')}")
        work.say("resumed at epoch 2")
        return {}

    state, lines = begin_state("a", tmp_path, 1.0), []
    go_through(state, lambda text, part: lines.append(text), every={"train": stopped})
    assert [line.split(" [")[0] for line in lines] == ["train: begins", "train: resumed at epoch 2"]


def test_a_missing_cohort_another_cohort_and_a_damaged_state_are_named(home, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        gf.auto(tmp_path / "nowhere", hours=1)
    begin_state("a", tmp_path, 1.0).keep()
    with pytest.raises(UserError, match="began with the cohort"):
        read_state("a", home, None)
    (home / "auto" / "a" / "state.json").write_text("{}")
    with pytest.raises(UserError, match="state of the auto is damaged"):
        read_state("a", tmp_path, None)


def test_what_was_timed_before_the_budget_was_refused_is_not_timed_again(home, tmp_path, tiny):
    tracking, work = Tracking(), Work(begin_state("a", tmp_path, 1.0), quiet)
    run_id = tracking.start(tiny.name, "timed", tags={"glioflow.kind": "train"})
    work.state.since_ms = tracking.run(run_id).info.start_time
    assert (_finished(work, tiny, "train"), _unfinished(work, tiny, "train")) == (None, run_id)
    tracking.finish(run_id)
    assert (_finished(work, tiny, "train"), _unfinished(work, tiny, "train")) == (run_id, None)
    work.state.since_ms += 1
    assert _finished(work, tiny, "train") is None, "it is another auto's"


def test_it_says_how_to_go_on_unless_the_error_says_it_better(home, tmp_path):
    state, said = begin_state("a", tmp_path, 1.0), []

    def advice(error):
        said.clear()
        say_how_to_go_on(state, error, lambda text, part=None: said.append(text))
        return said

    command = f"continue with `glioflow auto {tmp_path} --resume a`"
    assert advice(KeyboardInterrupt()) == [command]
    assert advice(UserError("the cohort has an error")) == [f"once this is corrected, {command}"]
    hint = f"continue with {option('resume', 'a')} and {option('hours', 2)}"
    assert advice(UserError("hours must be at least 2", 1, hint=hint)) == [], "the command would fail the same way"


def test_a_cohort_with_errors_ends_at_its_check(home, tmp_path):
    synthesize_lgg(tmp_path / "kaggle_3m", patients=3, seed=0, size=64)
    next((tmp_path / "kaggle_3m").rglob("*_1_mask.tif")).write_bytes(b"")
    state = begin_state("a", tmp_path / "kaggle_3m", 1.0)
    with pytest.raises(UserError, match="glioflow data check"):
        go_through(state, quiet, every={"check": STAGES["check"]})
    assert state.stages == {}


def test_the_search_begins_with_the_plan_at_the_length_that_the_budget_carries(tmp_path):
    first = {"training.learning_rate": 1e-3, "training.sampling.augmentation": "light"}
    space = {"training.sampling.augmentation": {"kind": "choice", "values": ["light", "strong"]}}
    space["training.learning_rate"] = {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}
    planned = gf.Experiment.model_validate({"name": "a", "search": {"space": space, "first": [first]}})
    long = lengthened(planned, Shares(8, 300, folds=5))
    assert (long.training.epochs, long.training.steps_per_epoch) == (8, 300)
    assert long.search.first == ({**first, "training.sampling.augmentation": "strong"},)
    assert long.training.sampling.augmentation == "strong"


@pytest.mark.parametrize("keep", ["last", "best"])
def test_validation_patients_are_learned_from_unless_something_is_chosen_on_them(home, tmp_path, keep):
    work = Work(begin_state("a", tmp_path, 1.0), quiet)
    best = {"name": "a", "training": {"keep": keep}, "postprocess": {"choose": False}}
    write_text(work.folder / BEST, to_yaml(gf.Experiment.model_validate(best)))
    measured = {"costs": {"step_s": 1.0, "other_s": 10.0}, "folds": 4, "hold_out_test": True}
    work.state.stages |= {"plan": {"slots": 2}, "measure": {**measured, "shares": vars(Shares(1, 50, folds=4))}}
    work.state.stages |= {"search": {"skipped": "the budget is too small for a search"}}
    settle(work)
    assert work.experiment(FINAL).training.final is (keep == "last")


OUTCOMES = {
    "check": {"seconds": 3.0},
    "plan": {"seconds": 9.0, "choices": [{"key": "loss.name", "value": "dice_bce", "reason": "overlap <and> pixels"}]},
    "search": {
        "seconds": 600.0,
        "cost": {"cost/cpu_hours": 0.3},
        "trials": [
            {"params": {"loss.name": "dice_bce"}, "planned": True, "status": "FINISHED", "dice": 0.7, "seconds": 100.0},
            {"params": {"loss.name": "focal"}, "planned": False, "status": "FINISHED", "dice": 0.75, "seconds": 110.0},
            {"params": {"loss.name": "focal"}, "planned": False, "status": "KILLED", "dice": 0.9, "seconds": 20.0},
        ],
    },
    "crossval": {
        "seconds": 900.0,
        "folds": 5,
        "hold_out_test": True,
        "num_patients": 52,
        "dice_mean": 0.781,
        "dice_median": 0.85,
        "dice_ci95": [0.72, 0.83],
        "baselines": {"all_empty": {"dice_mean": 0.0, "dice_median": 0.0}},
    },
    "train": {"seconds": 200.0, "metrics": {"test/dice_mean": 0.79, "test/dice_ci95_low": 0.7}},
    "survival": {"seconds": 0.1, "skipped": "the cohort has no clinical table"},
    "promote": {
        "seconds": 20.0,
        "decision": "insufficient-evidence",
        "reasons": [{"rule": "min_patients", "value": 4, "limit": 10, "passed": False}],
    },
}


def test_the_report_says_what_won_and_by_how_much_beside_baselines_intervals_and_cost():
    page = auto_page("lgg", OUTCOMES, hours=0.5, spent_s=1732)
    for text in ("0.781", "0.720 to 0.830", "an empty mask", "0.050 in mean Dice above the plan", "stopped early"):
        assert text in page
    for text in ("29 min of 30 min", "insufficient-evidence", "overlap &lt;and&gt; pixels", "no clinical table"):
        assert text in page
    unsearched = {**OUTCOMES, "search": {"seconds": 0.0, "skipped": "the budget is too small for a search"}}
    assert "The plan alone: the budget is too small for a search." in auto_page("lgg", unsearched, hours=0.5, spent_s=1)


def test_a_plan_that_was_stopped_is_not_compared_with_the_winner():
    trials = [{**trial, "planned": k == 2} for k, trial in enumerate(OUTCOMES["search"]["trials"])]
    page = auto_page("lgg", {**OUTCOMES, "search": {**OUTCOMES["search"], "trials": trials}}, hours=0.5, spent_s=1)
    assert "The plan itself did not finish" in page
    assert "above the plan" not in page
    assert "that of its last epoch" in page


def test_the_plan_that_no_trial_beat_is_not_said_to_be_beaten():
    search = {**OUTCOMES["search"], "trials": OUTCOMES["search"]["trials"][:1]}
    assert "The plan itself won." in auto_page("lgg", {**OUTCOMES, "search": search}, hours=0.5, spent_s=1)


def test_the_report_of_an_auto_is_in_its_home_also_where_that_was_moved(home, tmp_path):
    done = {"register": {"version": 1}, "promote": {"decision": "promoted"}, "train": {"metrics": {}}}
    done["crossval"] = {"dice_mean": 0.5, "dice_median": 0.5, "dice_ci95": [0.4, 0.6], "baselines": {}}
    done["report"] = {"path": str(tmp_path / "before" / "report.html")}
    assert _result(AutoState(home / "auto" / "a", "cohort", 1.0, stages=done)).report == home / "auto/a/report.html"


def test_only_a_promoted_model_is_served():
    assert "glioflow serve --name lgg" in how_to_serve("lgg", "promoted")
    assert "lgg@challenger" in how_to_serve("lgg", "rejected")


@pytest.mark.slow
@pytest.mark.ray
def test_a_budget_of_minutes_ends_with_a_registered_model_and_a_report(home, tmp_path):
    cohort = tmp_path / "kaggle_3m"
    synthesize_lgg(cohort, patients=10, seed=0, size=64, slices=(10, 14))
    try:
        done = gf.auto(cohort, hours=0.15, name="small", say=quiet)
    except UserError as error:  # a slow machine says how much it needs
        needed = re.search(r"hours must be at least ([\d.]+)", str(error))
        if needed is None:
            raise
        done = gf.auto(cohort, resume="small", hours=float(needed[1]) + 0.05, say=quiet)
    assert list(done.stages) == list(STAGES)
    assert done.version == 1
    assert done.stages["search"]["skipped"] == "the validation patients are too few to choose on"
    assert done.stages["crossval"]["num_patients"] == 10, "the test patients are too few to be left out"
    assert done.dice_ci95[0] <= done.dice_mean <= done.dice_ci95[1]
    assert done.report.read_text().count("data:image/png") >= 3
    assert gf.load("small@challenger").predict(cohort / sorted(path.name for path in cohort.iterdir())[0]).json["tumor"]
    again = gf.auto(cohort, resume="small", say=quiet)
    assert again.stages == done.stages
    assert json.loads((home / "auto" / "small" / "state.json").read_text())["stages"].keys() == STAGES.keys()
