"""TIFF and PNG in the layout of nnU-Net, as its own readers take them."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from glioflow.config import Experiment
from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import open_source
from glioflow.data.formats.writing import encode_nifti, native_format
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.errors import UserError

RANDOM = np.random.default_rng(0)
SHAPE = (6, 32, 24)
STEPS = Experiment.model_validate({"name": "a", "preprocess": [{"step": "zscore"}]}).preprocess


def describe(root, channels, ending):
    labels = {"background": 0, "edema": 1, "enhancing": 2}
    text = {"channel_names": dict(enumerate(channels)), "labels": labels, "file_ending": ending}
    (root / "dataset.json").write_text(json.dumps(text))


@pytest.fixture
def volumes(tmp_path):
    """Two cases of two channels as TIFF, with their spacing beside."""
    for folder, channels in (("imagesTr", ("_0000", "_0001")), ("labelsTr", ("",)), ("imagesTs", ("_0000", "_0001"))):
        (tmp_path / folder).mkdir()
        for case in ("TUMOR_001", "TUMOR_002"):
            for channel in channels:
                values = RANDOM.integers(1, 900, SHAPE).astype(np.uint16)
                values = values if channel else (values % 3).astype(np.uint8)
                tifffile.imwrite(tmp_path / folder / f"{case}{channel}.tif", values)
            (tmp_path / folder / f"{case}.json").write_text('{"spacing": [3.0, 0.5, 0.75]}')
    describe(tmp_path, ("T1", "FLAIR"), ".tif")
    return tmp_path


def test_volumes_in_tiff_are_channels_on_the_spacing_that_lies_beside(volumes):
    cohort = open_cohort(volumes)
    assert [case.id for case in cohort.cases] == ["TUMOR_001", "TUMOR_002"]
    assert cohort.labels == {1: "edema", 2: "enhancing"}
    case = cohort.read("TUMOR_002")
    assert (case.channels, case.spacing_mm, case.shape) == (("t1", "flair"), (3.0, 0.5, 0.75), SHAPE)
    stored = tifffile.imread(volumes / "imagesTr" / "TUMOR_002_0001.tif")
    assert np.array_equal(case.image[..., 1], stored)
    assert np.array_equal(case.mask, tifffile.imread(volumes / "labelsTr" / "TUMOR_002.tif"))
    assert check(volumes).problems == ()


def test_new_cases_in_tiff_are_studies_whose_masks_keep_their_labels(volumes, tmp_path):
    cohort = open_source(volumes / "imagesTs")
    case = cohort.read("TUMOR_001")
    assert (len(cohort.cases), case.channels, case.mask) == (2, ("t1", "flair"), None)
    assert native_format(case) == "nifti"
    assert encode_nifti(np.full(SHAPE, 2, np.uint8), case)


def test_stacks_are_channels_without_a_description_too_and_lone_slices_are_not(volumes):
    (volumes / "dataset.json").unlink()
    cohort = open_source(volumes / "imagesTs")
    assert [case.id for case in cohort.cases] == ["TUMOR_001", "TUMOR_002"]
    assert cohort.read("TUMOR_001").channels == ("channel0", "channel1")
    slices = volumes / "TUMOR_9"
    slices.mkdir()
    for number in range(3):
        tifffile.imwrite(slices / f"TUMOR_9_{number:04}.tif", np.ones((8, 9, 3), np.uint8), photometric="rgb")
    assert open_source(slices).read("TUMOR_9").shape == (3, 8, 9)


def test_a_spacing_that_is_missing_is_unknown_and_a_wrong_one_is_refused(volumes):
    file = volumes / "imagesTr" / "TUMOR_001.json"
    file.unlink()
    case = open_cohort(volumes).read("TUMOR_001")
    assert case.spacing_mm is None
    assert "neither spacing nor orientation" in case.warnings[0]
    file.write_text('{"spacing": [3.0, 0.5]}')
    with pytest.raises(UserError, match="spacing"):
        open_cohort(volumes).read("TUMOR_001")


def test_another_spacing_beside_a_picture_prepares_the_cohort_anew(volumes, home):
    before = find_or_prepare(volumes, STEPS, home=home)
    for folder in ("imagesTr", "labelsTr"):
        (volumes / folder / "TUMOR_001.json").write_text('{"spacing": [5.0, 0.5, 0.75]}')
    after = find_or_prepare(volumes, STEPS, home=home)
    assert [each.case("TUMOR_001").record.spacing_mm[0] for each in (before, after)] == [3.0, 5.0]


@pytest.mark.parametrize("color", [False, True], ids=["two gray files", "one in color"])
def test_slices_in_png_are_channels(tmp_path, color):
    names = ("R", "G", "B") if color else ("T1", "FLAIR")
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    planes = RANDOM.integers(1, 255, (32, 24, len(names))).astype(np.uint8)
    for case in ("img-11", "img-12"):
        for channel in range(1 if color else 2):
            Image.fromarray(planes if color else planes[..., channel].copy()).save(
                tmp_path / "imagesTr" / f"{case}_{channel:04}.png"
            )
        Image.fromarray((planes[..., 0] > 99).astype(np.uint8)).save(tmp_path / "labelsTr" / f"{case}.png")
    describe(tmp_path, names, ".png")
    case = open_cohort(tmp_path).read("img-11")
    assert case.channels == tuple(name.lower() for name in names)
    assert np.array_equal(case.image[0], planes)
    assert np.array_equal(case.mask[0], planes[..., 0] > 99)


def test_pictures_beside_volumes_are_previews(volumes):
    import nibabel

    for file in [*volumes.rglob("*.tif")]:
        nibabel.save(nibabel.Nifti1Image(tifffile.imread(file), np.eye(4)), file.with_suffix(".nii.gz"))
        Image.fromarray(np.ones((8, 9), np.uint8)).save(file.with_suffix(".png"))
        file.unlink()
    names = ["TUMOR_001_0000.nii.gz", "TUMOR_001_0001.nii.gz", "TUMOR_001.nii.gz"]
    assert [file.name for file in open_cohort(volumes).cases[0].files] == names
