"""The searcher on a real Optuna study, and the lines that tell people of its trials."""

from types import SimpleNamespace

import optuna
import pytest

from glioflow.config.search import SearchSettings
from glioflow.runs.announcer import LISTENERS, Announcer
from glioflow.runs.searcher import METRIC, Searcher, Space

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
        Space(dict(settings().space))(trial)
        assert ("model.encoder" in trial.params) == (architecture == "unet")
        assert {"training.learning_rate", "training.epochs"} <= set(trial.params)


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
    assert made.suggest("t0") == first


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


def test_a_saved_searcher_goes_on_with_its_study(searcher, storage, tmp_path):
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result(1, 0.5, finished=True))
    searcher.on_trial_complete("t0", result(1, 0.5, finished=True))
    searcher.suggest("t1")
    searcher.save(str(tmp_path / "saved"))
    again = Searcher(settings(), name="study", storage=storage)
    again.restore(str(tmp_path / "saved"))
    again.on_trial_result("t1", result(1, 0.7, finished=True))
    again.on_trial_complete("t1", result(1, 0.7, finished=True))
    assert again.study.best_value == 0.7
    assert len(again.study.trials) == 2


def told(num_trials=2):
    heard = []
    LISTENERS["s"] = lambda text, part: heard.append((text, part))
    return Announcer("s", num_trials), heard


def trial(**last):
    return SimpleNamespace(last_result=last, config={"model.architecture": "unet", "training.learning_rate": 0.00123})


def test_every_ended_trial_is_one_line_with_the_best_so_far():
    announcer, heard = told()
    announcer.on_trial_complete(0, [], trial(**result(3, 0.5, finished=True)))
    announcer.on_trial_complete(0, [], trial(**result(1, 0.2)))
    announcer.on_trial_error(0, [], trial())
    assert heard == [
        ("trial 1 of 2: Dice 0.500 (best 0.500), finished; architecture unet, learning_rate 0.00123", 0.5),
        ("trial 2 of 2: Dice 0.200 (best 0.500), stopped after epoch 1; architecture unet, learning_rate 0.00123", 1.0),
        ("trial 3 of 2: failed", 1.5),
    ]


def test_a_search_that_nobody_listens_to_is_no_error():
    Announcer("nobody", 1).on_trial_complete(0, [], trial(**result(1, 0.5)))


def test_a_trial_stopped_at_its_first_epoch_is_pruned_and_keeps_its_value(searcher):
    searcher.suggest("first")
    searcher.on_trial_complete("first", result=result(1, 0.3))  # Tune tells a stopping result only here
    assert state(searcher) == optuna.trial.TrialState.PRUNED
    assert searcher.study.trials[0].intermediate_values == {1: 0.3}
