"""Whether probabilities mean what they say."""

import numpy as np
import pytest

from glioflow.evaluation import (
    apply_temperature,
    count_reliability,
    fit_temperature,
    fit_volume_interval,
    mean_entropy,
    measure_spread,
)
from glioflow.evaluation.calibration import VolumeInterval


def honest(num, seed=0):
    """Probabilities, and truths that follow them."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.5, 0.5, num)
    return probability, rng.random(num) < probability


def test_calibration_error_by_hand():
    probability = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9])
    truth = np.array([True, False, False, False, True, False])
    counted = count_reliability(probability, truth, num_bins=5)
    # |.1 - .25| for four voxels, |.9 - .5| for two.
    assert counted.expected_error == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)
    assert [(round(p, 6), t, n) for p, t, n in counted.curve] == [(0.1, 0.25, 4), (0.9, 0.5, 2)]


def test_probability_one_lies_in_the_last_bin():
    assert count_reliability(np.ones(3), np.ones(3, dtype=bool), num_bins=4).counts == (0, 0, 0, 3)


def test_patients_add_up_to_all_voxels_together():
    probability, truth = honest(1000)
    parts = count_reliability(probability[:300], truth[:300]) + count_reliability(probability[300:], truth[300:])
    assert parts.expected_error == pytest.approx(count_reliability(probability, truth).expected_error)


def test_honest_probabilities_have_next_to_no_error_and_temperature_one():
    probability, truth = honest(100_000)
    assert count_reliability(probability, truth).expected_error < 0.01
    assert fit_temperature([probability], [truth]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_undoes_over_and_under_confidence(factor):
    probability, truth = honest(100_000)
    distorted = apply_temperature(probability, 1 / factor)
    fitted = fit_temperature([distorted[:60_000], distorted[60_000:]], [truth[:60_000], truth[60_000:]])
    assert fitted == pytest.approx(factor, rel=0.05)
    repaired = apply_temperature(distorted, fitted)
    assert count_reliability(repaired, truth).expected_error < count_reliability(distorted, truth).expected_error / 3


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_of_exclusive_classes_is_found_too(factor):
    rng = np.random.default_rng(0)
    honest_classes = rng.dirichlet([0.5, 0.5, 0.5], 60_000).astype(np.float32)
    truth = (rng.random((60_000, 1)) > honest_classes.cumsum(1)).sum(1).clip(0, 2)
    distorted = apply_temperature(honest_classes, 1 / factor, softmax_axis=-1)
    fitted = fit_temperature([distorted[:30_000], distorted[30_000:]], [truth[:30_000], truth[30_000:]], softmax=True)
    assert fitted == pytest.approx(factor, rel=0.05)


def test_nothing_of_one_kind_says_anything_about_temperature():
    assert fit_temperature([np.full(50, 0.9)], [np.ones(50, bool)]) == 1
    assert fit_temperature([], []) == 1


@pytest.mark.parametrize("temperature", [0.05, 20])
def test_the_surest_probabilities_stay_numbers(temperature):
    sure = np.array([0, 1e-9, 0.5, 1 - 1e-9, 1], np.float32)
    assert np.isfinite(apply_temperature(sure, temperature)).all()
    classes = np.array([[1, 0, 0], [0.4, 0.3, 0.3]], np.float32)
    assert apply_temperature(classes, temperature, softmax_axis=-1).sum(-1) == pytest.approx(1)
    assert apply_temperature(sure, temperature).dtype == np.float32


def test_a_temperature_moves_no_mask():
    probability = np.random.default_rng(0).random((4, 5))
    assert ((apply_temperature(probability, 2.5) > 0.5) == (probability > 0.5)).all()
    classes = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    heated = apply_temperature(classes, 2.5, softmax_axis=1)
    assert (heated.argmax(1) == classes.argmax(1)).all()
    assert heated.sum(1) == pytest.approx(1)


def test_entropy_is_of_the_doubtful_voxels():
    assert mean_entropy(np.full((2, 2), 0.5)) == pytest.approx(np.log(2))
    assert mean_entropy(np.array([0.0, 1.0, 0.5])) == pytest.approx(np.log(2))
    assert mean_entropy(np.zeros(4)) == 0


def test_the_volume_interval_covers_unseen_patients():
    rng, covered, asked = np.random.default_rng(0), 0, 0
    for _ in range(40):
        true = rng.lognormal(9, 1, 60)
        predicted = true * rng.lognormal(0, 0.3, 60)
        fitted = fit_volume_interval(predicted[:40], true[:40], [k % 5 for k in range(40)], level=0.9)
        for volume, guess in zip(true[40:], predicted[40:], strict=True):
            low, high = fitted.interval([guess] * 5)
            covered, asked = covered + (low <= volume <= high), asked + 1
    assert 0.87 <= covered / asked <= 0.94


def test_the_interval_widens_with_the_tumor_and_where_folds_disagree():
    fitted = fit_volume_interval([100.0] * 20, [110.0] * 20, [k % 4 for k in range(20)], level=0.8)
    small, large = fitted.interval([100.0]), fitted.interval([10_000.0])
    assert large[1] - large[0] > 50 * (small[1] - small[0])
    doubtful = fitted.interval([50.0, 100.0, 100.0, 200.0])
    assert doubtful[0] < small[0] < small[1] < doubtful[1]


def test_too_few_patients_make_no_interval():
    assert fit_volume_interval([1.0] * 8, [2.0] * 8, [0] * 8, level=0.9).interval([1.0]) is None
    assert fit_volume_interval([1.0] * 9, [2.0] * 9, [0] * 9, level=0.9).interval([1.0]) is not None


def test_the_interval_survives_the_bundle():
    fitted = fit_volume_interval([10.0] * 12, [12.0] * 12, [0, 1] * 6)
    assert VolumeInterval.model_validate_json(fitted.model_dump_json()) == fitted


def test_the_spread_of_an_ensemble_by_hand():
    first, second = np.array([[[0.9, 0.5, 0.0, 0.0]]]), np.array([[[0.7, 0.1, 0.0, 0.4]]])
    spread = measure_spread([first, second], [first >= 0.5, second >= 0.5])
    # Over the two voxels that either calls tumor; masks of two and one voxels that share one.
    assert spread.probability_std == pytest.approx((0.1 + 0.2) / 2)
    assert spread.mask_disagreement == pytest.approx(1 - 2 / 3)
    assert spread.volume_variation == pytest.approx(0.5 / 1.5)


@pytest.mark.parametrize("num_members", [2, 3, 7])
def test_equal_members_have_no_spread_and_nothing_found_leaves_it_undefined(num_members):
    probability = np.random.default_rng(0).random((3, 5, 5)).astype(np.float32)
    spread = measure_spread([probability] * num_members, [probability > 0.3] * num_members)
    assert spread.model_dump() == {
        **{"num_members": num_members, "probability_std": 0, "mask_disagreement": 0, "volume_variation": 0}
    }
    nothing = measure_spread([probability] * num_members, [probability > 2] * num_members)
    assert (nothing.probability_std, nothing.mask_disagreement, nothing.volume_variation) == (None, 0, None)
