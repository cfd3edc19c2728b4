import warnings

import numpy as np
import pytest

from glioflow.data.batches.augmentation import POLICIES, build_augmentation
from glioflow.errors import UserError


def sample(channels=3, low=0.1, high=0.9):
    """A bright square on a dark ground, and its mask."""
    mask = np.zeros((48, 40), np.uint8)
    mask[8:22, 20:32] = 1
    image = np.full((48, 40, channels), low, np.float32)
    image[mask > 0] = high
    return image, mask


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_image_and_mask_move_together(name, channels):
    image, mask = sample(channels)
    augment = build_augmentation(name)
    for seed in range(12):
        out, moved = augment(image, mask, seed)
        assert out.shape == image.shape
        assert (out.dtype, moved.dtype) == (np.float32, np.uint8)
        bright = out.mean(axis=-1) > (out.min() + out.max()) / 2
        assert 2 * (bright & (moved > 0)).sum() > 0.8 * (bright.sum() + moved.sum())


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "none"])
def test_the_seed_decides_and_seeds_differ(name):
    image, mask = sample()
    outs = [build_augmentation(name)(image, mask, seed)[0] for seed in range(8)]
    augment = build_augmentation(name)
    again = [augment(image, mask, seed)[0] for seed in reversed(range(8))]
    assert all(np.array_equal(one, other) for one, other in zip(outs, reversed(again), strict=True))
    assert len({out.tobytes() for out in outs}) > 3


@pytest.mark.parametrize("name", POLICIES)
def test_the_input_is_left_alone_and_nothing_is_warned_of(name):
    image, mask = sample()
    before = image.copy(), mask.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_augmentation(name)(image, mask, 1)
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


@pytest.mark.parametrize("name", POLICIES)
def test_z_scores_are_not_cut_to_the_unit_range_and_new_pixels_are_background(name):
    image, mask = sample(low=-1.0, high=5.0)
    augment = build_augmentation(name)
    brightest = 0.5 if name == "strong" else -0.5
    for seed in range(20):
        out, moved = augment(image, mask, seed)
        assert np.mean((out.mean(axis=-1) > brightest) & (moved == 0)) < 0.05
        assert out[moved > 0].mean() > 2.5


def test_unknown_policy_is_named():
    with pytest.raises(UserError, match=r"'heavy'.*none"):
        build_augmentation("heavy")
