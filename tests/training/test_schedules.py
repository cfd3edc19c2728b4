"""Learning-rate schedules against numbers worked by hand."""

import pytest

from glioflow.errors import UserError
from glioflow.training.schedules import SCHEDULES, learning_rate_factor
from glioflow.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
        ("polynomial", [1, 0.771899, 0.535887, 0.287175]),  # (1 - part) ** 0.9
        # From 0.04 up over the first 30 %, then down: 0.52 at 15 %, 1 at 30 %.
        ("one_cycle", [0.04, 0.04 + 0.96 * 0.933013, 0.811745, 0.283058]),
    ],
)
def test_a_schedule_has_the_factors_of_its_formula(name, factors):
    got = [learning_rate_factor(name, step=step, num_steps=4, warmup_steps=0) for step in range(4)]
    assert got == pytest.approx(factors, abs=1e-5)


def test_one_cycle_begins_low_peaks_at_30_percent_and_ends_at_nothing():
    got = [learning_rate_factor("one_cycle", step=step, num_steps=20, warmup_steps=0) for step in (0, 3, 6, 20)]
    assert got == pytest.approx([0.04, 0.52, 1, 0])


def test_a_warm_up_rises_evenly_to_the_peak():
    got = [learning_rate_factor("cosine", step=step, num_steps=7, warmup_steps=3) for step in range(8)]
    assert got == pytest.approx([0.25, 0.5, 0.75, 1, 0.853553, 0.5, 0.146447, 0], abs=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_schedule_leaves_0_to_1(name):
    got = [learning_rate_factor(name, step=step, num_steps=50, warmup_steps=5) for step in range(60)]
    assert all(0 <= factor <= 1 for factor in got)
    TrainingSettings(schedule=name)


def test_an_unknown_schedule_lists_those_that_exist():
    with pytest.raises(UserError, match="constant, cosine"):
        learning_rate_factor("cosin", step=0, num_steps=1, warmup_steps=0)
