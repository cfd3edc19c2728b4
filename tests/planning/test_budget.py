"""A budget becomes trainings that fit into it; where it is short, the search goes first, then folds."""

import math

import pytest

from glioflow.planning.budget import RESERVE, SEARCH_STEPS, Costs, fold_patients, least_seconds, share_out

COSTS = Costs(step_s=0.5, other_s=40)


def seconds_of(shares, costs, slots):
    training = costs.training_s(shares.epochs, shares.steps_per_epoch)
    return shares.search_s + (math.ceil(shares.folds / slots) + 1) * training


@pytest.mark.parametrize("minutes", [20, 60, 240, 6000])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_search_folds_and_final_training_fill_the_budget_and_no_more(minutes, slots):
    shares = share_out(COSTS, 60 * minutes, folds=5, slots=slots, search=True)
    spent = seconds_of(shares, COSTS, slots) + 2 * COSTS.other_s
    assert 0.9 * 60 * minutes * (1 - RESERVE) < spent <= 60 * minutes * (1 - RESERVE) + 1


def test_a_longer_budget_trains_longer_and_what_is_more_than_enough_is_searched_with():
    short, long, endless = (share_out(COSTS, 3600 * h, folds=5, slots=2, search=True) for h in (0.5, 2, 200))
    steps = [each.epochs * each.steps_per_epoch for each in (short, long, endless)]
    assert steps[0] < steps[1] < steps[2] <= 12000
    assert endless.search_s > 0.8 * 200 * 3600
    assert endless.trials > long.trials >= 2


def test_a_short_budget_gives_up_the_search_first_and_folds_then():
    least = least_seconds(COSTS, slots=1)
    assert share_out(COSTS, least - 60, folds=5, slots=1, search=True) is None
    barely = share_out(COSTS, least, folds=5, slots=1, search=True)
    assert (barely.folds, barely.search_s) == (3, 0)
    more = share_out(COSTS, 1.6 * least, folds=5, slots=1, search=True)
    assert (more.folds, more.search_s) == (5, 0)
    assert share_out(COSTS, 3 * least, folds=5, slots=1, search=True).search_s == 0, "its trainings would be too short"
    searching = share_out(COSTS, 10 * least, folds=5, slots=1, search=True)
    assert searching.search_s > 0
    assert searching.epochs * searching.steps_per_epoch >= SEARCH_STEPS


@pytest.mark.parametrize(
    ("train", "val", "test", "expected"),
    [
        (40, 12, 13, (5, True)),
        (8, 2, 2, (5, True)),
        (7, 2, 2, (5, False)),
        (3, 1, 1, (5, False)),
        (1, 1, 1, (3, False)),
    ],
)
def test_few_patients_are_all_cross_validated_and_the_fewest_in_fewer_folds(train, val, test, expected):
    assert fold_patients({"train": train, "val": val, "test": test}, 5) == expected


def test_an_ensemble_of_the_folds_needs_no_final_training_so_that_each_is_longer():
    single, ensemble = (
        share_out(COSTS, 3600, folds=5, slots=1, search=False, hold_out=hold_out) for hold_out in (False, True)
    )
    lengths = [COSTS.training_s(shares.epochs, shares.steps_per_epoch) for shares in (single, ensemble)]
    assert lengths[1] == pytest.approx(lengths[0] * 6 / 5, rel=0.02)
    three = [share_out(COSTS, 3600, folds=3, slots=1, search=False, hold_out=hold_out) for hold_out in (False, True)]
    assert three[0] == three[1], "three folds train each network on a third of the patients"


def test_validations_take_no_more_than_a_quarter_of_a_training():
    slow = Costs(step_s=0.1, other_s=200)
    shares = share_out(slow, 3600, folds=5, slots=2, search=True)
    whole = slow.training_s(shares.epochs, shares.steps_per_epoch)
    assert (shares.epochs - 1) * slow.validation_s <= 0.25 * whole * 1.01


def test_the_speed_of_steps_is_corrected_by_a_training_that_was_slower():
    assert COSTS.with_step(1.5) == Costs(step_s=1.5, other_s=COSTS.other_s)
    assert COSTS.with_step(0.0).step_s == COSTS.step_s / 2
