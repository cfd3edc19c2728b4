"""The volume of each region with its interval, and the reason where there is none."""

from dataclasses import replace

import numpy as np
import pytest

from bundles import changed, describe
from glioflow.bundle.tumor import find_tumor
from glioflow.data.case import Case
from glioflow.evaluation import VolumeInterval, decode
from glioflow.runs.crossval.run import fit_interval

NESTED = {
    "kind": "regions",
    "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
    "decode": {"WT": 2, "TC": 1, "ET": 4},
}


def rows(unit="mm3", parts=("WT", "TC", "ET"), patients=12):
    """Out-of-fold volumes: the whole tumor is met to 10 %, each further region is off by twice as much."""
    known = []
    for k in range(patients):
        row = {"id": f"p{k}", "patient": f"p{k}", "fold": k % 3}
        for factor, suffix in enumerate(("", *(f"_{name}" for name in parts))):
            row |= {
                f"volume_prediction_{unit}{suffix}": 1000.0,
                f"volume_reference_{unit}{suffix}": 1100.0 * (1 + factor),
            }
        known.append(row)
    return known


@pytest.fixture
def study():
    return Case(
        id="a",
        patient="a",
        image=np.zeros((4, 10, 10, 3), np.float32),
        mask=None,
        channels=("pre", "flair", "post"),
        slice_numbers=(1, 2, 3, 4),
        spacing_mm=(2.0, 1.0, 1.0),
    )


def tumor_of(tiny, case, interval):
    description = describe(changed(tiny, target=NESTED), volume_interval=interval)
    probabilities = np.zeros((*case.image.shape[:3], 3), np.float32)
    for k, size in enumerate((8, 5, 2)):  # each region inside the one before
        probabilities[1:3, :size, :size, k] = 1
    return find_tumor(decode(description.target, description.postprocess, probabilities), case, description)


def test_each_region_has_the_interval_that_was_fitted_on_its_own_errors(tiny, study):
    fitted = fit_interval(rows(), parts=("WT", "TC", "ET"))
    tumor = tumor_of(tiny, study, VolumeInterval.model_validate_json(fitted.model_dump_json()))
    volumes = {name: region["volume_mm3"] for name, region in tumor["regions"].items()}
    assert volumes == {"WT": 256, "TC": 100, "ET": 16}
    assert tumor["volume"]["value"] == 256
    growth = {}
    for name, region in tumor["regions"].items():
        low, high = region["interval"]
        assert low < region["volume_mm3"] < high
        assert region["no_interval"] is None
        growth[name] = high / region["volume_mm3"]
    assert growth["WT"] < growth["TC"] < growth["ET"]
    assert tumor["volume"]["interval"][1] < tumor["regions"]["WT"]["interval"][1]


@pytest.mark.parametrize(
    ("interval", "spacing", "why"),
    [
        (None, (2.0, 1.0, 1.0), "register RUN --crossval RUN"),
        (fit_interval(rows()), (2.0, 1.0, 1.0), "of the whole tumor only"),
        (fit_interval(rows()), None, "spacing is unknown"),
        (fit_interval(rows(unit="px")), (2.0, 1.0, 1.0), "in voxels"),
        (fit_interval(rows(patients=4)), (2.0, 1.0, 1.0), "4 cross-validated patients are too few"),
    ],
)
def test_a_region_without_an_interval_says_why(tiny, study, interval, spacing, why):
    tumor = tumor_of(tiny, replace(study, spacing_mm=spacing), interval)
    for region in tumor["regions"].values():
        assert region["interval"] is None
        assert why in region["no_interval"]
    assert (tumor["volume"]["interval"] is None) == ("whole tumor only" not in why)


def test_the_only_region_of_a_model_has_the_interval_of_the_tumor(tiny, study):
    description = describe(tiny, volume_interval=fit_interval(rows(parts=())))
    probabilities = np.ones((*study.image.shape[:3], 1), np.float32)
    tumor = find_tumor(decode(description.target, description.postprocess, probabilities), study, description)
    assert tumor["regions"]["tumor"]["interval"] == tumor["volume"]["interval"] is not None
