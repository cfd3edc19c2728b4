import shutil

import numpy as np
import pydicom
import pytest
from dicom_series import AXIAL, CORONAL, write_series
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import read_study
from glioflow.errors import UserError

SHAPE = (5, 40, 50)
# Slice, first and last row and column of the rectangle whose pixels an outline holds.
TUMOR = ((1, 5, 15, 8, 20), (2, 4, 18, 8, 30))
HOLE = (2, 8, 12, 14, 20)


def filled(*rectangles):
    mask = np.zeros(SHAPE, bool)
    for s, top, bottom, left, right in rectangles:
        mask[s, top : bottom + 1, left : right + 1] ^= True
    return mask


def corners(series, rectangle):
    """Return a rectangle's corners in millimeters, half a pixel around the centers of its pixels."""
    s, top, bottom, left, right = rectangle
    header = next(ds for ds in map(pydicom.dcmread, series.iterdir()) if ds.InstanceNumber == s + 1)
    origin = np.array(header.ImagePositionPatient, float)
    along_row, along_column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    per_row, per_column = (float(value) for value in header.PixelSpacing)
    ends = ((top - 0.5, left - 0.5), (top - 0.5, right + 0.5), (bottom + 0.5, right + 0.5), (bottom + 0.5, left - 0.5))
    return [v for r, c in ends for v in origin + along_row * c * per_column + along_column * r * per_row]


def new_dataset(kind, modality, study):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = kind
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Modality, ds.PatientID, ds.PatientName = modality, "TCGA-CS-4941", "A^B"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, generate_uid()
    return ds


def write_outlines(folder, outlines, study="1.2.3"):
    folder.mkdir(parents=True, exist_ok=True)
    ds = new_dataset(RTStructureSetStorage, "RTSTRUCT", study)
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(outlines.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber, drawn.ContourSequence = number, name, number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points) // 3
            contour.ContourData = [f"{value:.4f}" for value in points]
            drawn.ContourSequence.append(contour)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    pydicom.dcmwrite(folder / "rs.dcm", ds, enforce_file_format=True)


@pytest.fixture(params=[(AXIAL, (0, 0, 3.0)), (CORONAL, (0, 3.0, 0))], ids=["axial", "coronal"])
def study(request, tmp_path):
    orientation, step = request.param
    pixels = np.random.default_rng(0).integers(1, 500, SHAPE).astype(np.uint16)
    series = write_series(tmp_path / "study" / "flair", pixels, orientation=orientation, step=step)
    gtv = [corners(series, rectangle) for rectangle in (*TUMOR, HOLE)]
    write_outlines(tmp_path / "study" / "rs", {"GTV": gtv, "Brainstem": [corners(series, (3, 2, 6, 2, 6))]})
    return tmp_path, pixels


def read_only(path):
    cohort = open_cohort(path)
    return cohort, cohort.read(cohort.cases[0].id)


def test_the_outlines_that_a_person_names_are_the_mask(study):
    path, pixels = study
    (path / "cohort.yaml").write_text("outlines: [gtv, Brainstem]")
    cohort, case = read_only(path)
    assert cohort.labels == {1: "gtv", 2: "Brainstem"}
    truth = np.where(filled(*TUMOR, HOLE), 1, 0) + np.where(filled((3, 2, 6, 2, 6)), 2, 0)
    for label in (1, 2):  # the same pixels of the image, wherever the axes of the case point
        assert np.array_equal(np.sort(case.image[case.mask == label, 0]), np.sort(pixels[truth == label]))


def test_outlines_are_left_alone_and_said_where_nobody_names_them(study):
    _, case = read_only(study[0])
    assert case.mask is None
    assert any("RTSTRUCT" in warning for warning in case.warnings)


def test_a_name_that_no_outline_has_is_refused_with_those_there_are(study):
    (study[0] / "cohort.yaml").write_text("outlines: [tumor]")
    with pytest.raises(UserError, match=r"Brainstem.*GTV"):
        read_only(study[0])


@pytest.mark.parametrize("points", [[], [1, 2], [1, 2, float("nan")]], ids=["none", "two numbers", "nan"])
def test_a_contour_without_corners_is_refused(study, points):
    write_outlines(study[0] / "study" / "rs", {"GTV": [points]})
    (study[0] / "cohort.yaml").write_text("outlines: [GTV]")
    with pytest.raises(UserError, match=r"outlines|contour"):
        read_only(study[0])


def write_segments(folder, names):
    folder.mkdir()
    ds = new_dataset(SegmentationStorage, "SEG", generate_uid())
    ds.SegmentSequence = [Dataset() for _ in names]
    for number, (segment, name) in enumerate(zip(ds.SegmentSequence, names, strict=True), start=1):
        segment.SegmentNumber, segment.SegmentLabel = number, name
    pydicom.dcmwrite(folder / "seg.dcm", ds, enforce_file_format=True)


def test_segments_of_several_studies_must_mean_the_same_where_one_has_several(tmp_path):
    write_segments(tmp_path / "a", ["tumor"])
    write_segments(tmp_path / "b", ["GTV"])
    cohort = open_cohort(tmp_path)
    assert cohort.labels == {1: "tumor"}
    assert any("1 is tumor (1 mask), gtv (1 mask)" in note for note in cohort.notes)
    write_segments(tmp_path / "c", ["necrosis", "edema"])
    with pytest.raises(UserError, match="segment 1 must mean the same"):
        open_cohort(tmp_path)


def with_tags(series, **tags):
    for file in series.iterdir():
        ds = pydicom.dcmread(file)
        for name, value in tags.items():
            setattr(ds, name, value)
        ds.save_as(file)


@pytest.fixture
def planned(tmp_path):
    """Return a radiotherapy study as TCIA has it in Burdenko-GBM-Progression: MRI, and outlines on a CT elsewhere."""
    pixels = np.random.default_rng(0).integers(1, 500, SHAPE).astype(np.uint16)
    for person in ("Burdenko-GBM-001", "Burdenko-GBM-002"):
        folder = tmp_path / "manifest-1679410600140" / "Burdenko-GBM-Progression" / person / "01-01-1992-NA-RT planning"
        tags = {"study": f"1.2.{person[-1]}", "patient": person}
        for number, description in enumerate(("CET1", "T2FLAIR"), start=1):
            write_series(folder / f"{number}.000000-{description}", pixels, description=description, **tags)
        ct = write_series(folder / "3.000000-CT", pixels, description="Head", number=3, step=(0, 0, 2.0), **tags)
        with_tags(ct, Modality="CT", FrameOfReferenceUID="1.5.6")
        write_outlines(folder / "4.000000-RS", {"GTV": [corners(ct, TUMOR[0])]}, study=tags["study"])
        with_tags(folder / "4.000000-RS", PatientID=person)
        outlines = pydicom.dcmread(folder / "4.000000-RS" / "rs.dcm")
        outlines.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.5.6"
        outlines.save_as(folder / "4.000000-RS" / "rs.dcm")
    return tmp_path


def test_a_ct_beside_mri_is_left_out_and_said(planned):
    cohort, case = read_only(planned)
    assert [case.id for case in cohort.cases] == ["Burdenko-GBM-001", "Burdenko-GBM-002"]
    assert case.channels == ("post", "flair")
    assert "the series 'Head' is CT beside MRI and was left out" in case.warnings


def test_outlines_on_a_ct_that_is_not_registered_are_refused(planned):
    (planned / "cohort.yaml").write_text("outlines: [GTV]")
    with pytest.raises(UserError, match="frame of reference"):
        read_only(planned)


def test_two_days_of_the_only_person_are_named_after_it(tmp_path):
    for day in ("1", "2"):
        write_series(tmp_path / "p1" / f"day{day}" / "flair", np.ones(SHAPE, np.uint16), study=f"1.2.{day}")
    assert [case.id for case in open_cohort(tmp_path).cases] == ["p1", "p1_2"]


def test_studies_of_documents_or_of_ct_alone_do_not_make_a_cohort_fail_and_are_said(tmp_path):
    for person in ("p1", "p2"):
        write_series(tmp_path / person / "mr", np.ones(SHAPE, np.uint16), study=f"1.3.{person[1]}", patient=person)
    ct = write_series(
        tmp_path / "p1" / "ct", np.ones(SHAPE, np.uint16), description="Head", study="1.4.1", patient="p1"
    )
    for file in ct.iterdir():
        ds = pydicom.dcmread(file)
        ds.Modality, ds.SOPClassUID = "CT", CTImageStorage
        ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.save_as(file)
    write_document(tmp_path / "p3")
    cohort = open_cohort(tmp_path)
    assert [case.id for case in cohort.cases] == ["p1", "p2"]
    assert cohort.notes == ("2 left out without MRI: p1/ct (CT or PET alone), p3 (documents alone)",)
    shutil.rmtree(tmp_path / "p1" / "mr")
    shutil.rmtree(tmp_path / "p2")
    assert [case.id for case in open_cohort(tmp_path).cases] == ["p1"]  # CT is read where there is no MRI at all


def write_document(folder):
    folder.mkdir()
    ds = new_dataset(BasicTextSRStorage, "SR", generate_uid())
    pydicom.dcmwrite(folder / "sr.dcm", ds, enforce_file_format=True)
    return folder / "sr.dcm"


def test_documents_alone_are_no_study(tmp_path):
    file = write_document(tmp_path / "p3")
    with pytest.raises(UserError, match="documents alone"):
        open_cohort(tmp_path)
    with pytest.raises(UserError, match="SR alone"):
        read_study([file])


@pytest.mark.parametrize("description", ["MaskTumor", "Tumor segmentation", "outline by A", "T1 mask"])
def test_a_mask_that_is_stored_as_mri_is_never_a_channel(tmp_path, description):
    tumor = np.where(filled(*TUMOR), 1, 0).astype(np.uint16)
    write_series(tmp_path / "a" / "1", np.random.default_rng(0).integers(0, 500, SHAPE).astype(np.uint16))
    write_series(tmp_path / "a" / "2", tumor, description=description, number=2)
    if description in ("outline by A", "T1 mask"):
        with pytest.raises(UserError, match="is it a mask"):
            read_only(tmp_path)
        return
    _, case = read_only(tmp_path)
    assert case.channels == ("flair",)
    assert case.warnings == (f"the series {description!r} is not T1, T2 or FLAIR and was left out",)


def test_the_series_of_brain_tumor_progression_are_known(tmp_path):
    names = ("T1prereg", "T1post", "FLAIRreg", "T2reg", "ADCreg", "sRCBVreg", "nRCBVreg", "nCBFreg", "dT1reg")
    for number, name in enumerate(names, start=1):
        pixels = np.random.default_rng(number).integers(0, 500, SHAPE).astype(np.uint16)
        write_series(tmp_path / "PGBM-001" / name, pixels, description=name, number=number)
    assert read_only(tmp_path)[1].channels == ("pre", "post", "flair", "t2")
