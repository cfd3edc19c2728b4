"""Masks and numbers as JSON holds them."""

import base64
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from bundles import ORIGIN, Bright, changed, describe
from data.dicom_series import CORONAL, write_series
from glioflow.bundle.answer import answer_to_json
from glioflow.bundle.encoded_mask import decode_runs, encode_mask, encode_runs, legend_of
from glioflow.bundle.prediction import Predictor
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import read_study
from glioflow.errors import UserError
from glioflow.serving.http.answers import check_format


@pytest.fixture
def case(lgg):
    cohort = open_cohort(lgg)
    return cohort.read(cohort.cases[0].id)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([0, 0, 0], []),
        ([1, 1, 1], [0, 3]),
        ([0, 1, 1, 0, 1], [1, 2, 4, 1]),
        ([[1, 0], [0, 1]], [0, 1, 3, 1]),
        ([[0, 1], [1, 0]], [1, 2]),  # a run goes on in the next row
    ],
)
def test_runs_are_start_and_length_over_the_flattened_mask(mask, expected):
    assert encode_runs(np.array(mask, bool)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_runs_give_back_the_labels_they_came_from(case, seed):
    labels = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 4], size=(3, 7, 5)).astype(np.uint8)
    encoded = json.loads(json.dumps(encode_mask(labels, case, "rle")))
    assert encoded["labels"] == sorted(set(labels.ravel().tolist()) - {0})
    np.testing.assert_array_equal(decode_runs(encoded["data"], tuple(encoded["shape"])), labels)


def test_a_format_is_checked_before_anything_is_computed(case):
    assert check_format(None, case) == "rle"
    assert check_format("tiff", case) == "tiff"
    with pytest.raises(UserError, match="one slice for a mask as png") as error:
        check_format("png", case)
    assert "rle" in error.value.choices
    with pytest.raises(UserError, match="unknown mask format") as error:
        check_format("gif", case)
    assert {"rle", "png", "tiff", "nifti", "dicom-seg", "none"} == set(error.value.choices)
    with pytest.raises(UserError, match="read from DICOM"):
        check_format("dicom-seg", case)
    assert check_format("png", replace(case, image=case.image[:1])) == "png"


def test_a_mask_as_files_holds_every_slice(case):
    import tifffile

    labels = (case.image[..., 1] > 60).astype(np.uint8)
    encoded = encode_mask(labels, case, "tiff")
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(encoded["data"]))) as archive:
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
    encoded = encode_mask(np.ones((1, 2, 2), np.uint8), case, "none")
    assert (encoded["format"], encoded["encoding"], encoded["shape"], encoded["labels"]) == (
        "none",
        "none",
        [1, 2, 2],
        [1],
    )
    assert encoded["data"] is None


BRATS = ORIGIN.model_copy(update={"cohort_format": "brats"})
REGIONS = {
    "kind": "regions",
    "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
    "decode": {"WT": 2, "TC": 1, "ET": 4},
}


def test_a_mask_says_what_its_labels_mean(tiny):
    legend = legend_of(describe(changed(tiny, target=REGIONS), origin=BRATS))
    assert legend.names == {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}
    assert legend.regions == {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    classes = changed(tiny, target={"kind": "multiclass", "labels": [1, 2, 3]})
    assert legend_of(describe(classes, origin=BRATS)).names[3] == "enhancing tumor"
    assert legend_of(describe(classes)).names[3] == "label_3", "of a foreign cohort nothing is known"
    assert legend_of(describe(tiny)).names == {1: "tumor"}


@pytest.mark.parametrize("found", [(1, 2, 4), (2,), ()])
def test_dicom_seg_has_a_segment_for_each_name_where_the_series_lies(tiny, tmp_path, found):
    import highdicom

    write_series(tmp_path / "s", np.full((5, 12, 10), 9, np.uint16), orientation=CORONAL, step=(0, 3.0, 0))
    case = read_study([tmp_path / "s"])
    labels = np.zeros(case.shape, np.uint8)
    for number, value in enumerate(found):
        labels[2 * number + 1, 1 : 3 + number, 2] = value
    legend = legend_of(describe(changed(tiny, target=REGIONS), origin=BRATS))
    encoded = encode_mask(labels, case, "dicom-seg", legend)
    assert encoded["names"] == {"1": "necrotic core", "2": "edema", "4": "enhancing tumor"}
    (tmp_path / "mask.dcm").write_bytes(base64.b64decode(encoded["data"]))
    written = highdicom.seg.segread(tmp_path / "mask.dcm")
    names = {number: written.get_segment_description(number).segment_label for number in written.segment_numbers}
    assert set(names.values()) == set(legend.names.values())
    volume = written.get_volume(combine_segments=True)
    for number, name in names.items():
        value = next(value for value, each in legend.names.items() if each == name)
        places = np.argwhere(volume.array == number)
        got = {tuple(np.round((volume.affine @ [*at, 1])[:3], 3)) for at in places}
        full = case.grid.to_file(labels)
        to_patient = np.diag([-1, -1, 1, 1]) @ case.grid.affine  # DICOM's axes
        wanted = {tuple(np.round((to_patient @ [*at, 1])[:3], 3)) for at in np.argwhere(full == value)}
        assert got == wanted, name


@pytest.mark.parametrize("empty", [False, True])
def test_an_answer_is_plain_json_with_everything_in_it(tiny, case, empty):
    prediction = Predictor(describe(tiny), Bright(above=2 if empty else 0.3)).predict(case)
    answer = answer_to_json(case, prediction, {"name": "glioma", "version": 3, "run_id": "x"})
    again = json.loads(json.dumps(answer, allow_nan=False))
    assert again["model"] == {"name": "glioma", "version": 3, "run_id": "x"}
    assert set(again) == {"model", "study", "tumor", "uncertainty", "features", "survival", "timing_ms", "notice"}
    assert set(again["study"]) == {"id", "slices", "spacing_mm", "warnings"}
    assert {"detected", "probability", "slices", "positions", "positions_mm", "volume", "regions"} == set(
        again["tumor"]
    )
    assert again["tumor"]["detected"] is not empty
    assert "not for clinical use" in again["notice"]
