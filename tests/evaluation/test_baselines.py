"""What a network has to beat."""

import numpy as np
import pytest

from glioflow.errors import UserError
from glioflow.evaluation import (
    NearestSlice,
    dice_per_case,
    fit_flair_threshold,
    predict_empty,
    predict_flair_threshold,
)


def patient(seed, bright=200):
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 120, (5, 64, 64, 3)).astype(np.uint8)
    mask = np.zeros((5, 64, 64), dtype=np.uint8)
    row, column = rng.integers(5, 40, 2)
    mask[1:4, row : row + 12, column : column + 12] = 1
    image[..., 1][mask > 0] = bright
    return image, mask


def test_a_threshold_fitted_on_some_patients_finds_the_tumor_of_others():
    patients = [patient(seed) for seed in range(3)]
    threshold = fit_flair_threshold(lambda: ((image[..., 1], mask) for image, mask in patients))
    image, mask = patient(9)
    assert dice_per_case(predict_flair_threshold(image[..., 1], threshold), mask > 0) == 1
    other_scanner = image[..., 1] * 7.0 + 300
    assert dice_per_case(predict_flair_threshold(other_scanner, threshold), mask > 0) == 1


@pytest.mark.parametrize("healthy", [False, True])
def test_the_threshold_is_the_best_of_many_where_one_patient_has_no_tumor_too(healthy):
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(2, 16, 16)), rng.uniform(size=(2, 16, 16))]
    masks = [image + rng.normal(size=image.shape) > 1.5 for image in images]
    masks[1] &= not healthy

    def dice(threshold):
        found = [predict_flair_threshold(image, threshold) for image in images]
        return np.mean([dice_per_case(a, b) for a, b in zip(found, masks, strict=True)])

    best = max(dice(threshold) for threshold in np.linspace(-3, 3, 200))
    assert dice(fit_flair_threshold(lambda: zip(images, masks, strict=True))) >= best - 0.005


def test_a_blank_volume_has_no_bright_voxel():
    assert not predict_flair_threshold(np.zeros((2, 8, 8)), 1.0).any()


def test_the_nearest_slice_of_a_known_patient_is_its_own():
    patients = [patient(seed) for seed in range(3)]
    baseline = NearestSlice([image for image, _ in patients], [mask for _, mask in patients])
    image, mask = patients[1]
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255)
    assert (baseline.predict(noisy) == (mask > 0)).all()


def test_nobody_is_answered_with_a_slice_of_their_own():
    patients = [patient(seed) for seed in range(3)]
    images, masks = ([pair[k] for pair in patients] for k in (0, 1))
    baseline = NearestSlice(images, masks, patients=["a", "b", "c"])
    image, mask = patients[1]
    assert (baseline.predict(image) == mask).all()
    copied = baseline.predict(image, patient="b")
    assert not (copied == mask).all()
    others = [slice_ for known in (masks[0], masks[2]) for slice_ in known]
    assert all(any((one == other).all() for other in others) for one in copied)
    with pytest.raises(UserError, match="patients other than"):
        NearestSlice([image], [mask], patients=["b"]).predict(image, patient="b")


def test_nearest_is_by_distance_whatever_the_brightness():
    levels = (80, 150, 250)
    images = [np.full((1, 32, 32, 1), level, dtype=np.uint8) for level in levels]
    masks = [np.full((1, 32, 32), k == 1, dtype=np.uint8) for k in range(3)]
    copied = NearestSlice(images, masks).predict(np.full((1, 32, 32, 1), 160, dtype=np.uint8))
    assert copied.all(), "160 is nearer to 150 than to 80 or 250"


def test_slices_of_another_size_are_refused():
    image, mask = patient(0)
    with pytest.raises(UserError, match="must have the size of the known ones"):
        NearestSlice([image], [mask]).predict(image[:, :32])
    with pytest.raises(UserError, match="slices of one size"):
        NearestSlice([image, image[:, :32]], [mask, mask[:, :32]])


def test_the_empty_prediction_has_the_images_geometry():
    image, mask = patient(0)
    assert predict_empty(image).shape == mask.shape
    assert not predict_empty(image).any()


def test_without_training_patients_there_is_no_threshold():
    with pytest.raises(UserError, match="at least one training patient"):
        fit_flair_threshold(list)
