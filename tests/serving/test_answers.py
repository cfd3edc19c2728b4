"""Masks and numbers as JSON holds them."""

import base64
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from bundles import Bright, describe
from glioflow.data.cohort import open_cohort
from glioflow.errors import UserError
from glioflow.prediction import Predictor
from glioflow.serving.answers import check_format, encode_mask, from_runs, runs, to_json


@pytest.fixture
def case(lgg):
    cohort = open_cohort(lgg)
    return cohort.read(cohort.cases[0].id)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ([0, 0, 0], []),
        ([1, 1, 1], [0, 3]),
        ([0, 1, 1, 0, 1], [1, 2, 4, 1]),
        ([[1, 0], [0, 1]], [0, 1, 3, 1]),
        ([[0, 1], [1, 0]], [1, 2]),  # a run goes on in the next row
    ],
)
def test_runs_are_start_and_length_over_the_flattened_mask(mask, said):
    assert runs(np.array(mask, bool)) == said


@pytest.mark.parametrize("seed", range(5))
def test_runs_give_back_the_labels_they_came_from(case, seed):
    labels = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 4], size=(3, 7, 5)).astype(np.uint8)
    said = json.loads(json.dumps(encode_mask(labels, case, "rle")))
    assert said["labels"] == sorted(set(labels.ravel().tolist()) - {0})
    np.testing.assert_array_equal(from_runs(said["data"], tuple(said["shape"])), labels)


def test_a_format_is_checked_before_anything_is_computed(case):
    assert check_format(None, case) == "rle"
    assert check_format("tiff", case) == "tiff"
    with pytest.raises(UserError, match="a png holds one slice") as error:
        check_format("png", case)
    assert "rle" in error.value.choices
    with pytest.raises(UserError, match="unknown mask format") as error:
        check_format("gif", case)
    assert {"rle", "png", "tiff", "nifti", "dicom-seg", "none"} == set(error.value.choices)
    assert check_format("png", replace(case, image=case.image[:1])) == "png"


def test_a_mask_as_files_holds_every_slice(case):
    import tifffile

    labels = (case.image[..., 1] > 60).astype(np.uint8)
    said = encode_mask(labels, case, "tiff")
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(said["data"]))) as archive:
        pages = [tifffile.imread(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    assert len(pages) == len(labels)
    assert all(set(np.unique(page)) <= {0, 255} for page in pages)
    assert sum(np.count_nonzero(page) for page in pages) == np.count_nonzero(labels)


def test_a_single_slice_as_png_is_black_and_white(case):
    import cv2

    labels = (case.image[:1, ..., 1] > 60).astype(np.uint8)
    one = replace(case, image=case.image[:1], slice_numbers=case.slice_numbers[:1])
    content = base64.b64decode(encode_mask(labels, one, "png")["data"])
    page = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(page > 0, labels[0] > 0)


def test_no_mask_is_sent_where_none_is_asked(case):
    said = encode_mask(np.ones((1, 2, 2), np.uint8), case, "none")
    assert said == {"format": "none", "encoding": "none", "shape": [1, 2, 2], "labels": [1], "data": None}


@pytest.mark.parametrize("empty", [False, True])
def test_an_answer_is_plain_json_with_everything_in_it(tiny, case, empty):
    prediction = Predictor(describe(tiny), Bright(above=2 if empty else 0.3)).predict(case)
    said = to_json(case, prediction, {"name": "glioma", "version": 3, "run_id": "x"})
    again = json.loads(json.dumps(said, allow_nan=False))
    assert again["model"] == {"name": "glioma", "version": 3, "run_id": "x"}
    assert set(again) == {"model", "study", "tumor", "uncertainty", "features", "survival", "timing_ms", "notice"}
    assert set(again["study"]) == {"id", "slices", "spacing_mm", "warnings"}
    assert set(again["tumor"]) == {"detected", "probability", "slices", "volume"}
    assert again["tumor"]["detected"] is not empty
    assert "not for clinical use" in again["notice"]
