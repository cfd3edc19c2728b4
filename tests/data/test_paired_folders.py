"""Folders of images and of masks side by side, as much public code has them, and persons with several visits."""

import json

import nibabel
import numpy as np
import pytest

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats import nifti_names
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import guess_role
from glioflow.data.formats.study import read_study
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
        (["images/{}/t1.nii.gz", "images/{}/flair.nii.gz", "masks/{}_seg.nii.gz"], ["p1", "p2"], ("t1", "flair")),
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


@pytest.mark.parametrize("name", ["{0}/{0}_{1}.nii.gz", "{0}_{1}.nii.gz", "{0}/images/{1}.nii.gz"])
def test_folders_above_a_cohort_say_nothing_about_its_files(tmp_path, name):
    (tmp_path / "images").mkdir()
    root = write(tmp_path / "segmentation", *(name.format(p, c) for p in ("p1", "p2") for c in ("t1", "flair")))
    assert set(open_cohort(root).read("p1" if "images" not in name else "p1_images").channels) == {"t1", "flair"}
    files = sorted(file for file in root.rglob("*.nii.gz") if "p1" in file.as_posix())
    assert set(read_study(files).channels) == {"t1", "flair"}


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


@pytest.mark.parametrize("names", [["train/week1", "train/week2"], ["site/200101", "site/200102"]])
def test_parts_of_a_cohort_are_no_persons_and_six_digits_no_date(tmp_path, names):
    write(tmp_path, *(f"{name}/{channel}.nii" for name in names for channel in ("t1", "flair")))
    assert len({case.patient for case in open_cohort(tmp_path).cases}) == 2


@pytest.mark.parametrize("ends", [("-000", "-100"), ("_11", "_21")], ids=["brats", "upenn"])
def test_visits_in_the_layout_of_nnunet_are_one_person(tmp_path, ends):
    person = "BraTS-GLI-00005" if ends[0] == "-000" else "UPENN-GBM-00005"
    write(tmp_path, *(f"imagesTr/{person}{end}_0000.nii.gz" for end in ends))
    assert {case.patient for case in open_cohort(tmp_path).cases} == {person}


@pytest.mark.parametrize(
    "mask", ["seg_manual", "{}_seg_v2", "tumor", "GTV", "lesion", "mask_final", "tumorMask", "{}-label-R1", "{}.seg"]
)
def test_a_mask_is_known_by_the_words_that_people_use_and_is_no_channel(tmp_path, mask):
    for person in ("p1", "p2"):
        write(tmp_path, f"{person}/t1.nii.gz", f"{person}/flair.nii.gz", f"{person}/mask.nii.gz")
        (tmp_path / person / "mask.nii.gz").rename(tmp_path / person / f"{mask.format(person)}.nii.gz")
    case = open_cohort(tmp_path).read("p1")
    assert case.channels == ("flair", "t1")
    assert case.mask is not None


@pytest.mark.parametrize("name", ["p1_seg_T1", "seg_0001", "p1_segmented_flair", "mask_00012_0003"])
def test_images_whose_names_have_such_a_word_too_stay_images(tmp_path, name):
    assert guess_role(tmp_path / f"{name}.nii.gz") == "image"


def test_masks_of_two_tools_are_named_and_one_is_chosen(tmp_path):
    write(tmp_path, "p1/flair.nii.gz", "p1/seg_manual.nii.gz", "p1/seg_nnunet.nii.gz")
    with pytest.raises(UserError, match=r"one mask; got seg_manual\.nii\.gz, seg_nnunet\.nii\.gz"):
        open_cohort(tmp_path).read("p1")
    (tmp_path / "cohort.yaml").write_text("masks: [seg_manual.nii.gz]\n")
    assert open_cohort(tmp_path).read("p1").channels == ("flair",)


@pytest.mark.parametrize("between", [" ", ".", "_", "-"])
@pytest.mark.parametrize("folder", ["", "{}/"])
def test_blanks_and_dots_separate_sequences_from_persons_too(tmp_path, between, folder):
    for person in ("Müller 1", "Müller 2"):
        write(tmp_path, *(f"{folder.format(person)}{person}{between}{end}.nii" for end in ("flair", "t1", "seg")))
    cohort = open_cohort(tmp_path)
    assert [case.patient for case in cohort.cases] == ["Müller 1", "Müller 2"]
    case = cohort.read("Müller 2")
    assert case.channels == ("flair", "t1")
    assert case.mask is not None


def test_what_lies_in_a_folder_of_a_case_is_of_the_same_person(tmp_path):
    for person in ("p1", "p2"):
        write(tmp_path, *(f"{person}/{name}.nii.gz" for name in ("t1", "flair", "seg", "derived/t1", "derived/flair")))
    assert {(case.id, case.patient) for case in open_cohort(tmp_path).cases} == {
        ("p1", "p1"),
        ("p1_derived", "p1"),
        ("p2", "p2"),
        ("p2_derived", "p2"),
    }


def test_an_image_beside_the_folders_of_persons_does_not_make_them_one(tmp_path):
    write(tmp_path, "data/atlas.nii.gz", *(f"data/{person}/{name}.nii.gz" for person in "abc" for name in ("t1", "t2")))
    assert [case.patient for case in open_cohort(tmp_path).cases] == ["a", "b", "c", "data"]


def test_a_set_whose_masks_are_spelled_in_other_letters_keeps_them(tmp_path):
    case = "UPENN-GBM-00002_11"
    write(tmp_path, *(f"images_structural/{case}/{case}_{name}.nii.gz" for name in ("flair", "T1", "t1gd", "T2")))
    write(tmp_path, f"images_segm/{case.lower()}_segm.nii.gz")
    (only,) = open_cohort(tmp_path).cases
    assert (only.id, only.patient, len(only.files)) == (case, case[:-3], 5)


def test_two_folders_of_many_files_are_listed_in_as_many_steps_as_files(tmp_path, monkeypatch):
    calls = []
    owner_of = nifti_names.owner_of
    monkeypatch.setattr(nifti_names, "owner_of", lambda name: calls.append(name) or owner_of(name))
    for number in range(50):
        for name in (f"images/p{number}_flair.nii.gz", f"masks/p{number}.nii.gz"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
    assert len(open_cohort(tmp_path).cases) == 50
    assert len(calls) <= 200
