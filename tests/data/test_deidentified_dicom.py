"""DICOM without the tags that de-identification takes away is read, and its mask can be written as DICOM-SEG."""

import io

import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.dicom_seg import encode_dicom_seg
from glioflow.data.formats.study import read_study
from glioflow.errors import UserError

VOXELS = np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.uint16)
NEEDED = {"Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "PixelRepresentation"}
PLANE = {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"}


def without(folder, keywords, *, empty=False):
    return remove(write_series(folder, VOXELS), keywords, empty=empty)


def remove(folder, keywords, *, empty=False):
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        for keyword in keywords:
            if empty:
                dataset[keyword].value = None
            else:
                del dataset[keyword]
        dataset.save_as(file)
    return folder


def keywords(tmp_path):
    write_series(tmp_path / "whole", VOXELS)
    return {element.keyword for element in pydicom.dcmread(next((tmp_path / "whole").iterdir()))}


@pytest.mark.parametrize("empty", [False, True])
def test_whatever_is_not_needed_may_be_missing_or_empty_one_by_one(tmp_path, empty):
    for keyword in sorted(keywords(tmp_path) - NEEDED - PLANE):
        case = read_study([without(tmp_path / keyword, [keyword], empty=empty)])
        slope = 0 if keyword == "RescaleSlope" else 1
        assert case.shape == VOXELS.shape, keyword
        assert slope == 0 or np.array_equal(case.image[..., 0], VOXELS), keyword
        encoded = encode_dicom_seg(np.ones(case.shape, np.uint8), case, {1: "tumor"})
        assert pydicom.dcmread(io.BytesIO(encoded)).Modality == "SEG", keyword


def test_all_that_is_not_needed_may_be_missing_at_once(tmp_path):
    case = read_study([without(tmp_path / "bare", keywords(tmp_path) - NEEDED - PLANE)])
    assert case.shape == VOXELS.shape
    assert encode_dicom_seg(np.zeros(case.shape, np.uint8), case, {1: "tumor"})


@pytest.mark.parametrize("keyword", sorted(PLANE))
def test_a_slice_without_its_place_is_refused_with_the_tag(tmp_path, keyword):
    with pytest.raises(UserError, match=f"must state its {keyword}"):
        read_study([without(tmp_path / "a", [keyword])])


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("gone", [["PatientID"], ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"]])
def test_persons_without_an_id_are_told_apart_by_their_folders(tmp_path, gone, empty):
    for person in ("p1", "p2"):
        for number, description in enumerate(("AX FLAIR", "AX T2"), start=1):
            folder = tmp_path / person / description
            write_series(folder, VOXELS, description=description, number=number, study=f"1.2.{person[1]}")
            remove(folder, gone, empty=empty)
    cohort = open_cohort(tmp_path)
    assert [(case.id, case.patient) for case in cohort.cases] == [("p1", "p1"), ("p2", "p2")]
    assert [cohort.read(case.id).channels for case in cohort.cases] == [("flair", "t2")] * 2


def test_two_studies_in_the_folder_of_a_person_without_an_id_are_of_that_person(tmp_path):
    for person in ("p1", "p2"):
        for day in "12":
            folder = write_series(tmp_path / person / day, VOXELS, study=f"1.{person[1]}.{day}")
            remove(folder, ["PatientID"])
    cases = open_cohort(tmp_path).cases
    assert [case.patient for case in cases] == ["p1", "p1", "p2", "p2"]


def test_dicom_without_a_preamble_is_refused_with_what_to_do(tmp_path):
    for file in write_series(tmp_path / "a", VOXELS).iterdir():
        file.write_bytes(file.read_bytes()[132:])
    with pytest.raises(UserError, match=r"preamble.*dcmconv"):
        open_cohort(tmp_path)
