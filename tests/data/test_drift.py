"""Input statistics: what training cohorts are like, and how far a study lies from them."""

import numpy as np
import pytest

from glioflow.data.checks.drift import fit_input_statistics, measure_drift, summarize_input

CHANNELS = ("pre", "flair")


def image(seed, scale=1.0):
    return np.random.default_rng(seed).normal(0.5, 0.1, (4, 32, 32, 2)) * scale


def test_a_study_like_the_training_ones_is_near_and_a_brighter_one_far():
    known = fit_input_statistics((image(seed) for seed in range(8)), CHANNELS)
    near = measure_drift(summarize_input(image(99), CHANNELS), known)
    far = measure_drift(summarize_input(image(99, 2.0), CHANNELS), known)
    assert set(near) == set(CHANNELS)
    assert max(near.values()) < 6
    assert min(far.values()) > 30


def test_without_training_images_nothing_is_measured():
    assert fit_input_statistics([], CHANNELS) == {}
    assert measure_drift(summarize_input(image(0), CHANNELS), {}) == {}


def test_training_statistics_are_means_and_deviations_over_cases():
    known = fit_input_statistics([np.full((1, 8, 8, 1), value, np.float32) for value in (0.2, 0.4)], ("flair",))
    assert known["flair"]["mean"] == (pytest.approx(0.3), pytest.approx(0.1))
    assert known["flair"]["std"] == (0, 0)
