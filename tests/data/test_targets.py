import numpy as np
import pytest
from pydantic import ValidationError

from glioflow.data.targets import TargetSettings

BINARY = TargetSettings()
CLASSES = TargetSettings(kind="multiclass", labels=(1, 2, 4))
REGIONS = TargetSettings(
    kind="regions",
    regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
    decode={"WT": 2, "TC": 1, "ET": 4},
)
MASK = np.array([[0, 1, 2], [4, 4, 0]], np.uint8)


def test_binary_is_one_map_of_ones_and_zeros():
    encoded = BINARY.encode(MASK)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [[[0, 1, 1], [1, 1, 0]]]


def test_classes_are_numbered_in_the_order_of_labels_and_unknown_ones_are_background():
    assert CLASSES.encode(np.array([0, 1, 2, 4, 3], np.uint8)).tolist() == [0, 1, 2, 3, 0]
    assert CLASSES.num_outputs == 4
    assert CLASSES.names == ("label_1", "label_2", "label_4")


def test_regions_overlap():
    encoded = REGIONS.encode(MASK)
    assert encoded[:, 0, 1].tolist() == [1, 1, 0]
    assert encoded[:, 0, 2].tolist() == [1, 0, 0]
    assert encoded[:, 1, 0].tolist() == [1, 1, 1]
    assert (REGIONS.num_outputs, REGIONS.task) == (3, "multilabel")


@pytest.mark.parametrize("target", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_decoding_gives_the_labels_back(target):
    assert np.array_equal(target.labels_of(target.split(MASK)), MASK)
    assert np.array_equal(BINARY.labels_of(BINARY.split(MASK)), MASK > 0)


def test_encoding_and_splitting_agree():
    for k, name in enumerate(REGIONS.names):
        assert np.array_equal(REGIONS.encode(MASK)[k] > 0, REGIONS.split(MASK)[name])
    for k, name in enumerate(CLASSES.names, start=1):
        assert np.array_equal(CLASSES.encode(MASK) == k, CLASSES.split(MASK)[name])


def test_an_inner_region_outside_its_outer_one_does_not_count():
    parts = {name: np.array([on]) for name, on in (("WT", False), ("TC", True), ("ET", True))}
    assert REGIONS.labels_of(parts).tolist() == [0]


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "multiclass"},
        {"kind": "multiclass", "labels": (1, 1)},
        {"kind": "multiclass", "labels": (0, 300)},
        {"kind": "regions", "regions": {"WT": (1,)}},
    ],
)
def test_a_target_that_cannot_be_is_refused(settings):
    with pytest.raises(ValidationError):
        TargetSettings(**settings)
