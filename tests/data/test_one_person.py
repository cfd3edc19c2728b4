"""Files of two people never become one study, and the names of one person's files are read as they are meant."""

import nibabel
import numpy as np
import pytest
import tifffile
from dicom_series import write_series

from glioflow.data.formats.study import read_study
from glioflow.errors import UserError

VOXELS = np.random.default_rng(0).integers(0, 200, (4, 12, 14)).astype(np.uint16)
ONE_PERSON = "must be of one person"


def write_slices(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names, start=1):
        tifffile.imwrite(folder / name, np.full((8, 9, 3), value, np.uint8), photometric="rgb")
    return [folder / name for name in names]


def write_volumes(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16), np.eye(4)), folder / name)
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["a_1.tif", "a_2.tif", "a_10.tif"], (1, 2, 10)),
        (["a_-3.tif", "a_0.tif", "a_2.tif"], (-3, 0, 2)),
        (["slice (1).tif", "slice (2).tif", "slice (10).tif"], (1, 2, 10)),
        (["IM-0001-0002.tif", "IM-0001-0003.tif"], (2, 3)),
        (["7.png", "8.png"], (7, 8)),
        (["Scan_1.tif", "scan_2.tif"], (1, 2)),
        (["9.tif", "999999.tif", "1000000.tif"], (9, 999999, 1000000)),
        (["a_999999.tif", "a_1000000.tif"], (999999, 1000000)),
    ],
)
def test_slices_have_the_numbers_that_their_names_mean(tmp_path, names, numbers):
    paths = [path for path in write_slices(tmp_path, [name.replace(".png", ".tif") for name in names])]
    case = read_study(paths)
    assert case.slice_numbers == numbers
    assert case.image[:, 0, 0, 0].tolist() == list(range(1, len(names) + 1))


def test_a_negative_number_counts_in_a_case_folder_too(tmp_path):
    write_slices(tmp_path / "a", ["a_-3.tif", "a_2.tif"])
    assert read_study([tmp_path / "a"]).slice_numbers == (-3, 2)


def test_slices_with_far_numbers_are_the_same_study_as_a_folder_and_as_files(tmp_path):
    files = write_slices(tmp_path / "a", ["a_1.tif", "a_1000000.tif"])
    for paths in (files, [tmp_path / "a"]):
        case = read_study(paths)
        assert case.slice_numbers == (1, 1000000)
        assert all(len(warning) < 1000 for warning in case.warnings)


def refused(paths, value):
    with pytest.raises(UserError, match=ONE_PERSON) as caught:
        read_study(paths)
    assert caught.value.value == value
    assert all(word not in str(caught.value) for word in ("DOE", "SMITH", str(paths[0].parent)))


def test_slices_of_two_case_names_are_refused(tmp_path):
    refused(write_slices(tmp_path, ["DOE_1.tif", "DOE_2.tif", "SMITH_3.tif"]), "2 case names")


def test_slices_in_two_folders_are_refused(tmp_path):
    one, other = write_slices(tmp_path / "DOE", ["s_1.tif"]), write_slices(tmp_path / "SMITH", ["s_2.tif"])
    refused([*one, *other], "slices in 2 folders")


def test_volumes_of_two_case_names_are_refused(tmp_path):
    refused(write_volumes(tmp_path, ["DOE_flair.nii", "SMITH_t1.nii"]), "2 case names")
    refused(write_volumes(tmp_path / "b", ["sub-DOE_FLAIR.nii", "sub-SMITH_T1w.nii"]), "2 case names")
    refused(write_volumes(tmp_path / "n", ["DOE_0000.nii", "SMITH_0001.nii"]), "2 case names")
    refused(write_volumes(tmp_path / "z", ["001_flair.nii", "002_t1.nii"]), "2 case names")
    refused(write_volumes(tmp_path / "s", ["1_flair.nii", "1_t1.nii", "2_t2.nii"]), "2 case names")
    refused(write_volumes(tmp_path / "p", ["1_t1.nii", "2_flair.nii"]), "2 case names")
    refused(write_volumes(tmp_path / "l", ["p1_t1.nii", "p10_flair.nii"]), "2 case names")


@pytest.mark.parametrize(
    "names",
    [
        ["t1_p1.nii", "flair_p2.nii"],
        ["FLAIR_DOE.nii", "T1_SMITH.nii"],
        ["t1-001.nii", "flair-002.nii"],
        ["t1_p1.nii", "flair_p1.nii", "t2_p2.nii"],
    ],
)
def test_volumes_whose_names_end_in_two_persons_are_refused_as_files_and_as_a_folder(tmp_path, names):
    paths = write_volumes(tmp_path / "a", names)
    refused(paths, "2 case names")
    refused([tmp_path / "a"], "2 case names")


@pytest.mark.parametrize(
    ("names", "sequence"),
    [
        (["p1_t1.nii", "p1_t1n.nii", "p1_flair.nii"], "pre"),
        (["t1ce.nii", "t1gd.nii", "flair.nii"], "post"),
        (["flair.nii", "t2f.nii"], "flair"),
        (["sub-1_T2w.nii", "sub-1_acq-tse_T2w.nii"], "t2"),
        (["p1_ax_t2.nii", "p1_sag_t2.nii"], "t2"),
    ],
)
def test_two_images_of_one_sequence_under_two_names_are_refused_until_a_person_says_which(tmp_path, names, sequence):
    paths = write_volumes(tmp_path / "a" / "p1", names)
    for study in (paths, [tmp_path / "a"]):
        with pytest.raises(UserError, match=f"2 images of the case are {sequence}, .*channels=..{sequence}=FILE"):
            read_study(study)
        assert sequence in read_study(study, channels={sequence: names[0].removesuffix(".nii")}).channels


@pytest.mark.parametrize(
    ("names", "case_id", "channels"),
    [
        (["p1_flair.nii", "p1_t1.nii"], "p1", ("flair", "t1")),
        (["pat-1_flair.nii", "pat-1_t1.nii"], "pat-1", ("flair", "t1")),
        (["FLAIR.nii", "T1.nii"], "study", ("flair", "t1")),
        (["FLAIR.nii"], "FLAIR", ("flair",)),
        (["p1_FLAIR.nii"], "p1_FLAIR", ("flair",)),
        (["sub-01_ses-2_acq-3d_T1w.nii", "sub-01_ses-2_FLAIR.nii"], "sub-01_ses-2", ("acq-3d_t1w", "flair")),
        (["pat_AX_FLAIR_5.nii", "pat_SAG_T1_6.nii"], "pat", ("ax_flair_5", "sag_t1_6")),
        (["brain.nii"], "brain", ("image",)),
        (["p1_t1.nii", "p1_left_flair.nii"], "p1", ("t1", "left_flair")),
        (["mprage_t1.nii", "tse_t2.nii", "space_flair.nii"], "study", ("mprage_t1", "tse_t2", "space_flair")),
        (["gd_t1.nii", "t1.nii", "flair.nii"], "study", ("gd_t1", "t1", "flair")),
        (["p1_gd_t1.nii", "p1_ax_t1.nii"], "p1", ("gd_t1", "ax_t1")),
        (["3_AX_T1.nii", "4_AX_FLAIR.nii", "12_AX_T1_GD.nii"], "study", ("3_ax_t1", "4_ax_flair", "12_ax_t1_gd")),
        (["3_AX_T1.nii", "4_FLAIR.nii"], "study", ("3_ax_t1", "4_flair")),
        (["t1_p1.nii", "flair_p1.nii"], "study", ("t1_p1", "flair_p1")),
        (["T1_reg.nii", "FLAIR_1mm.nii", "T2_7.nii"], "study", ("t1_reg", "flair_1mm", "t2_7")),
    ],
)
def test_volumes_of_one_person_are_one_study_under_their_name(tmp_path, names, case_id, channels):
    case = read_study(write_volumes(tmp_path, names))
    assert case.id == case_id
    assert set(case.channels) == set(channels)


def test_dicom_of_two_patients_is_refused_and_of_one_in_two_folders_is_read(tmp_path):
    write_series(tmp_path / "a", VOXELS, description="AX FLAIR", patient="DOE")
    write_series(tmp_path / "b", VOXELS, description="AX T2", patient="SMITH", number=2)
    files = [path for folder in ("a", "b") for path in sorted((tmp_path / folder).iterdir())]
    refused(files, "2 different PatientIDs")
    write_series(tmp_path / "c", VOXELS, description="AX T2", patient="DOE", number=2)
    files = [path for folder in ("a", "c") for path in sorted((tmp_path / folder).iterdir())]
    assert read_study(files).channels == ("flair", "t2")


@pytest.mark.parametrize(
    ("first", "second", "accepted"),
    [
        (("DOE", "Doe^John"), ("", "Smith^Ann"), False),
        (("", "Doe^John"), ("", "Smith^Ann"), False),
        (("DOE", "Doe^John"), ("", "DOE^JOHN^^"), True),
        (("DOE", "Doe^John"), ("DOE", "J. Doe"), True),
        (("DOE", "Doe^John"), ("", ""), True),
        (("DOE", ""), ("", "Doe^John"), True),
    ],
)
def test_a_dicom_file_without_an_id_is_told_by_its_name(tmp_path, first, second, accepted):
    import pydicom

    for number, (name, (patient, person)) in enumerate(zip(("FLAIR", "T2"), (first, second), strict=True), start=1):
        folder = write_series(tmp_path / name, VOXELS, description=f"AX {name}", patient=patient, number=number)
        for path in folder.iterdir():
            ds = pydicom.dcmread(path)
            ds.PatientName = person
            ds.save_as(path)
    files = [path for name in ("FLAIR", "T2") for path in sorted((tmp_path / name).iterdir())]
    if accepted:
        assert read_study(files).channels == ("flair", "t2")
    else:
        refused(files, "different PatientNames")


def test_strays_beside_the_sequences_are_left_out_and_named(tmp_path):
    import pydicom

    names = {"a": "AX T1", "b": "AX FLAIR", "c": "AX T1 POST", "d": "AX T2", "e": "LOC 3 PLANE"}
    names |= {f"dwi{number}": f"DWI b{number}" for number in range(20)}
    for number, (folder, text) in enumerate(names.items(), start=1):
        write_series(tmp_path / folder, VOXELS, description=text, number=number)
    for file in (tmp_path / "dwi0").iterdir():  # one of them as a picture of a workstation
        dataset = pydicom.dcmread(file)
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = bytes(3 * VOXELS[0].size)
        dataset.save_as(file)
    case = read_study([tmp_path])
    assert set(case.channels) == {"pre", "flair", "post", "t2"}
    assert any("LOC 3 PLANE" in warning for warning in case.warnings)
    assert "1 series in color left out" in case.warnings
