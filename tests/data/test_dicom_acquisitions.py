"""DICOM as it is exported: CDs, copied files, several acquisitions in one series, outlines drawn on other images."""

import copy
import shutil

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid
from test_dicom_outlines import TUMOR, corners, write_outlines

from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.dicom_headers import check_one_visit
from glioflow.data.formats.study import read_study
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.errors import UserError

PIXELS = np.random.default_rng(0).integers(1, 500, (2, 5, 40, 50)).astype(np.uint16)


def again(folder, **changes):
    """Write each slice of a series once more with other pixels and headers, and give the first ones theirs."""
    for file in sorted(folder.iterdir()):
        ds = pydicom.dcmread(file)
        for keyword, values in changes.items():
            setattr(ds, keyword, values[0])
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.PixelData = np.ascontiguousarray(PIXELS[1, ds.InstanceNumber - 1]).tobytes()
        for keyword, values in changes.items():
            setattr(ds, keyword, values[1])
        pydicom.dcmwrite(file.with_name(f"{file.name}b"), ds, enforce_file_format=True)


@pytest.mark.parametrize("persons", [1, 2])
def test_a_cd_is_its_studies_and_its_dicomdir_none(tmp_path, persons):
    files = FileSet()
    for number in range(persons):
        for series, name in enumerate(("localizer", "AX T1", "AX FLAIR")):
            folder = tmp_path / f"{number}{name}"
            write_series(
                folder, PIXELS[0], description=name, number=series, patient=f"P{number}", study=f"1.2.{number}"
            )
            for file in folder.iterdir():
                ds = pydicom.dcmread(file)
                ds.StudyID = "1"
                files.add(ds)
    files.write(tmp_path / "cd")
    (tmp_path / "cd" / "AUTORUN.INF").write_text("x")
    cohort = open_cohort(tmp_path / "cd")
    assert {case.patient for case in cohort.cases} == {f"P{number}" for number in range(persons)}
    assert all(set(cohort.read(case.id).channels) == {"pre", "flair"} for case in cohort.cases)
    if persons == 1:
        assert set(read_study([tmp_path / "cd"]).channels) == {"pre", "flair"}


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "DICOMDIR.dcm", "DICOMDIR;1"])
def test_a_damaged_dicomdir_is_no_case(tmp_path, name):
    volume = np.arange(4 * 16 * 16, dtype=np.uint16).reshape(4, 16, 16)
    write_series(tmp_path / "cd" / "a", volume)
    for content in (bytes(128) + b"DICM" + bytes(64), b"\x02\0\0\0UL\4\0" + bytes(64)):
        (tmp_path / "cd" / name).write_bytes(content)
        assert [len(case.files) for case in open_cohort(tmp_path / "cd").cases] == [4]
        assert read_study([tmp_path / "cd"]).image.shape[0] == 4
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_bytes(content)
        with pytest.raises(UserError, match="no files of a known cohort format"):
            open_cohort(tmp_path / "other")


def test_copies_of_files_and_missing_instance_numbers_change_nothing(tmp_path):
    folder = write_series(tmp_path / "study", PIXELS[0])
    whole = read_study([folder])
    for file in sorted(folder.iterdir()):
        ds = pydicom.dcmread(file)
        del ds.InstanceNumber
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
        shutil.copy(file, folder / f"copy of {file.name}")
    assert np.array_equal(read_study([folder]).image, whole.image)


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "TemporalPositionIdentifier"])
def test_two_acquisitions_of_one_series_are_named_and_one_is_chosen(tmp_path, keyword):
    folder = write_series(tmp_path / "study", PIXELS[0])
    again(folder, **{keyword: (1, 2)})
    with pytest.raises(UserError, match="AX FLAIR #1, AX FLAIR #2"):
        read_study([folder])
    for number in (1, 2):
        case = read_study([folder], channels={"flair": f"AX FLAIR #{number}"})
        assert np.array_equal(np.sort(case.image.ravel()), np.sort(PIXELS[number - 1].ravel()))
        assert case.warnings == (
            f"the series 'AX FLAIR #{3 - number}' was left out, since another was chosen as flair",
        )
        written = write_mask(np.ones(case.shape, np.uint8), case, tmp_path / str(number), native_format(case))
        assert written.name.endswith(".dcm")


def test_two_echoes_of_one_series_are_two_sequences(tmp_path):
    folder = write_series(tmp_path / "study", PIXELS[0], description="AX SE")
    again(folder, EchoTime=(12, 95), ScanningSequence=("SE", "SE"), RepetitionTime=(600, 600))
    case = read_study([folder])
    assert set(case.channels) == {"pre", "t2"}
    t2 = case.image[..., case.channels.index("t2")]
    assert np.array_equal(np.sort(t2.ravel()), np.sort(PIXELS[1].ravel()))


def test_slices_at_one_place_that_no_header_tells_apart_are_refused_with_the_series(tmp_path):
    folder = write_series(tmp_path / "study", PIXELS[0])
    again(folder)
    with pytest.raises(UserError, match=r"'AX FLAIR' must have one slice at each position"):
        read_study([folder])


def test_a_series_that_is_left_out_may_have_slices_at_one_place_and_is_named_once(tmp_path):
    write_series(tmp_path / "study" / "flair", PIXELS[0])
    for number, name in enumerate(("DWI b1000", "DSC perfusion"), start=2):
        write_series(tmp_path / "study" / name, PIXELS[0], description=name, number=number)
        again(tmp_path / "study" / name, **({"TemporalPositionIdentifier": (1, 2)} if "DSC" in name else {}))
    case = read_study([tmp_path / "study"])
    assert case.channels == ("flair",)
    assert case.warnings == tuple(
        f"the series {name!r} is not T1, T2 or FLAIR and was left out" for name in ("DWI b1000", "DSC perfusion")
    )


def test_times_of_single_slices_are_no_acquisitions(tmp_path):
    folder = write_series(tmp_path / "study", PIXELS[0])
    again(folder)
    for second, file in enumerate(sorted(folder.iterdir())):
        ds = pydicom.dcmread(file)
        ds.AcquisitionTime = f"1200{second:02}"
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
    with pytest.raises(UserError, match="2 at one"):
        read_study([folder])


def test_series_of_two_days_are_no_study(tmp_path):
    folder = tmp_path / "study"
    write_series(folder, PIXELS[0])
    write_series(tmp_path / "later", PIXELS[1], description="AX T1")
    for file in (tmp_path / "later").iterdir():
        ds = pydicom.dcmread(file)
        ds.StudyDate = "20010101"
        pydicom.dcmwrite(folder / f"later{file.name}", ds, enforce_file_format=True)
    with pytest.raises(UserError, match="one day"):
        read_study([folder])


@pytest.mark.parametrize("modality", ["SEG", "RTSTRUCT", "MR"])
def test_a_mask_may_state_another_day_than_its_images(modality):
    image, later = Dataset(), Dataset()
    image.Modality, image.StudyDate, image.Rows = "MR", "20000101", 40
    later.Modality, later.StudyDate, later.Rows = modality, "20000301", None if modality == "RTSTRUCT" else 40
    if modality == "MR":
        with pytest.raises(UserError, match="one day"):
            check_one_visit([image, later])
    else:
        check_one_visit([image, later])


@pytest.mark.parametrize("where", ["the images", "a CT", "images that state none"])
def test_outlines_are_read_in_the_frame_of_reference_of_the_images(tmp_path, where):
    series = write_series(tmp_path / "study" / "flair", PIXELS[0])
    write_outlines(tmp_path / "study" / "rs", {"GTV": [corners(series, rectangle) for rectangle in TUMOR]})
    (tmp_path / "cohort.yaml").write_text("outlines: [GTV]")
    frame = pydicom.dcmread(next(series.iterdir())).FrameOfReferenceUID
    drawn = pydicom.dcmread(tmp_path / "study" / "rs" / "rs.dcm")
    referenced = Dataset()
    referenced.FrameOfReferenceUID = frame if where == "the images" else generate_uid()
    drawn.ReferencedFrameOfReferenceSequence = [referenced]
    drawn.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = referenced.FrameOfReferenceUID
    pydicom.dcmwrite(tmp_path / "study" / "rs" / "rs.dcm", drawn, enforce_file_format=True)
    if where == "images that state none":
        for file in series.iterdir():
            ds = pydicom.dcmread(file)
            del ds.FrameOfReferenceUID
            pydicom.dcmwrite(file, ds, enforce_file_format=True)
    cohort = open_cohort(tmp_path)
    if where == "a CT":
        with pytest.raises(UserError, match="frame of reference"):
            cohort.read("study")
    else:
        assert cohort.read("study").mask.any()


def second_stack(frame):
    frame.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("change", "message"), [(second_stack, "2 directions"), (lambda frame: None, "2 frames at one position")]
)
def test_a_multi_frame_file_of_several_stacks_is_refused_with_what_to_do(tmp_path, change, message):
    folder = write_series(tmp_path / "single", np.ones((4, 8, 9), np.uint16))
    singles = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda ds: ds.InstanceNumber)
    whole = LegacyConvertedEnhancedMRImage(singles, generate_uid(), 1, generate_uid(), 1)
    oriented = whole.SharedFunctionalGroupsSequence[0].pop("PlaneOrientationSequence").value
    frames = list(whole.PerFrameFunctionalGroupsSequence)
    for frame in frames:
        frame.PlaneOrientationSequence = copy.deepcopy(oriented)
    others = copy.deepcopy(frames)
    for frame in others:
        change(frame)
    whole.PerFrameFunctionalGroupsSequence = [*frames, *others]
    whole.NumberOfFrames, whole.PixelData = 2 * len(frames), whole.PixelData * 2
    (tmp_path / "multi").mkdir()
    whole.save_as(tmp_path / "multi" / "one.dcm")
    with pytest.raises(UserError, match=rf"one stack.*{message}.*split it"):
        read_study([tmp_path / "multi"])
