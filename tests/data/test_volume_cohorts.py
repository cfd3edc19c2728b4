import json
import re
from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import read_study
from glioflow.data.formats.volume_files import read_volume
from glioflow.data.sequences import sequence_of
from glioflow.errors import UserError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NEW = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}


def save(path, volume, affine=LPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume), affine), path)
    return path


def write_brats(root, case="BraTS20_Training_001", *, labels=(0, 1, 2, 4), end=".nii.gz", seg="{case}_seg"):
    modern = case.startswith("BraTS-")
    for index, name in enumerate(("flair", "t1", "t1ce", "t2")):
        suffix = f"-{NEW[name]}" if modern else f"_{name}"
        save(root / case / f"{case}{suffix}{end}", np.full((4, 5, 6), index + 1, np.int16))
    if seg:
        mask = np.resize(np.array(labels, np.uint8), (4, 5, 6))
        save(root / case / f"{seg.format(case=case).replace('_seg', '-seg' if modern else '_seg')}{end}", mask)
    return root / case


def read_first(path):
    cohort = open_cohort(path)
    return cohort, cohort.read(cohort.cases[0].id)


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_first(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
@pytest.mark.parametrize("case", ["BraTS20_Training_001", "BraTS2021_00006", "Brats18_CBICA_AAM_1"])
def test_names_to_2021_give_four_channels_and_labels_1_2_4(tmp_path, case, end):
    write_brats(tmp_path, case, end=end)
    cohort, read = read_first(tmp_path)
    assert cohort.format == "brats"
    assert list(cohort.labels) == [1, 2, 4]
    assert read.channels == ("flair", "t1", "t1ce", "t2")
    assert read.image[0, 0, 0].tolist() == [1, 2, 3, 4]
    assert set(np.unique(read.mask)) == {0, 1, 2, 4}


def test_names_from_2023_give_the_same_channels_and_labels_1_2_3(tmp_path):
    write_brats(tmp_path, "BraTS-GLI-00001-000", labels=(0, 1, 2, 3))
    cohort, read = read_first(tmp_path)
    assert list(cohort.labels) == [1, 2, 3]
    assert read.channels == ("flair", "t1", "t1ce", "t2")
    assert read.image[0, 0, 0].tolist() == [1, 2, 3, 4]
    assert read.patient == "BraTS-GLI-00001"


def test_two_visits_are_one_patient(tmp_path):
    write_brats(tmp_path, "BraTS-GLI-00001-000", labels=(0, 1))
    write_brats(tmp_path, "BraTS-GLI-00001-001", labels=(0, 1))
    assert [case.patient for case in open_cohort(tmp_path).cases] == ["BraTS-GLI-00001"] * 2


def test_centers_of_2018_are_institutions_below_grade_folders(tmp_path):
    write_brats(tmp_path / "HGG", "Brats18_CBICA_AAM_1")
    write_brats(tmp_path / "LGG", "Brats18_TCIA01_131_1")
    cases = open_cohort(tmp_path).cases
    assert [(case.patient, case.institution) for case in cases] == [
        ("Brats18_CBICA_AAM", "CBICA"),
        ("Brats18_TCIA01_131", "TCIA"),
    ]


def test_mask_of_case_355_is_found_under_its_stray_name(tmp_path):
    write_brats(tmp_path, "BraTS20_Training_355", seg="W39_1998.09.19_Segm", end=".nii")
    assert set(np.unique(read_first(tmp_path)[1].mask)) == {0, 1, 2, 4}


def test_validation_case_has_no_mask(tmp_path):
    write_brats(tmp_path, "BraTS20_Validation_001", seg=None)
    assert read_first(tmp_path)[1].mask is None


def test_tables_beside_the_cases_are_no_cases(tmp_path):
    write_brats(tmp_path)
    (tmp_path / "survival_info.csv").write_text("Brats20ID,Age,Survival_days,Extent_of_Resection\n")
    (tmp_path / "name_mapping.csv").write_text("Grade\n")
    cohort = open_cohort(tmp_path)
    assert len(cohort.cases) == 1
    assert cohort.clinical == tmp_path / "survival_info.csv"


def test_the_table_of_a_data_set_is_found_from_a_folder_above_it(tmp_path):
    training, validation = tmp_path / "BraTS2020_TrainingData", tmp_path / "BraTS2020_ValidationData"
    for folder, case in ((training, "BraTS20_Training_001"), (validation, "BraTS20_Validation_001")):
        write_brats(folder, case)
        (folder / "name_mapping.csv").write_text("Grade\n")
    (validation / "survival_evaluation.csv").write_text("BraTS20ID,Age,ResectionStatus\n")
    assert open_cohort(tmp_path).clinical == validation / "survival_evaluation.csv"
    (training / "survival_info.csv").write_text("Brats20ID,Age,Survival_days,Extent_of_Resection\n")
    assert open_cohort(tmp_path).clinical == training / "survival_info.csv"
    (validation / "survival_info.csv").write_text("Brats20ID,Age,Survival_days,Extent_of_Resection\n")
    cohort = open_cohort(tmp_path)
    assert cohort.clinical is None
    assert re.search(r"2 clinical tables, of which none is used.*TrainingData/survival_info\.csv", cohort.notes[-1])


def test_a_case_of_brats_in_two_folders_is_refused_with_what_to_do(tmp_path):
    for copy in ("archive", "archive/BraTS2021"):
        write_brats(tmp_path / copy, "BraTS2021_00006")
    with pytest.raises(UserError, match=r"BraTS2021_00006 must be in one folder.*; give the folder above one of them"):
        open_cohort(tmp_path)


def test_missing_modality_is_named(tmp_path):
    folder = write_brats(tmp_path)
    (folder / "BraTS20_Training_001_t1ce.nii.gz").unlink()
    assert "BraTS20_Training_001 has no t1ce" in refusal(tmp_path)


def test_label_outside_the_scheme_is_named(tmp_path):
    write_brats(tmp_path, labels=(0, 1, 3))
    assert "among [0, 1, 2, 4]" in refusal(tmp_path)


@pytest.mark.parametrize("affine", [np.diag([-1.0, -1, 2, 1]), LPS + np.eye(4, k=3) * 5])
def test_modality_on_another_grid_is_refused(tmp_path, affine):
    folder = write_brats(tmp_path)
    save(folder / "BraTS20_Training_001_t2.nii.gz", np.zeros((4, 5, 6), np.int16), affine)
    assert "one grid" in refusal(tmp_path)
    assert "_t2.nii.gz" in refusal(tmp_path)


@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0, 0.2, 0.6, 0.95])
def test_truncated_volume_is_named(tmp_path, end, share):
    folder = write_brats(tmp_path, end=end)
    path = folder / f"BraTS20_Training_001_t1{end}"
    save(path, np.random.default_rng(0).integers(0, 9999, (4, 5, 6)).astype(np.int16))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert path.name in refusal(tmp_path)


def test_nan_in_an_image_is_refused(tmp_path):
    folder = write_brats(tmp_path)
    save(folder / "BraTS20_Training_001_t1.nii.gz", np.full((4, 5, 6), np.nan, np.float32))
    assert "finite numbers" in refusal(tmp_path)


def test_header_that_claims_an_enormous_volume_is_refused_unread(tmp_path):
    path = save(tmp_path / "image.nii", np.zeros((4, 5, 6), np.int16))
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(data)
    assert "voxels" in refusal(tmp_path)


def test_rescale_slope_is_applied(tmp_path):
    image = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), LPS)
    image.header.set_slope_inter(2, -1)
    nibabel.save(image, tmp_path / "image.nii")
    raw = nibabel.load(tmp_path / "image.nii").get_fdata()
    volume = read_volume(tmp_path / "image.nii")
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.grid.to_file(volume.data), raw)


@pytest.mark.parametrize(("order", "signs"), list(product(permutations(range(3)), product((1, -1), repeat=3))))
def test_any_orientation_becomes_upward_and_goes_back_exactly(tmp_path, order, signs):
    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * (world + 2)
    affine[:, 3] = 7, -8, 9, 1
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = read_volume(save(tmp_path / "image.nii", stored, affine))
    steps = [affine @ np.append(step, 0) for step in _steps_in_file(volume)]
    assert steps[0][2] > 0  # the next slice lies above
    assert steps[1][1] < 0  # the next row lies behind
    assert steps[2][0] < 0  # the next column lies to the patient's left
    assert volume.spacing_mm == (4.0, 3.0, 2.0)
    assert np.array_equal(volume.grid.to_file(volume.data), stored)


def _steps_in_file(volume):
    """Where one step along S, H and W leads in the file's own indices."""
    for axis in range(3):
        index = volume.grid.axes[axis]
        yield np.eye(3)[index] * (-1 if volume.grid.flips[axis] else 1)


def test_oblique_volume_takes_the_nearest_axis(tmp_path):
    angle = np.deg2rad(20)
    affine = LPS.copy()
    affine[1:3, 1:3] = [[-np.cos(angle), -np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    volume = read_volume(save(tmp_path / "image.nii", np.zeros((4, 5, 6), np.int16), affine))
    assert volume.data.shape == (6, 5, 4)


def test_nnunet_folder_names_channels_and_labels(tmp_path):
    for case in ("case_1", "case_2"):
        save(tmp_path / "imagesTr" / f"{case}_0000.nii.gz", np.full((4, 5, 6), 1, np.int16))
        save(tmp_path / "imagesTr" / f"{case}_0001.nii.gz", np.full((4, 5, 6), 2, np.int16))
        save(tmp_path / "labelsTr" / f"{case}.nii.gz", np.resize(np.array([0, 2], np.uint8), (4, 5, 6)))
    meta = {"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": {"background": 0, "edema": 1, "core": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(meta))
    cohort, case = read_first(tmp_path)
    assert (cohort.format, len(cohort.cases)) == ("nifti", 2)
    assert cohort.labels == {1: "edema", 2: "core"}
    assert case.channels == ("flair", "t1")
    assert case.image[0, 0, 0].tolist() == [1, 2]
    assert set(np.unique(case.mask)) == {0, 2}


def test_plain_pairs_in_one_folder_are_cases(tmp_path):
    for case in ("a", "b"):
        save(tmp_path / f"{case}.nii.gz", np.zeros((4, 5, 6), np.int16))
        save(tmp_path / f"{case}_mask.nii.gz", np.ones((4, 5, 6), np.uint8))
    cohort, case = read_first(tmp_path)
    assert [case.id for case in cohort.cases] == ["a", "b"]
    assert case.mask.all()


def test_folder_per_case_takes_channel_names_from_the_files(tmp_path):
    save(tmp_path / "one" / "flair.nii", np.zeros((4, 5, 6), np.int16))
    save(tmp_path / "one" / "one_t1.nii", np.zeros((4, 5, 6), np.int16))
    save(tmp_path / "one" / "seg.nii", np.zeros((4, 5, 6), np.uint8))
    _, case = read_first(tmp_path)
    assert case.channels == ("flair", "t1")
    assert case.mask is not None


def test_mask_without_an_image_is_named(tmp_path):
    save(tmp_path / "a_mask.nii.gz", np.zeros((4, 5, 6), np.uint8))
    assert "a_mask.nii.gz: a mask has no image; name it after its image" in refusal(tmp_path)


DECATHLON = {
    "name": "BRATS",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
}


def write_decathlon(folder, **changes):
    """Write a case as Task01_BrainTumour of the Medical Segmentation Decathlon has it."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    image = np.stack([np.full((6, 5, 4), k, np.float32) for k in range(4)], axis=-1)
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[:3, 0, 0] = 1, 2, 3
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / "imagesTr" / "BRATS_001.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "labelsTr" / "BRATS_001.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(DECATHLON | changes))
    return folder


def test_the_decathlons_volumes_of_four_axes_are_channels_by_its_description(tmp_path):
    cohort = open_cohort(write_decathlon(tmp_path / "Task01_BrainTumour"))
    assert cohort.labels == {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
    case = cohort.read("BRATS_001")
    assert case.channels == ("flair", "t1w", "t1gd", "t2w")
    assert [sequence_of(name) for name in case.channels] == ["flair", "pre", "post", "t2"]
    assert case.image[0, 0, 0].tolist() == [0, 1, 2, 3]
    assert sorted(np.unique(case.mask)) == [0, 1, 2, 3]
    assert len(case.files) == 1


def test_as_many_volumes_as_names_must_be_in_a_file(tmp_path):
    cohort = open_cohort(write_decathlon(tmp_path / "a", modality={"0": "FLAIR", "1": "T1w"}))
    with pytest.raises(UserError, match="names 2 channels, flair, t1w, and a file must hold as many volumes; got 4"):
        cohort.read("BRATS_001")
    with pytest.raises(UserError, match=r"three dimensions.*channel_names of dataset\.json"):
        open_cohort(write_decathlon(tmp_path / "b", modality={})).read("BRATS_001")


def test_labels_of_nnunets_regions_are_those_of_all_and_named_by_the_smallest(tmp_path):
    labels = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
    cohort = open_cohort(write_decathlon(tmp_path, labels=labels))
    assert cohort.labels == {1: "whole tumor", 2: "tumor core", 3: "enhancing tumor"}


@pytest.mark.parametrize(
    ("labels", "order", "said"),
    [
        ({"WT": [1, 2, 3], "ET": [3]}, [1, 3], ""),
        ({"WT": [1, 2], "RC": [3]}, [1, 3], ""),
        ({"edema": 1, "core": 2, "ET": 3}, None, ""),
        ({"WT": [1, 2, 3], "ET": [3]}, None, "regions_class_order must list a label for each region"),
        ({"WT": [1, 2, 3], "ET": [3]}, [1], "for each of 2 regions, and lists 1"),
        ({"WT": [1, 2, 3], "ET": [3]}, [1, 4], "writes ET as 4, which is none of its labels"),
        ({"WT": [1, "2", 3], "ET": [3]}, [1, 3], "numbers from 1 to 255"),
    ],
)
def test_regions_of_nnunet_are_used_or_the_check_says_why_not(tmp_path, labels, order, said):
    changes = {} if order is None else {"regions_class_order": order}
    root = write_decathlon(tmp_path, labels={"background": 0, **labels}, **changes)
    cohort = open_cohort(root)
    assert (cohort.regions is not None) == (order is not None and not said)
    notes = [note for note in check(root).remarks if "regions in dataset.json are not used" in note]
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)


def test_ucsf_pdgm_is_read_with_its_masks_and_a_follow_up_is_of_the_same_patient(tmp_path):
    for name in ("UCSF-PDGM-0004", "UCSF-PDGM-0429", "UCSF-PDGM-0429_FU003d"):
        for index, kind in enumerate(("T1", "T1c", "T2", "FLAIR", "T1_bias", "T1c_bias", "ADC", "DTI_eddy_FA")):
            save(tmp_path / f"{name}_nifti" / f"{name}_{kind}.nii.gz", np.full((4, 5, 6), index, np.int16))
        for kind in ("tumor_segmentation", "brain_segmentation", "brain_parenchyma_segmentation"):
            mask = np.zeros((4, 5, 6), np.uint8)
            mask[:3, 0, 0] = (1, 2, 4) if kind == "tumor_segmentation" else 1
            save(tmp_path / f"{name}_nifti" / f"{name}_{kind}.nii.gz", mask)
    cohort = open_cohort(tmp_path)
    assert cohort.format == "brats"
    assert [(case.id, case.patient) for case in cohort.cases] == [
        ("UCSF-PDGM-0004", "UCSF-PDGM-0004"),
        ("UCSF-PDGM-0429", "UCSF-PDGM-0429"),
        ("UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429"),
    ]
    case = cohort.read("UCSF-PDGM-0429_FU003d")
    assert case.image[0, 0, 0].tolist() == [3, 0, 1, 2]
    assert sorted(np.unique(case.mask)) == [0, 1, 2, 4]


@pytest.mark.parametrize(("folder", "named"), [("sub-0005", "{}"), ("P5", "{}"), ("P5", "P5_{}")])
def test_copies_with_a_corrected_bias_field_under_other_names_are_left_out_and_said(tmp_path, folder, named):
    for kind in ("T1", "T1c", "T2", "T1_bias", "T1c_bias", "DWI", "DWI_bias"):
        image = np.random.default_rng(len(kind)).integers(1, 900, (4, 5, 6)).astype(np.int16)
        save(tmp_path / folder / f"{named.format(kind)}.nii.gz", image)
    cohort = open_cohort(tmp_path, format="nifti")
    assert cohort.read(folder).channels == ("dwi", "dwi_bias", "t1", "t1c", "t2")
    assert any("not read" in note and "T1_bias" in note and "T1c_bias" in note for note in cohort.notes)
    assert "dwi_bias" in read_study([tmp_path / folder], masks=False).channels


def test_a_sequence_of_bids_among_names_of_brats_is_not_called_missing(tmp_path):
    for kind in ("T1w", "T1c", "T2w", "FLAIR"):
        image = np.random.default_rng(len(kind)).integers(1, 900, (4, 5, 6)).astype(np.int16)
        save(tmp_path / "sub-1" / "anat" / f"sub-1_{kind}.nii.gz", image)
    cohort = open_cohort(tmp_path)
    assert (cohort.format, cohort.read("sub-1").channels) == ("nifti", ("flair", "t1c", "t1w", "t2w"))
    (tmp_path / "sub-1" / "anat" / "sub-1_T1w.nii.gz").unlink()
    with pytest.raises(UserError, match="sub-1 has no t1; a BraTS case must have"):
        open_cohort(tmp_path)


def test_two_images_of_one_sequence_are_refused_with_a_line_for_cohort_yaml(tmp_path):
    for kind in ("T1", "T1_n4"):
        save(tmp_path / "p" / f"{kind}.nii.gz", np.arange(120).reshape(4, 5, 6).astype(np.int16))
    with pytest.raises(UserError, match=r'2 images of the case are pre.*`images: \["\*T1\.nii\.gz", .*cohort\.yaml'):
        open_cohort(tmp_path).read("p")
    (tmp_path / "cohort.yaml").write_text('images: ["*T1.nii.gz"]')
    assert open_cohort(tmp_path).read("p").channels == ("t1",)


def test_a_case_with_two_masks_of_brats_names_is_named_and_may_be_told_apart(tmp_path):
    for name in ("p2_FLAIR", "p2_T1"):
        save(tmp_path / "p2" / f"{name}.nii.gz", np.ones((4, 5, 6), np.int16))
    for name in ("p2_seg", "p2_tumor_segmentation"):
        save(tmp_path / "p2" / f"{name}.nii.gz", np.ones((4, 5, 6), np.uint8))
    with pytest.raises(UserError, match=r"p2 must have one mask; got p2_seg.nii.gz, p2_tumor_seg.*cohort.yaml"):
        open_cohort(tmp_path).read("p2")
    (tmp_path / "cohort.yaml").write_text('masks: ["*_tumor_segmentation.nii.gz"]\n')
    assert open_cohort(tmp_path).read("p2").mask is not None


@pytest.mark.parametrize("labels", [(0, 1, 2), (0, 1, 2, 3)])
def test_the_label_ignore_of_nnunet_is_no_tissue(tmp_path, labels):
    save(tmp_path / "imagesTr" / "p1_0000.nii.gz", np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    save(tmp_path / "labelsTr" / "p1.nii.gz", np.resize(np.array(labels, np.uint8), (4, 5, 6)))
    description = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cohort = open_cohort(tmp_path)
    assert cohort.labels == {1: "a", 2: "b"}
    if 3 in labels:
        with pytest.raises(UserError, match=r"label ignore.*the label 3"):
            cohort.read("p1")
    else:
        assert set(np.unique(cohort.read("p1").mask)) == {0, 1, 2}


@pytest.mark.parametrize("label", ["{case}", "{case}_0000"])
def test_a_case_of_nnunet_may_end_in_four_digits_like_a_channel(tmp_path, label):
    for number in (1, 2):
        case = f"p_000{number}"
        for channel in (0, 1):
            image = np.arange(120).reshape(4, 5, 6) + channel
            save(tmp_path / "imagesTr" / f"{case}_000{channel}.nii.gz", image.astype(np.int16))
        mask = np.full((4, 5, 6), number, np.uint8)
        save(tmp_path / "labelsTr" / f"{label.format(case=case)}.nii.gz", mask)
    description = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "core": 1, "edema": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cohort = open_cohort(tmp_path)
    assert [case.id for case in cohort.cases] == ["p_0001", "p_0002"]
    for case, number in zip(cohort.cases, (1, 2), strict=True):
        read = cohort.read(case.id)
        assert read.channels == ("t1", "flair")
        assert (read.mask == number).all()


def write_segments_of_slicer(file, *names, values=(0, 1, 2)):
    head = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 5 6\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\nspace origin: (0,0,0)\n"
    )
    for k, name in enumerate(names):
        head += f"Segment{k}_LabelValue:={k + 1}\nSegment{k}_Name:={name}\n"
    image = np.arange(120).reshape(4, 5, 6).astype(np.int16)
    save(file.parent / f"{file.parent.name}_flair.nii.gz", image, np.diag([-1, -1, 1, 1]))
    file.write_bytes(f"{head}\n".encode() + bytes(values) * (120 // len(values)))


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(("first", "second", "is_read"), [("edema", "Core", True), ("core", "edema", False)])
def test_segments_of_slicer_that_are_numbered_otherwise_are_refused(tmp_path, first, second, is_read, as_list):
    write_segments_of_slicer(tmp_path / "p1" / "p1.seg.nrrd", first, second)
    (tmp_path / "cohort.yaml").write_text("labels: {1: edema, 2: core}")
    if as_list:
        (tmp_path / "cohort.csv").write_text("flair,mask\np1/p1_flair.nii.gz,p1/p1.seg.nrrd\n")
    cohort = open_cohort(tmp_path)
    if is_read:
        assert set(np.unique(cohort.read(cohort.cases[0].id).mask)) == {0, 1, 2}
        return
    with pytest.raises(UserError, match=r"the segment core must have the label 2.*got 1"):
        cohort.read(cohort.cases[0].id)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("labels", ["", "labels: {1: lesion, 2: rest}"])
def test_masks_of_slicer_that_number_their_segments_differently_are_refused_with_both_lists(tmp_path, labels, as_list):
    for case, names in (("p1", ("edema", "tumor")), ("p2", ("edema", "tumor")), ("p3", ("Tumor", "edema"))):
        write_segments_of_slicer(tmp_path / case / f"{case}.seg.nrrd", *names, values=(0, 1))
    if labels:
        (tmp_path / "cohort.yaml").write_text(labels)
    if as_list:
        rows = [f"{case}/{case}_flair.nii.gz,{case}/{case}.seg.nrrd" for case in ("p1", "p2", "p3")]
        (tmp_path / "cohort.csv").write_text("\n".join(["flair,mask", *rows]))
    both = r"1 edema, 2 tumor in p1/p1\.seg\.nrrd, and 1 Tumor, 2 edema in p3/p3"
    with pytest.raises(UserError, match=rf"the segment tumor must have one number .*{both}.*; export all masks"):
        open_cohort(tmp_path)
    assert len(open_cohort(tmp_path, masks=False).cases) == 3


def test_names_that_one_number_has_in_masks_of_slicer_are_said(tmp_path):
    for case, name in (("p1", "GTV"), ("p2", "gtv"), ("p3", "lesion")):
        write_segments_of_slicer(tmp_path / case / f"{case}.seg.nrrd", name, values=(0, 1))
    assert open_cohort(tmp_path).notes == (
        "segments with several names, read as one label: 1 is gtv (2 masks), lesion (1 mask)",
    )
