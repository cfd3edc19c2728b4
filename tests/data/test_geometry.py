import itertools

import numpy as np
import pytest

from glioflow.data.case import Case
from glioflow.data.preprocessing.geometry import Resize, Window, resample, restore
from glioflow.data.preprocessing.geometry_steps import CropBox, CropBrain, PadSquare, Resample, ResizePlane, SliceRange
from glioflow.data.preprocessing.pipeline import LabelMap, Neighbors, UnitScale, preprocess


def labeled_ball(shape):
    """A ball of label 2 in a ball of label 1, and the head around them."""
    grid = np.meshgrid(*[(np.arange(n) - n / 2 + 0.5) / n for n in shape], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    mask = (radius < 0.3).astype(np.uint8) + (radius < 0.15)
    return (radius < 0.42).astype(np.uint8) * 100 + mask * 40, mask.astype(np.uint8)


def case_of(shape=(9, 31, 27), spacing=(3.0, 1.0, 1.5)):
    image, mask = labeled_ball(shape)
    rng = np.random.default_rng(0)
    noisy = (image[..., None] + rng.integers(0, 9, (*shape, 2)) * (image[..., None] > 0)).astype(np.uint8)
    return Case("a", "a", noisy, mask, ("flair", "post"), tuple(range(1, shape[0] + 1)), spacing)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_window_crops_and_pads_by_hand():
    volume = np.arange(6).reshape(1, 2, 3)
    window = Window(before=(1, 2, 3), start=(0, -1, 1), after=(1, 3, 2))
    assert window.apply(volume).tolist() == [[[0, 0], [1, 2], [4, 5]]]
    assert window.invert(window.apply(volume)).tolist() == [[[0, 1, 2], [0, 4, 5]]]


def test_window_beside_the_volume_is_empty():
    window = Window(before=(1, 2, 3), start=(5, 0, 0), after=(2, 2, 3))
    assert not window.apply(np.ones((1, 2, 3))).any()
    assert window.invert(np.ones((2, 2, 3))).shape == (1, 2, 3)


def test_doubling_and_halving_gives_labels_back_exactly():
    _, mask = labeled_ball((4, 15, 11))
    move = Resize(before=(4, 15, 11), after=(4, 30, 22))
    assert np.array_equal(move.invert(move.apply(mask)), mask)


def test_halving_averages_neighbors():
    assert resample(np.array([[[0.0, 2], [4, 6]]], np.float32), (1, 1, 1)).tolist() == [[[3.0]]]


def test_labels_are_never_mixed():
    mask = np.zeros((3, 12, 12), np.uint8)
    mask[:, 2:10, 2:10] = 4
    assert set(np.unique(resample(mask, (5, 17, 23)))) == {0, 4}
    assert resample(mask > 0, (5, 17, 23)).dtype == bool


def test_many_channels_are_resized_alike():
    rng = np.random.default_rng(0)
    volume = rng.random((2, 8, 8, 7)).astype(np.float32)
    whole = resample(volume, (2, 5, 11))
    assert whole.shape == (2, 5, 11, 7)
    assert np.allclose(whole[..., 6], resample(np.ascontiguousarray(volume[..., 6]), (2, 5, 11)), atol=1e-6)


def test_slices_are_interpolated_between_their_centers():
    volume = np.array([0.0, 1.0], np.float32).reshape(2, 1, 1)
    assert resample(volume, (4, 1, 1)).ravel().tolist() == [0.0, 0.25, 0.75, 1.0]


STEPS = [
    (SliceRange(first=1, last=7), None),
    (CropBox(above=0.1), CropBrain(), None),
    (PadSquare(), None),
    (ResizePlane(size=32), ResizePlane(size=19), Resample(spacing_mm=(2.0, 1.3, 1.3)), None),
    (Neighbors(), None),
]


@pytest.mark.parametrize("shape", [(9, 31, 27), (8, 30, 30), (9, 21, 33)])
def test_masks_return_to_the_original_grid_over_all_combinations_of_steps(shape):
    case = case_of(shape)
    for steps in itertools.product(*STEPS):
        chosen = (UnitScale(), *(step for step in steps if step is not None))
        volume = preprocess(case, chosen)
        assert volume.image.shape[:3] == volume.mask.shape
        back = restore(volume.mask, volume.moves)
        assert back.shape == shape
        assert back.dtype == np.uint8
        kept = case.mask.copy()
        if steps[0] is not None:
            kept[:1], kept[8:] = 0, 0
        if steps[3] is None:
            assert np.array_equal(back, kept), chosen
        else:
            assert dice(back > 0, kept > 0) > 0.85, chosen
        soft = restore(np.stack([volume.mask > 0] * 2, axis=-1).astype(np.float32), volume.moves)
        assert soft.shape == (*shape, 2)
        assert dice(soft[..., 0] > 0.5, kept > 0) > 0.85, chosen


@pytest.mark.parametrize(
    "steps",
    [(UnitScale(), step) for group in STEPS for step in group if step is not None]
    + [(LabelMap(map={2: 1}), PadSquare())],
)
def test_preprocessing_never_changes_its_input(steps):
    case = case_of()
    image, mask = case.image.copy(), case.mask.copy()
    volume = preprocess(case, steps)
    restore(volume.mask, volume.moves)
    assert np.array_equal(case.image, image)
    assert np.array_equal(case.mask, mask)


def test_spacing_follows_a_resize():
    volume = preprocess(case_of((4, 30, 20), spacing=(3.0, 1.0, 2.0)), (ResizePlane(size=10),))
    assert volume.spacing_mm == (3.0, 3.0, 4.0)
