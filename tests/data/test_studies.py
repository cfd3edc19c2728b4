import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_series import CORONAL, write_series
from PIL import Image

from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import open_source, read_study
from glioflow.data.formats.writing import encode_nifti, native_format, write_mask
from glioflow.errors import UserError

VOXELS = np.random.default_rng(0).integers(0, 4000, (5, 6, 7))


def blob(shape):
    mask = np.zeros(shape, np.uint8)
    mask[1:3, 2:4, 1:5] = 1
    return mask


def write_tiffs(folder, name="scan", numbers=(1, 2, 10)):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}_{number}.tif" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        tifffile.imwrite(path, np.full((8, 9, 3), number, np.uint8), photometric="rgb")
    return paths


def test_one_slice_of_any_name_is_a_study(tmp_path):
    tifffile.imwrite(tmp_path / "upload.tif", np.ones((8, 9, 3), np.uint8), photometric="rgb")
    case = read_study([tmp_path / "upload.tif"])
    assert (case.id, case.image.shape, case.channels) == ("upload", (1, 8, 9, 3), ("pre", "flair", "post"))


def test_many_slices_are_ordered_by_number(tmp_path):
    case = read_study(write_tiffs(tmp_path, "TCGA_CS_4941_19960909")[::-1])
    assert case.image[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert (case.id, case.patient) == ("TCGA_CS_4941_19960909", "TCGA_CS_4941")


def test_lgg_case_folder_is_a_study(tmp_path):
    write_tiffs(tmp_path / "TCGA_CS_4941_19960909", "TCGA_CS_4941_19960909")
    assert read_study([tmp_path / "TCGA_CS_4941_19960909"]).id == "TCGA_CS_4941_19960909"


def test_gray_png_is_taken_for_flair_and_says_so(tmp_path):
    Image.fromarray(np.full((8, 9), 7, np.uint8)).save(tmp_path / "a.png")
    case = read_study([tmp_path / "a.png"])
    assert (case.image.shape, case.channels) == ((1, 8, 9, 1), ("flair",))
    assert "FLAIR" in case.warnings[0]


def test_truncated_png_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"a\.png"):
        read_study([path])


def test_name_of_a_study_keeps_harmless_letters_only(tmp_path):
    path = tmp_path / "a;rm -rf $(x)..tif"
    tifffile.imwrite(path, np.ones((8, 9, 3), np.uint8), photometric="rgb")
    assert read_study([path]).id == "a_rm_-rf_x"


def test_mixed_kinds_are_refused_with_the_choices(tmp_path):
    paths = write_tiffs(tmp_path)
    nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UserError, match="one known kind") as caught:
        read_study([*paths, tmp_path / "a.nii"])
    assert ".tif or .png slices" in caught.value.choices


def test_folder_of_two_cases_is_no_study(tmp_path):
    for name in ("a", "b"):
        write_tiffs(tmp_path / name, name)
    with pytest.raises(UserError, match="must be one case"):
        read_study([tmp_path])


def test_uploaded_modalities_are_one_case_named_by_what_they_share(tmp_path):
    for name in ("flair", "t1", "t1ce", "t2"):
        nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16), np.eye(4)), tmp_path / f"p1_{name}.nii.gz")
    case = read_study(sorted(tmp_path.iterdir()))
    assert (case.id, case.channels) == ("p1", ("flair", "t1", "t1ce", "t2"))


def test_dicom_slices_are_sorted_by_position_and_rescaled(tmp_path):
    write_series(tmp_path / "series", VOXELS, slope=2.0, intercept=-5.0)
    case = read_study([tmp_path])
    assert np.array_equal(case.image[..., 0], VOXELS * 2.0 - 5.0)
    assert case.spacing_mm == (3.0, 0.5, 0.75)
    assert (case.patient, case.institution, case.channels) == ("TCGA-CS-4941", "CS", ("flair",))


def test_coronal_dicom_is_turned_upright(tmp_path):
    write_series(tmp_path / "series", VOXELS, orientation=CORONAL, step=(0, 3.0, 0))
    case = read_study([tmp_path])
    # Rows of a coronal slice run downward, slices toward the back.
    assert np.array_equal(case.image[..., 0], np.transpose(VOXELS, (1, 0, 2))[::-1])
    assert case.spacing_mm == (0.5, 3.0, 0.75)


def test_several_series_are_channels_by_their_description(tmp_path):
    write_series(tmp_path / "1", VOXELS, description="AX T1 SE", number=1)
    write_series(tmp_path / "2", VOXELS, description="Axial FLAIR", number=2)
    write_series(tmp_path / "3", VOXELS, description="AX T1 POST GD", number=3)
    assert read_study([tmp_path]).channels == ("pre", "flair", "post")


def test_multiframe_dicom_equals_its_single_frames(tmp_path):
    from highdicom.legacy import LegacyConvertedEnhancedMRImage
    from pydicom.uid import generate_uid

    folder = write_series(tmp_path / "single" / "series", VOXELS, slope=2.0)
    singles = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda ds: ds.InstanceNumber)
    enhanced = LegacyConvertedEnhancedMRImage(singles, generate_uid(), 1, generate_uid(), 1)
    (tmp_path / "multi").mkdir()
    enhanced.save_as(tmp_path / "multi" / "one.dcm")
    one, other = read_study([tmp_path / "single"]), read_study([tmp_path / "multi"])
    assert np.array_equal(one.image, other.image)
    assert one.spacing_mm == other.spacing_mm
    assert np.allclose(one.grid.affine, other.grid.affine)


def test_dicom_folders_of_two_studies_are_two_cases(tmp_path):
    write_series(tmp_path / "a" / "flair", VOXELS, study="1.2.3")
    write_series(tmp_path / "b" / "flair", VOXELS, study="1.2.4")
    cohort = open_cohort(tmp_path)
    assert (cohort.format, [case.id for case in cohort.cases]) == ("dicom", ["a", "b"])


def test_dicom_series_with_a_missing_slice_is_refused(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    next(path for path in folder.iterdir() if pydicom.dcmread(path).InstanceNumber == 3).unlink()
    with pytest.raises(UserError, match="evenly spaced"):
        read_study([tmp_path])


@pytest.mark.parametrize("kept", [140, 300, 1000, -10])
def test_truncated_dicom_is_refused(tmp_path, kept):
    path = sorted(write_series(tmp_path / "series", VOXELS).iterdir())[0]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError):
        read_study([tmp_path])


def test_deflated_dicom_is_refused_unread(tmp_path):
    path = sorted(write_series(tmp_path / "series", VOXELS).iterdir())[0]
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    ds.save_as(path)
    with pytest.raises(UserError, match="deflated"):
        read_study([tmp_path])


def test_nifti_mask_has_the_files_own_axes_and_affine(tmp_path):
    affine = np.array([[0, 0, 2.0, -5], [-1.5, 0.1, 0, 7], [0, 3.0, 0.2, 9], [0, 0, 0, 1]])
    stored = VOXELS.astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "image.nii.gz")
    case = read_study([tmp_path / "image.nii.gz"])
    median = np.median(stored)
    mask = (case.image[..., 0] > median).astype(np.uint8)
    assert native_format(case) == "nifti"
    written = nibabel.load(write_mask(mask, case, tmp_path / "out", "nifti"))
    assert np.array_equal(np.asarray(written.dataobj), stored > median)
    assert np.allclose(written.affine, nibabel.load(tmp_path / "image.nii.gz").affine)
    assert written.get_data_dtype() == np.uint8


def test_nifti_bytes_are_the_same_every_time(tmp_path):
    case = read_study(write_tiffs(tmp_path))
    assert encode_nifti(blob(case.shape), case) == encode_nifti(blob(case.shape), case)


def test_tiff_masks_read_back_as_an_lgg_case(tmp_path):
    case = read_study(write_tiffs(tmp_path / "in", numbers=(3, 4, 5)))
    mask = blob(case.shape)
    folder = write_mask(mask, case, tmp_path / "out", native_format(case))
    assert sorted(path.name for path in folder.iterdir()) == [f"scan_{number}_mask.tif" for number in (3, 4, 5)]
    assert np.array_equal(tifffile.imread(folder / "scan_4_mask.tif"), mask[1] * 255)


def test_png_mask_holds_one_slice_only(tmp_path):
    case = read_study(write_tiffs(tmp_path, numbers=(1,)))
    path = write_mask(np.ones(case.shape, np.uint8), case, tmp_path / "out", "png")
    assert (np.asarray(Image.open(path)) == 255).all()
    many = read_study(write_tiffs(tmp_path / "many"))
    with pytest.raises(UserError, match="3 slices"):
        write_mask(blob(many.shape), many, tmp_path / "out", "png")


@pytest.mark.parametrize("empty", [False, True])
def test_dicom_segmentation_reads_back_as_the_mask_of_its_study(tmp_path, empty):
    write_series(tmp_path / "study" / "flair", VOXELS)
    case = read_study([tmp_path / "study"])
    mask = blob(case.shape) * (not empty)
    assert native_format(case) == "dicom-seg"
    path = write_mask(mask, case, tmp_path / "study", "dicom-seg")
    assert pydicom.dcmread(path).PatientID == "TCGA-CS-4941"
    assert np.array_equal(read_study([tmp_path / "study"]).mask, mask)


def test_dicom_segmentation_of_coronal_slices_keeps_its_place(tmp_path):
    write_series(tmp_path / "study" / "flair", VOXELS, orientation=CORONAL, step=(0, 3.0, 0))
    case = read_study([tmp_path / "study"])
    mask = blob(case.shape)
    write_mask(mask, case, tmp_path / "study", "dicom-seg")
    assert np.array_equal(read_study([tmp_path / "study"]).mask, mask)


def test_dicom_segmentation_needs_a_dicom_study(tmp_path):
    case = read_study(write_tiffs(tmp_path))
    with pytest.raises(UserError, match="read from DICOM"):
        write_mask(blob(case.shape), case, tmp_path / "out", "dicom-seg")


def test_mask_of_another_shape_names_both_shapes(tmp_path):
    case = read_study(write_tiffs(tmp_path))
    with pytest.raises(UserError, match=r"\(2, 8, 9\) for \(3, 8, 9\)"):
        write_mask(blob((2, 8, 9)), case, tmp_path / "out", "tiff")


@pytest.fixture
def edited(tmp_path):
    """Return a function that writes a DICOM series of five slices, each edited by a function, and reads it."""

    def read(edit):
        folder = write_series(tmp_path / "study" / "series", VOXELS.astype(np.uint16))
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            edit(data, data.InstanceNumber - 1)
            data.save_as(path)
        return read_study([tmp_path / "study"])

    return read


def moved(data, x=0.0, y=0.0):
    left, back, up = data.ImagePositionPatient
    data.ImagePositionPatient = [left + x, back + y, up]


@pytest.mark.parametrize("shift", [{"x": 0.5}, {"y": -0.75}, {"x": 40}], ids=str)
@pytest.mark.parametrize("slice_index", [0, 2, 4])
def test_a_slice_that_lies_beside_the_others_is_refused(edited, shift, slice_index):
    with pytest.raises(UserError, match=r"complete stack of parallel, evenly spaced slices|lie one straight above"):
        edited(lambda data, index: moved(data, **shift) if index == slice_index else None)


def test_a_stack_that_leans_is_refused_since_nothing_would_straighten_it(edited):
    with pytest.raises(UserError, match=r"one straight above the other; got a stack that leans by 1\.6 mm"):
        edited(lambda data, index: moved(data, x=0.4 * index))


def test_a_stack_that_leans_by_the_rounding_of_its_header_is_read(edited):
    assert np.array_equal(edited(lambda data, index: moved(data, x=0.002 * index)).image[..., 0], VOXELS)


def test_frames_beside_the_others_are_refused_in_one_file_too(tmp_path):
    from highdicom.legacy import LegacyConvertedEnhancedMRImage
    from pydicom.uid import generate_uid

    folder = write_series(tmp_path / "single" / "series", VOXELS)
    singles = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda ds: ds.InstanceNumber)
    moved(singles[2], x=0.5)
    enhanced = LegacyConvertedEnhancedMRImage(singles, generate_uid(), 1, generate_uid(), 1)
    (tmp_path / "multi").mkdir()
    enhanced.save_as(tmp_path / "multi" / "one.dcm")
    with pytest.raises(UserError, match=r"a slice 0\.5 mm beside the others"):
        read_study([tmp_path / "multi"])


def test_orientations_and_spacings_that_differ_by_rounding_are_one(edited, tmp_path):
    """As of UPENN-GBM-00452, whose slices have five spellings of one orientation."""

    def respell(data, index):
        if index % 2:
            data.ImageOrientationPatient = [0.999999, 1e-06, 0, -1e-06, 1, 0]
            data.PixelSpacing = [0.5000001, 0.75]

    case = edited(respell)
    assert np.array_equal(case.image[..., 0], VOXELS)
    write_mask(blob(case.shape), case, tmp_path / "study", "dicom-seg")
    assert np.array_equal(read_study([tmp_path / "study"]).mask, blob(case.shape))


@pytest.mark.parametrize(
    "other", [{"ImageOrientationPatient": [0.98, 0.19899, 0, -0.19899, 0.98, 0]}, {"PixelSpacing": [0.5, 0.8]}], ids=str
)
def test_a_slice_of_another_orientation_or_spacing_is_refused(edited, other):
    def change(data, index):
        if index == 2:
            for name, value in other.items():
                setattr(data, name, value)

    with pytest.raises(UserError, match=r"same orientation|same spacing"):
        edited(change)


def test_a_segmentation_may_differ_from_its_study_by_rounding_and_not_by_a_part_of_a_voxel(tmp_path):
    """As those of UPENN-GBM do, by up to two thousandths of a voxel."""
    write_series(tmp_path / "study" / "flair", VOXELS)
    case = read_study([tmp_path / "study"])
    path = write_mask(blob(case.shape), case, tmp_path / "study", "dicom-seg")

    def shift(mm):
        data = pydicom.dcmread(path)
        for frame in data.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0].ImagePositionPatient[0] += mm
        data.save_as(path)

    shift(0.001)
    assert np.array_equal(read_study([tmp_path / "study"]).mask, blob(case.shape))
    shift(0.2)
    with pytest.raises(UserError, match="must lie on its study's grid"):
        read_study([tmp_path / "study"])


@pytest.mark.parametrize(("away_mm", "shown"), [(6.0, "12 voxels outside of it"), (3e7, "a stack of 100000")])
def test_a_segmentation_with_a_frame_beyond_its_study_is_refused_and_not_cut(tmp_path, away_mm, shown):
    case = read_study([write_series(tmp_path / "study", VOXELS)])
    mask = np.zeros(case.shape, np.uint8)
    mask[-2:, 2:5, 3:8] = 1
    path = write_mask(mask, case, tmp_path / "out", "dicom-seg")
    ds = pydicom.dcmread(path)
    place = ds.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0]
    x, y, z = place.ImagePositionPatient
    place.ImagePositionPatient = [x, y, z + away_mm]
    ds.save_as(tmp_path / "study" / "SEG")
    with pytest.raises(UserError, match="must lie on its study's grid") as caught:
        read_study([tmp_path / "study"])
    assert shown in caught.value.value


def test_a_lone_dicom_slice_is_as_thick_as_it_says(tmp_path):
    write_series(tmp_path / "study", VOXELS[:1])
    assert read_study([tmp_path / "study"]).spacing_mm == (3.0, 0.5, 0.75)


def test_all_series_of_a_dicom_study_are_its_files(tmp_path):
    for number, text in enumerate(("AX T1", "AX T2", "LOCALIZER"), start=1):
        write_series(tmp_path / str(number), VOXELS, description=text, number=number)
    case = read_study([tmp_path])
    assert {file.parent.name for file in case.files} == {"1", "2"}
    assert len(case.files) == 2 * len(VOXELS)


def write_volumes(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        data = np.full((6, 5, 4), number, np.int16)
        if name.endswith(("seg", "mask")):
            data = (np.arange(120).reshape(6, 5, 4) % 7 == 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def test_a_folder_of_files_named_by_sequences_alone_is_one_study(tmp_path):
    folder = write_volumes(tmp_path / "p1", "FLAIR", "T1", "T1_KM", "T2", "seg")
    case = read_study([folder])
    assert (case.id, case.channels, case.mask is not None) == ("p1", ("flair", "t1", "t1_km", "t2"), True)


@pytest.mark.parametrize("name", ["p1_{}.nii.gz", "{}.nii.gz", "image.nii.gz"])
def test_a_folder_for_each_sequence_is_the_study_that_its_files_are(tmp_path, name):
    for channel in ("T1", "FLAIR"):
        folder = tmp_path / "DOE" / channel
        folder.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16), np.eye(4)), folder / name.format(channel))
        (folder / "sidecar.json").write_text("{}")
    (tmp_path / "DOE" / "README.txt").write_text("x")
    files = sorted((tmp_path / "DOE").rglob("*.nii.gz"))
    loose, whole = read_study(files, masks=False), read_study([tmp_path / "DOE"], masks=False)
    assert (whole.id, whole.channels, whole.files) == (loose.id, ("flair", "t1"), loose.files)
    assert len(open_source(tmp_path / "DOE", masks=False).cases) == 1


def test_files_of_one_folder_are_grouped_by_what_stands_before_their_sequence(tmp_path):
    names = ("p1_t1", "p1_flair", "p1_seg", "p2_t1", "p2_flair", "p2_seg")
    cohort = open_cohort(write_volumes(tmp_path / "flat", *names))
    assert [(case.id, case.patient, len(case.files)) for case in cohort.cases] == [("p1", "p1", 3), ("p2", "p2", 3)]
    assert cohort.read("p2").channels == ("flair", "t1")
    alone = open_cohort(write_volumes(tmp_path / "alone", "p1_flair", "p2_flair"))
    assert [case.id for case in alone.cases] == ["p1_flair", "p2_flair"], "as they have always been named"


@pytest.mark.parametrize("name", ["flair_3d", "FLAIR_3D", "flair_3d.nii.gz"])
def test_a_person_says_which_of_several_nifti_files_is_a_channel(tmp_path, name):
    folder = write_volumes(tmp_path / "p1", "FLAIR", "T1", "flair_3d")
    case = read_study([folder], channels={"flair": name})
    assert (case.channels, case.image[0, 0, 0].tolist()) == (("t1", "flair"), [2, 3])
    assert [file.name for file in case.files] == ["T1.nii.gz", "flair_3d.nii.gz"]
    assert case.chosen == (("flair", name),)


def test_a_channel_may_be_any_nifti_file_and_each_file_one_channel(tmp_path):
    folder = write_volumes(tmp_path / "p1", "FLAIR", "T1", "x7")
    (tmp_path / "cohort").mkdir()
    folder = folder.rename(tmp_path / "cohort" / "p1")
    assert read_study([tmp_path / "cohort"], channels={"t2": "x7"}).channels == ("flair", "t1", "t2")
    with pytest.raises(
        UserError, match=r"channels must name one series of the study for t2.*choose one of: flair, t1, x7"
    ):
        read_study([tmp_path / "cohort"], channels={"t2": "x8"})
    with pytest.raises(UserError, match="must not give one series to two channels; got t2 and post"):
        read_study([tmp_path / "cohort"], channels={"t2": "x7", "post": "x7"})


def test_a_choice_is_refused_where_the_names_leave_none(tmp_path):
    folder = write_tiffs(tmp_path / "case")[0].parent
    with pytest.raises(UserError, match="channels needs DICOM or NIfTI"):
        read_study([folder], channels={"flair": "x"})


def test_a_volume_that_the_layout_has_no_place_for_is_named_from_a_folder_and_from_files(tmp_path):
    names = [f"BraTS2021_00006_{name}" for name in ("flair", "t1", "t1ce", "t2", "localizer")]
    folder = tmp_path / "BraTS2021_00006"
    write_volumes(folder, *names)
    for paths in ([folder], sorted(folder.iterdir())):
        case = read_study(paths)
        assert case.channels == ("flair", "t1", "t1ce", "t2")
        assert case.warnings[-1].endswith("left out: BraTS2021_00006_localizer.nii.gz")


def test_a_mask_that_nobody_asks_for_is_not_looked_at(tmp_path):
    folder = tmp_path / "p1"
    write_volumes(folder, "p1_t1", "p1_flair")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), folder / "p1_seg.nii.gz")
    with pytest.raises(UserError, match="one grid"):
        read_study([folder])
    for paths in ([folder], sorted(folder.iterdir())):
        assert read_study(paths, masks=False).mask is None


def test_a_series_of_another_modality_is_read_and_said_to_be_no_mri(tmp_path):
    folder = write_series(tmp_path / "a", VOXELS.astype(np.uint16))
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.Modality = "CT"
        dataset.save_as(file)
    assert read_study([folder]).warnings == ("flair is CT and no MRI",)
