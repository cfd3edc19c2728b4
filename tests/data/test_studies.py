import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_series import CORONAL, write_series
from PIL import Image

from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import read_study
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
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="one known kind") as caught:
        read_study([*paths, tmp_path / "notes.txt"])
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
