"""Sequences of other matrices: refused, or resampled to one channel where cohort.yaml asks for it."""

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.mask_file import read_mask
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.errors import UserError


def ramp(s, y, x):
    """Return values that are linear in millimeters, so that resampling changes none but at the border."""
    return 100 + 10 * s + 3 * y + 2 * x


@pytest.fixture
def volumes(tmp_path):
    """A FLAIR at 1 x 1 x 2 mm, a T1 at 0.5 x 0.5 x 1 mm of the same head, and a mask on the T1."""
    (tmp_path / "p1").mkdir()
    for name, step in (("flair", 1.0), ("t1", 0.5), ("mask", 0.5)):
        x, y, s = np.meshgrid(*(np.arange(0, end, step) for end in (20, 16, 8)), indexing="ij")
        values = ramp(s, y, x) if name != "mask" else (x < 8)
        affine = np.diag([-step, -step, step, 1.0])
        kind = np.uint8 if name == "mask" else np.float32
        nibabel.save(nibabel.Nifti1Image(values.astype(kind), affine), tmp_path / "p1" / f"{name}.nii.gz")
    return tmp_path


def test_images_on_other_grids_are_refused_and_the_way_out_is_said(volumes):
    with pytest.raises(UserError, match=r"one grid.*resample_to"):
        open_cohort(volumes).read("p1")


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("onto", "shape"), [("flair", (8, 16, 20)), ("T1", (16, 32, 40))])
def test_they_are_resampled_to_the_channel_that_is_asked_for_and_masks_come_back_on_its_grid(
    volumes, onto, shape, listed
):
    inputs = [volumes / "cohort.yaml"]
    if listed:
        inputs.insert(0, volumes / "cohort.csv")
        rows = "case,flair,t1,mask\np1,p1/flair.nii.gz,p1/t1.nii.gz,p1/mask.nii.gz\n"
        inputs[0].write_text(rows)
    (volumes / "cohort.yaml").write_text(f"resample_to: {onto}\n")
    cohort = open_cohort(volumes)
    case = cohort.read("p1")
    assert (case.shape, case.channels) == (shape, ("flair", "t1"))
    inner = case.image[2:-2, 3:-3, 3:-3]
    assert np.allclose(inner[..., 0], inner[..., 1], atol=0.01)
    assert any("resampled" in warning for warning in case.warnings)
    assert set(np.unique(case.mask)) == {0, 1}
    written = write_mask(case.mask, case, volumes / "out", native_format(case))
    image = nibabel.load(volumes / "p1" / f"{onto.lower()}.nii.gz")
    assert nibabel.load(written).shape == image.shape
    assert np.allclose(nibabel.load(written).affine, image.affine)
    assert np.array_equal(read_mask(written)[0], case.mask)
    assert cohort.inputs == tuple(inputs), "another grid is another prepared cohort"


@pytest.mark.parametrize(("name", "t1", "mask"), [("brats-2018", "t1", "seg"), ("upenn-gbm", "T1", "segm")])
def test_public_sets_are_resampled_as_the_refusal_of_their_grids_says(tmp_path, name, t1, mask):
    synthesize_layout(name, tmp_path / name)
    for file in [*tmp_path.rglob(f"*_{t1}.nii.gz"), *tmp_path.rglob(f"*_{mask}.nii.gz")]:
        image = nibabel.load(file)
        coarse = nibabel.Nifti1Image(np.asarray(image.dataobj)[::2, ::2], image.affine @ np.diag([2, 2, 1, 1]))
        nibabel.save(coarse, file)
    case_id = open_cohort(tmp_path / name).cases[0].id
    with pytest.raises(UserError, match="write `resample_to: CHANNEL`"):
        open_cohort(tmp_path / name).read(case_id)
    (tmp_path / name / "cohort.yaml").write_text("resample_to: flair\n")
    cohort = open_cohort(tmp_path / name)
    case = cohort.read(case_id)
    assert (case.shape, case.channels) == ((12, 32, 32), ("flair", "t1", "t1ce", "t2"))
    assert set(np.unique(case.mask)) == {0, 1, 2, 4}
    assert any("resampled to the grid of flair: t1" in warning for warning in case.warnings)
    assert cohort.inputs == (tmp_path / name / "cohort.yaml",), "another grid is another prepared cohort"


def test_a_channel_that_no_image_is_cannot_be_resampled_to(volumes):
    (volumes / "cohort.yaml").write_text("resample_to: t2\n")
    with pytest.raises(UserError, match="flair, t1"):
        open_cohort(volumes).read("p1")


@pytest.mark.parametrize("registered", [True, False])
def test_series_of_other_matrices_are_resampled_within_one_frame_of_reference(tmp_path, registered):
    study = tmp_path / "study"
    write_series(study / "t1", np.full((5, 40, 50), 7, np.uint16), description="AX T1", number=1)
    write_series(study / "flair", np.arange(5 * 20 * 25).reshape(5, 20, 25) + 1, number=2)
    if not registered:
        for file in (study / "t1").iterdir():
            ds = pydicom.dcmread(file)
            ds.FrameOfReferenceUID = "1.2.3.4"
            pydicom.dcmwrite(file, ds, enforce_file_format=True)
    (tmp_path / "cohort.yaml").write_text("resample_to: flair\n")
    cohort = open_cohort(tmp_path)
    if not registered:
        with pytest.raises(UserError, match="frames of reference"):
            cohort.read("study")
        return
    case = cohort.read("study")
    assert (case.shape, case.channels) == ((5, 20, 25), ("pre", "flair"))
    assert np.allclose(case.image[..., 0], 7)
    assert case.files[0].parent.name == "flair"
    assert write_mask(np.ones(case.shape, np.uint8), case, tmp_path / "out", native_format(case)).is_file()
