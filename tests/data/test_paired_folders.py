"""Folders of images and of masks side by side, as much public code has them, and persons with several visits."""

import json

import nibabel
import numpy as np
import pytest

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.errors import UserError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
RANDOM = np.random.default_rng(0)


def write(root, *names):
    """Write a volume for each name: a mask of ones and zeros where it is in a folder of masks or named as one."""
    for name in names:
        mask = any(word in name.lower() for word in ("mask", "label", "seg"))
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = RANDOM.integers(0, 2, (4, 5, 6)) if mask else RANDOM.integers(1, 500, (4, 5, 6))
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.uint8 if mask else np.int16), LPS), path)
    return root


@pytest.mark.parametrize(
    ("names", "cases", "channels"),
    [
        (["images/{}.nii.gz", "masks/{}.nii.gz"], ["p1", "p2"], ("image",)),
        (["Images/{}_t1.nii.gz", "Images/{}_flair.nii.gz", "Labels/{}.nii.gz"], ["p1", "p2"], ("t1", "flair")),
        (["imgs/{}_flair.nii", "segmentations/{}.nii"], ["p1_flair", "p2_flair"], ("flair",)),
        (["imagesTr/{}.nii.gz", "labelsTr/{}_seg.nii.gz"], ["p1", "p2"], ("image",)),
        (["imagesTr/{}_t1.nii", "imagesTr/{}_flair.nii", "labelsTr/{}.nii"], ["p1", "p2"], ("t1", "flair")),
        (["train/images/{}.nii.gz", "train/labels/{}.nii.gz"], ["p1", "p2"], ("image",)),
        (["images/training/{}_flair.nii", "labels/training/{}_flair.nii"], ["p1_flair", "p2_flair"], ("flair",)),
        (["images/{}/t1.nii.gz", "images/{}/flair.nii.gz", "masks/{}/a.nii.gz"], ["p1", "p2"], ("t1", "flair")),
        (["{}/images/t1.nii.gz", "{}/images/flair.nii.gz", "{}/masks/a.nii.gz"], ["p1", "p2"], ("t1", "flair")),
        (["Köpfe und Ähnliches/images/{}.nii", "Köpfe und Ähnliches/masks/{}.nii"], ["p1", "p2"], ("image",)),
    ],
)
def test_masks_beside_images_are_those_of_their_cases(tmp_path, names, cases, channels):
    write(tmp_path, *(name.format(person) for name in names for person in ("p1", "p2")))
    cohort = open_cohort(tmp_path)
    assert [case.id for case in cohort.cases] == cases
    read = cohort.read(cases[0])
    assert set(read.channels) == set(channels)
    assert read.mask is not None
    assert read.mask.any()
    assert check(tmp_path).ok


def test_a_mask_beside_images_that_has_none_is_named(tmp_path):
    write(tmp_path, "images/p1.nii.gz", "masks/p1.nii.gz", "masks/p7.nii.gz")
    with pytest.raises(UserError, match=r"p7.*a mask has no image"):
        open_cohort(tmp_path)


def test_a_folder_of_nnunet_with_one_data_set_is_that_one_and_of_several_one_is_asked_for(tmp_path):
    for name in ("Dataset001_A", "Dataset002_B"):
        write(tmp_path, f"{name}/imagesTr/p1_0000.nii.gz", f"{name}/labelsTr/p1.nii.gz", f"{name}/imagesTs/p9_0000.nii")
        (tmp_path / name / "dataset.json").write_text(
            json.dumps({"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "tumor": 1}})
        )
        if name == "Dataset001_A":
            cohort = open_cohort(tmp_path)
            assert [case.id for case in cohort.cases] == ["p1"]
            assert cohort.read("p1").channels == ("flair",)
    with pytest.raises(UserError, match=r"one data set.*Dataset001_A, Dataset002_B"):
        open_cohort(tmp_path)


@pytest.mark.parametrize(
    ("names", "patient"),
    [
        (["p1/2019-03-01/{}.nii", "p1/2020-04-01/{}.nii"], "p1"),
        (["p1/baseline/{}.nii", "p1/week-12/{}.nii"], "p1"),
        (["site/p1/timepoint_1/{}.nii", "site/p1/timepoint_2/{}.nii"], "p1"),
        (["BraTS-GLI-00005-100/{}.nii", "BraTS-GLI-00005-101/{}.nii"], "BraTS-GLI-00005"),
    ],
)
def test_visits_are_one_person(tmp_path, names, patient):
    write(tmp_path, *(name.format(channel) for name in names for channel in ("t1", "flair", "seg")))
    cases = open_cohort(tmp_path).cases
    assert [case.patient for case in cases] == [patient, patient]
    assert len({case.id for case in cases}) == 2


@pytest.mark.parametrize("ends", [("-000", "-100"), ("_11", "_21")], ids=["brats", "upenn"])
def test_visits_in_the_layout_of_nnunet_are_one_person(tmp_path, ends):
    person = "BraTS-GLI-00005" if ends[0] == "-000" else "UPENN-GBM-00005"
    write(tmp_path, *(f"imagesTr/{person}{end}_0000.nii.gz" for end in ends))
    assert {case.patient for case in open_cohort(tmp_path).cases} == {person}
