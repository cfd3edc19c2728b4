"""The searcher on a real Optuna study, and the lines that tell people of its trials."""

import io
import pickle
import uuid
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from rich.console import Console

from glioflow.cli.search_table import draw_table
from glioflow.config import Experiment
from glioflow.config.search import SearchSettings
from glioflow.runs.search.board import Board
from glioflow.runs.search.observer import LISTENERS, Announcer, Listener
from glioflow.runs.search.schedulers import build_scheduler, replay
from glioflow.runs.search.searcher import METRIC, NUMBER, Searcher, chosen_point, suggest_point

SPACE = {
    "model.architecture": {"kind": "choice", "values": ["unet", "buda-unet"]},
    "model.encoder": {"kind": "choice", "values": ["a", "b"], "when": {"model.architecture": ["unet"]}},
    "training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "training.epochs": {"kind": "int", "low": 2, "high": 5},
}


def settings(**changes):
    return SearchSettings.model_validate({"space": SPACE, **changes})


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture
def searcher(storage):
    return Searcher(settings(), name="study", storage=storage)


def result(epoch, value, *, finished=False):
    return {METRIC: value, "epoch": epoch, "finished": finished}


def state(searcher, number=0):
    return searcher.study.trials[number].state


def test_conditional_parameters_exist_only_under_their_condition():
    for architecture in ("unet", "buda-unet"):
        trial = optuna.trial.FixedTrial(
            {
                "model.architecture": architecture,
                "model.encoder": "a",
                "training.learning_rate": 1e-3,
                "training.epochs": 3,
            }
        )
        point = suggest_point(trial, settings())
        assert ("model.encoder" in point) == (architecture == "unet")
        assert {"training.learning_rate", "training.epochs"} <= set(point)


def test_choices_of_lists_come_back_as_lists(storage):
    space = {"training.sampling.patch": {"kind": "choice", "values": [[8, 32, 32], [16, 32, 32]]}}
    made = Searcher(settings(space=space), name="study", storage=storage)
    assert made.suggest("t0")["training.sampling.patch"] in ((8, 32, 32), (16, 32, 32), [8, 32, 32], [16, 32, 32])


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_suggestions_stay_in_the_space_and_a_seed_repeats_them(tmp_path, sampler):
    drawn = []
    for k in range(2):
        made = Searcher(settings(sampler=sampler, seed=3), name="s", storage=f"sqlite:///{tmp_path / f'{k}.db'}")
        drawn.append([made.suggest(f"t{n}") for n in range(6)])
    assert drawn[0] == drawn[1]
    for point in drawn[0]:
        assert 1e-4 <= point["training.learning_rate"] <= 1e-2
        assert point["training.epochs"] in (2, 3, 4, 5)
        assert ("model.encoder" in point) == (point["model.architecture"] == "unet")


def test_the_first_points_are_tried_first(storage):
    first = {"model.architecture": "buda-unet", "training.learning_rate": 2e-3, "training.epochs": 4}
    made = Searcher(settings(first=[first]), name="study", storage=storage)
    assert made.suggest("t0") == {**first, NUMBER: 0}


def test_a_finished_trial_is_complete_with_its_last_value(searcher):
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result(1, 0.3))
    searcher.on_trial_result("t0", result(2, 0.5, finished=True))
    searcher.on_trial_complete("t0", result(2, 0.5, finished=True))
    assert state(searcher) == optuna.trial.TrialState.COMPLETE
    assert searcher.study.trials[0].value == 0.5
    assert searcher.study.trials[0].intermediate_values == {1: 0.3, 2: 0.5}


def test_a_stopped_trial_is_pruned_and_never_the_best(searcher):
    for number, (value, finished) in enumerate([(0.9, False), (0.4, True)]):
        searcher.suggest(f"t{number}")
        searcher.on_trial_result(f"t{number}", result(1, value, finished=finished))
        searcher.on_trial_complete(f"t{number}", result(1, value, finished=finished))
    assert state(searcher, 0) == optuna.trial.TrialState.PRUNED
    assert searcher.study.trials[0].value == 0.9  # what it reported until then still teaches the sampler
    assert searcher.study.best_trial.number == 1


def test_a_failed_trial_is_failed(searcher):
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result(1, 0.9))
    searcher.on_trial_complete("t0", None, error=True)
    assert state(searcher) == optuna.trial.TrialState.FAIL


def test_an_end_that_is_told_twice_counts_once(searcher):
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result(1, 0.9))
    for _ in range(2):
        searcher.on_trial_complete("t0", result(1, 0.9))
    searcher.on_trial_result("t0", result(2, 0.1))
    assert len(searcher.study.trials) == 1
    assert state(searcher) == optuna.trial.TrialState.PRUNED


def test_a_new_searcher_hands_out_what_the_last_one_left_open_and_nothing_twice(searcher, storage):
    begun = [searcher.suggest(f"t{k}") for k in range(3)]
    searcher.on_trial_result("t0", result(1, 0.5))
    searcher.on_trial_complete("t0", result(2, 0.6, finished=True))
    searcher.on_trial_result("t1", result(1, 0.4))  # and then the process was killed
    again = Searcher(settings(), name="study", storage=storage)
    assert again.plan(4) == 3
    assert [again.suggest("u1"), again.suggest("u2")] == begun[1:]
    assert again.suggest("u3")[NUMBER] == 3
    assert again.suggest("u4") == "FINISHED"
    for name in ("u1", "u2", "u3"):
        again.on_trial_result(name, result(1, 0.4))
        again.on_trial_complete(name, result(2, 0.7, finished=True))
    assert [trial.state.name for trial in again.study.trials] == ["COMPLETE"] * 4


def test_a_searcher_travels_as_what_opens_its_study(searcher):
    searcher.suggest("t0")
    assert pickle.loads(pickle.dumps(searcher)).study.study_name == "study"


def test_a_trial_that_says_why_it_failed_is_failed(searcher):
    searcher.suggest("t0")
    searcher.on_trial_complete("t0", {**result(0, 0.0, finished=True), "failed": "loss is not finite"})
    assert state(searcher) == optuna.trial.TrialState.FAIL


def test_a_full_disk_leaves_its_trial_open_and_begins_no_other(searcher):
    searcher.suggest("t0")
    searcher.on_trial_complete("t0", {**result(0, 0.0, finished=True), "failed": "OSError: disk full", "open": True})
    assert state(searcher) == optuna.trial.TrialState.RUNNING
    assert searcher.trouble == "OSError: disk full"
    assert searcher.suggest("t1") == "FINISHED"


def test_a_late_report_of_an_epoch_changes_no_end(searcher):
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result(3, 0.6, finished=True))
    searcher.on_trial_complete("t0", result(2, 0.4))
    assert state(searcher) == optuna.trial.TrialState.COMPLETE
    assert searcher.study.trials[0].value == 0.6


def test_a_grid_tries_every_point_once_and_ends(storage):
    space = {key: SPACE[key] for key in ("model.architecture", "model.encoder")}
    made = Searcher(settings(space=space, sampler="grid"), name="study", storage=storage)
    assert made.plan(100) == 3
    points = [made.suggest(f"t{k}") for k in range(3)]
    assert {tuple(sorted(p.items())[:-1]) for p in points} == {
        (("model.architecture", "unet"), ("model.encoder", "a")),
        (("model.architecture", "unet"), ("model.encoder", "b")),
        (("model.architecture", "buda-unet"),),
    }
    assert made.suggest("t3") == "FINISHED"


def test_several_objectives_keep_a_front(storage):
    made = Searcher(settings(objectives=["dice", "parameters"]), name="study", storage=storage)
    for name, dice, size in (("t0", 0.8, 100), ("t1", 0.7, 10), ("t2", 0.6, 50)):
        made.suggest(name)
        made.on_trial_result(name, result(1, 0.1))
        made.on_trial_complete(name, {**result(2, dice, finished=True), "parameters": size, "hd95": 3.0})
    made.suggest("t3")
    made.on_trial_complete("t3", result(1, 0.9))
    assert [trial.values for trial in made.study.best_trials] == [[0.8, 100.0], [0.7, 10.0]]
    assert state(made, 3) == optuna.trial.TrialState.PRUNED


def test_after_its_budget_a_search_begins_nothing_new_but_ends_what_is_open(searcher, storage):
    begun = searcher.suggest("t0")
    again = Searcher(settings(budget_hours=1e-9), name="study", storage=storage)
    again.plan(5)
    assert again.suggest("u0") == begun
    assert again.suggest("u1") == "FINISHED"


def end(searcher, name, value):
    searcher.on_trial_complete(name, result(2, value, finished=True))


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes", "nsga2"])
def test_a_search_in_three_processes_draws_what_one_in_a_single_process_draws(tmp_path, sampler):
    space = {key: SPACE[key] for key in ("training.learning_rate", "training.epochs")}
    values = settings(space=space, sampler=sampler, scheduler="none")

    def draw(name, *shares):
        points = []
        for share in shares:
            made = Searcher(values, name="s", storage=f"sqlite:///{tmp_path / name}.db")
            for k in range(share):
                points.append(made.suggest(f"t{k}"))
                end(made, f"t{k}", 1 / (1 + len(points)))
        return points

    at_once, resumed = draw("whole", 9), draw("parts", 3, 1, 5)
    assert resumed == at_once
    rates = [point["training.learning_rate"] for point in resumed]
    if sampler != "nsga2":  # whose children have values of their parents
        assert len(set(rates)) == 9, "a resumed search repeats points"


def test_numbers_best_and_totals_go_on_after_a_resume(searcher, storage):
    for k, value in enumerate((0.7, 0.5)):
        searcher.suggest(f"t{k}")
        end(searcher, f"t{k}", value)
    again = Searcher(settings(), name="study", storage=storage)
    many, (ended, best) = again.plan(3), again.reached()
    assert (many, ended, best) == (1, 2, 0.7)
    announcer, heard, _ = announcing(ended + many, before=ended, best=best)
    announcer.on_trial_complete(0, [], trial("c", **result(4, 0.6, finished=True)))
    assert heard[0][0].startswith("trial 3 of 3: finished with val/dice_mean 0.600, best 0.700")


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_a_scheduler_lets_the_longest_trial_that_the_space_offers_run_to_its_end(scheduler):
    experiment = Experiment(search=settings(scheduler=scheduler), training={"epochs": 2})
    made = build_scheduler(experiment)
    longest = Poor()
    made.on_trial_add(None, longest)
    decisions = [made.on_trial_result(NoOthers(), longest, result(epoch, 0.5)) for epoch in range(1, 6)]
    assert decisions == ["CONTINUE"] * 5, "the space offers 5 epochs, the file has 2"


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_resumed_scheduler_knows_what_earlier_trials_reached(scheduler):
    values = settings(scheduler=scheduler, reduction=2)
    study = optuna.create_study(direction="maximize")
    study.add_trials([optuna.create_trial(value=0.8, intermediate_values={1: 0.8, 2: 0.8}) for _ in range(20)])
    experiment = Experiment(search=values, training={"epochs": 3})
    np.random.seed(0)  # Ray deals brackets by it
    fresh, resumed = build_scheduler(experiment), build_scheduler(experiment)
    replay(resumed, study)
    decisions = {}
    for name, scheduler_ in (("fresh", fresh), ("resumed", resumed)):
        trial = Poor()
        scheduler_.on_trial_add(None, trial)
        decisions[name] = [scheduler_.on_trial_result(NoOthers(), trial, result(epoch, 0.1)) for epoch in (2,)]
    assert "STOP" not in decisions["fresh"]
    assert "STOP" in decisions["resumed"]


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_a_continued_trial_is_not_judged_again_at_the_rungs_that_it_passed(scheduler):
    study = optuna.create_study(direction="maximize")
    running = optuna.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values={1: 0.3})
    study.add_trials([running, *[optuna.create_trial(value=0.8, intermediate_values={1: 0.8}) for _ in range(20)]])
    values = settings(scheduler=scheduler, reduction=3)
    resumed = build_scheduler(Experiment(search=values, training={"epochs": 3}))
    replay(resumed, study)
    continued = Poor({NUMBER: 0})
    resumed.on_trial_add(None, continued)
    assert resumed.on_trial_result(NoOthers(), continued, result(2, 0.3)) == "CONTINUE"
    places = [name for bracket in resumed._brackets for _, rung in bracket._rungs for name in rung]
    assert "poor" not in places, "one trial has one place on a rung"


def test_a_resumed_hyperband_puts_each_trial_into_the_bracket_that_it_had():
    experiment = Experiment(search=settings(scheduler="hyperband", reduction=2), training={"epochs": 3})
    runs = []
    for chance in (1, 2):
        np.random.seed(chance)  # Ray draws brackets by it
        scheduler = build_scheduler(experiment)
        for number in range(30):
            scheduler.on_trial_add(None, Poor({NUMBER: number}))
        reports = [(number, result(1, 1 - number / 100)) for number in range(30)]
        runs.append([scheduler.on_trial_result(NoOthers(), Poor({NUMBER: each}), told) for each, told in reports])
    assert runs[0] == runs[1]
    assert {"CONTINUE", "STOP"} == set(runs[0]), "by bracket"


def test_the_median_rule_compares_a_continued_trial_with_others_and_never_with_its_own_past():
    study = optuna.create_study(direction="maximize")
    running = optuna.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values={1: 0.5, 2: 0.5})
    others = [
        optuna.create_trial(value=value, intermediate_values={1: value, 2: value, 3: value}) for value in (0.1, 0.9)
    ]
    study.add_trials([running, *others])
    resumed = build_scheduler(Experiment(search=settings(scheduler="median"), training={"epochs": 3}))
    replay(resumed, study)
    continued = Poor({NUMBER: 0})
    resumed.on_trial_add(None, continued)
    # The rule needs three other trials, and there are two.
    assert resumed.on_trial_result(NoOthers(), continued, result(3, 0.2)) == "CONTINUE"
    another = Poor({NUMBER: 7})
    resumed.on_trial_add(None, another)
    assert resumed.on_trial_result(NoOthers(), another, result(3, 0.3)) == "STOP", "the median of .1, .4 and .9 is .4"


def test_a_finalists_parameters_are_the_values_of_the_space_also_where_optuna_stores_texts():
    widths = {"kind": "choice", "values": [[8, 16], [16, 32]]}
    values = settings(space={"model.options.channels": widths, "loss.name": {"kind": "choice", "values": ["dice"]}})
    study = optuna.create_study()
    point = suggest_point(study.ask(), values)
    assert chosen_point(study.trials[0].params, values) == point
    assert point["model.options.channels"] in ([8, 16], [16, 32])


class Poor:
    trial_id = "poor"

    def __init__(self, config=None):
        self.config = config or {}


class NoOthers:
    def get_live_trials(self):
        return []


def announcing(num_trials=2, tracking=None, **board):
    heard, boards = [], []
    LISTENERS["s"] = Listener(lambda text, part: heard.append((text, part)), boards.append, tracking)
    announcer = Announcer("s", Board(num_trials, 4, **board), workers={"cpu": 2.0})
    return announcer, heard, boards


def trial(name="a", *, error_file=None, **last):
    config = {"model.architecture": "unet", "training.learning_rate": 0.00123, NUMBER: 0}
    return SimpleNamespace(trial_id=name, last_result=last, config=config, error_file=error_file)


def test_every_ended_trial_is_one_line_with_the_best_so_far(tmp_path):
    (tmp_path / "error.txt").write_text("Traceback\n  File x\nValueError: no such thing")
    announcer, heard, boards = announcing(3)
    announcer.on_trial_complete(0, [], trial("a", **result(3, 0.5, finished=True)))
    announcer.on_trial_complete(0, [], trial("b", **result(1, 0.2)))
    announcer.on_trial_error(0, [], trial("c", error_file=str(tmp_path / "error.txt")))
    assert [text for text, _ in heard] == [
        "trial 1 of 3: finished with val/dice_mean 0.500, best 0.500; architecture unet, learning_rate 0.00123",
        "trial 2 of 3: stopped after epoch 1 with val/dice 0.200; architecture unet, learning_rate 0.00123",
        "trial 3 of 3: failed: ValueError: no such thing",
    ]
    assert heard[-1][1] == 1.0
    assert [row.state for row in boards[-1].rows.values()] == ["finished", "stopped", "failed"]
    assert boards[-1].seconds_left == 0


def test_people_without_a_table_hear_of_an_epoch_but_not_of_each(monkeypatch):
    announcer, heard, _ = announcing(2)
    LISTENERS["s"] = Listener(LISTENERS["s"].say)
    announcer.on_trial_result(0, [], trial(), result(1, 0.25))
    announcer.on_trial_result(0, [], trial(), result(2, 0.5))
    assert heard == [("trial 0: epoch 1 of 4, val/dice 0.250", 0.0)]
    monkeypatch.setattr("glioflow.runs.search.observer._LINE_S", 0)
    announcer.on_trial_result(0, [], trial(), result(3, 0.5))
    assert heard[-1][0] == "trial 0: epoch 3 of 4, val/dice 0.500"
    announcing(2)
    announcer.on_trial_result(0, [], trial(), result(4, 0.5))
    assert len(heard) == 2, "who sees the table needs no line"


def test_a_trial_that_ray_ended_for_its_memory_says_so(tmp_path):
    line = "out of memory: Ray ended process 8 (run_trial), which used 9.25 GiB; lower training.batch_size"
    (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at noon)\n{line}\n")  # as the memory guard has it
    announcer, heard, _ = announcing(1)
    announcer.on_trial_error(0, [], trial(error_file=str(tmp_path / "error.txt")))
    assert f"failed: {line}" in heard[0][0]


def test_a_search_stops_handing_out_after_five_equal_failures_and_says_why(searcher):
    announcer, _, _ = announcing(9)
    LISTENERS["s"] = replace(LISTENERS["s"], give_up=searcher.give_up)
    searcher.plan(9)

    def fail(reason):
        announcer.on_trial_complete(0, [], trial("a", **result(0, 0.0), failed=reason))

    for k in range(4):
        fail(f"out of memory: {k}.5 GiB")
    fail("loss is not finite")
    for k in range(4):
        fail(f"out of memory: {k}.5 GiB")
    assert searcher.suggest("t0") != "FINISHED"
    fail("out of memory: 7 GiB")
    assert searcher.suggest("t1") == "FINISHED"
    assert searcher.trouble == "5 trials in a row failed alike: out of memory: 7 GiB"


@pytest.mark.parametrize(
    "reason",
    [
        lambda: f"no such file: '/home/runs/{uuid.uuid4().hex}/bundle'",
        lambda: f"ValueError: {object()} cannot be a loss",
        lambda: f"the process on node {uuid.uuid4()} ended",
    ],
    ids=["path of a run", "address in memory", "id of a node"],
)
def test_failures_that_differ_only_in_a_path_or_an_id_are_equal(searcher, reason):
    announcer, _, _ = announcing(9)
    LISTENERS["s"] = replace(LISTENERS["s"], give_up=searcher.give_up)
    searcher.plan(9)
    for _ in range(5):
        announcer.on_trial_complete(0, [], trial("a", **result(0, 0.0), failed=reason()))
    assert searcher.suggest("t1") == "FINISHED"
    assert "5 trials in a row failed alike" in searcher.trouble


def test_a_store_that_fails_while_a_trial_is_closed_ends_no_search_and_hears_of_it_later(tracking, monkeypatch):
    announcer, heard, _ = announcing(2, tracking=tracking)
    run_id = tracking.start("tiny", "trial", tags={})
    with monkeypatch.context() as away:
        away.setattr(tracking.client, "log_batch", lambda *_, **__: 1 / 0)
        announcer.on_trial_complete(0, [], trial("a", **result(1, 0.2), run_id=run_id, time_total_s=1800.0))
    assert len(heard) == 1
    assert tracking.run(run_id).info.status == "RUNNING"
    announcer.on_experiment_end([])
    assert tracking.run(run_id).info.status == "KILLED"
    assert tracking.run(run_id).data.metrics["cost/cpu_hours"] == 1.0


def test_a_search_that_nobody_listens_to_is_no_error():
    Announcer("nobody", Board(1, 2), workers={}).on_trial_complete(0, [], trial(**result(1, 0.5)))


def test_a_stopped_trials_run_is_closed_with_what_it_cost_and_what_stopping_saved(tracking):
    announcer, _, _ = announcing(tracking=tracking)
    run_id = tracking.start("tiny", "trial", tags={"trial_id": "0", "search": "s"})
    announcer.on_trial_complete(0, [], trial(**result(1, 0.2), run_id=run_id, time_total_s=1800.0))
    run = tracking.run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"cost/cpu_hours": 1.0, "cost/cpu_hours_saved": 3.0}


def test_a_run_that_people_deleted_keeps_no_other_from_being_closed(tracking):
    announcer, _, _ = announcing(tracking=tracking)
    run_id = tracking.start("tiny", "trial", tags={"trial_id": "1", "search": "s"})
    announcer.on_trial_complete(0, [], trial("a", **result(1, 0.2), run_id="0" * 32))
    announcer.on_trial_complete(0, [], trial("b", **result(1, 0.2), run_id=run_id))
    assert tracking.run(run_id).info.status == "KILLED"


def test_a_trial_stopped_at_its_first_epoch_is_pruned_and_keeps_its_value(searcher):
    searcher.suggest("first")
    searcher.on_trial_complete("first", result=result(1, 0.3))  # Tune tells a stopping result only here
    assert state(searcher) == optuna.trial.TrialState.PRUNED
    assert searcher.study.trials[0].intermediate_values == {1: 0.3}


def test_a_trial_that_is_begun_again_gives_back_what_its_workers_had_booked(monkeypatch):
    released = []
    monkeypatch.setattr("glioflow.cluster.release_group", released.append)
    announcer, _, _ = announcing()
    announcer.on_trial_recover(0, [], trial("a", **result(2, 0.4), placement_group="ab12"))
    announcer.on_step_end(0, [])
    assert not released, "its controller may live for a moment, and would book anew"
    announcer.on_experiment_end([])
    assert released == ["ab12"]


def test_the_table_shows_each_trial_the_best_and_the_time_left():
    announcer, _, boards = announcing(3)
    announcer.on_trial_start(0, [], trial("a"))
    announcer.on_trial_result(0, [], trial("b"), result(3, 0.712))
    announcer.on_trial_complete(0, [], trial("b", **result(4, 0.625, finished=True), time_total_s=75.0))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(draw_table(boards[-1]))
    drawn = console.export_text()
    assert "1 of 3 trials, best val/dice_mean 0.625, 0 s left" in drawn
    assert "finished" in drawn
    assert "4/4" in drawn
    assert drawn.index("0.712") < drawn.rindex("0.625"), "of the last epoch, and of the bundle"
    assert "75 s" in drawn
    assert "running" in drawn


def test_a_search_goes_on_after_a_wrong_first_point_was_mended(storage):
    wrong, right = ({"model.architecture": name, "training.epochs": 3} for name in ("unat", "unet"))
    broken = Searcher(settings(first=[wrong, wrong | {"training.epochs": 4}]), name="study", storage=storage)
    with pytest.raises(ValueError, match="unat"):
        broken.suggest("a")
    mended = Searcher(settings(first=[right]), name="study", storage=storage)
    assert mended.plan(4) == 2, "two of four have failed"
    point = mended.suggest("b")
    assert (point["model.architecture"], point["training.epochs"]) == ("unet", 3)
    assert mended.suggest("c")["model.architecture"] in ("unet", "buda-unet")
