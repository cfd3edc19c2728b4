import numpy as np
import pytest
import tifffile

from glioflow.data.formats.detect import open_cohort
from glioflow.errors import UserError

CASE = "TCGA_CS_4941_19960909"


def write_case(root, name=CASE, numbers=(1, 2, 10), *, masks=True):
    folder = root / name
    folder.mkdir(parents=True)
    for number in numbers:
        image = np.full((8, 9, 3), number, np.uint8)
        tifffile.imwrite(folder / f"{name}_{number}.tif", image, photometric="rgb")
        if masks:
            mask = np.zeros((8, 9), np.uint8)
            mask[2:4, 2:number] = 255
            tifffile.imwrite(folder / f"{name}_{number}_mask.tif", mask)
    return folder


def read_first(path):
    cohort = open_cohort(path)
    return cohort.read(cohort.cases[0].id)


def refusal(path):
    """The one line that reading the cohort at `path` fails with."""
    with pytest.raises(UserError) as caught:
        read_first(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_slices_are_ordered_by_number_and_not_by_name(tmp_path):
    write_case(tmp_path)
    case = open_cohort(tmp_path).read(CASE)
    assert case.slice_numbers == (1, 2, 10)
    assert case.image[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert case.image.shape == (3, 8, 9, 3)
    assert case.image.dtype == np.uint8


def test_patient_and_institution_come_from_the_name(tmp_path):
    write_case(tmp_path)
    case = open_cohort(tmp_path).read(CASE)
    assert (case.patient, case.institution) == ("TCGA_CS_4941", "CS")
    assert case.channels == ("pre", "flair", "post")
    assert case.spacing_mm is None


def test_masks_of_255_are_read_as_ones(tmp_path):
    write_case(tmp_path)
    mask = open_cohort(tmp_path).read(CASE).mask
    assert np.unique(mask).tolist() == [0, 1]
    assert mask.sum(axis=(1, 2)).tolist() == [0, 0, 14]


def test_cohort_is_found_below_the_folder_that_holds_kaggle_3m(tmp_path):
    write_case(tmp_path / "kaggle_3m")
    (tmp_path / "kaggle_3m" / "data.csv").write_text("Patient;death01\nTCGA_CS_4941;1\n")
    cohort = open_cohort(tmp_path)
    assert cohort.format == "lgg"
    assert cohort.clinical == tmp_path / "kaggle_3m" / "data.csv"


def test_study_without_any_mask_is_readable(tmp_path):
    write_case(tmp_path, masks=False)
    assert open_cohort(tmp_path).read(CASE).mask is None


def test_missing_slice_number_is_a_warning_of_the_case(tmp_path):
    write_case(tmp_path)
    assert "3, 4, 5" in open_cohort(tmp_path).read(CASE).warnings[0]


def test_slice_without_its_mask_is_named(tmp_path):
    folder = write_case(tmp_path)
    (folder / f"{CASE}_2_mask.tif").unlink()
    assert f"{CASE}_2.tif: a slice has no mask" in refusal(tmp_path)


def test_mask_without_its_slice_is_named(tmp_path):
    folder = write_case(tmp_path)
    (folder / f"{CASE}_2.tif").unlink()
    assert f"{CASE}_2_mask.tif: a mask has no slice of its number" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0, 6, 100, 200, -1])
def test_truncated_tiff_is_named(tmp_path, kept):
    path = write_case(tmp_path) / f"{CASE}_2.tif"
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{CASE}_2.tif" in refusal(tmp_path)


def test_garbage_instead_of_a_tiff_is_named(tmp_path):
    path = write_case(tmp_path) / f"{CASE}_2_mask.tif"
    path.write_bytes(b"II*\0" + b"\xff" * 400)
    assert f"{CASE}_2_mask.tif" in refusal(tmp_path)


def test_mask_of_another_size_names_both_sizes(tmp_path):
    folder = write_case(tmp_path)
    tifffile.imwrite(folder / f"{CASE}_2_mask.tif", np.zeros((8, 8), np.uint8))
    assert "(8, 8), not (8, 9)" in refusal(tmp_path)


def test_mask_that_is_not_binary_names_its_values(tmp_path):
    folder = write_case(tmp_path)
    tifffile.imwrite(folder / f"{CASE}_2_mask.tif", np.arange(72, dtype=np.uint8).reshape(8, 9))
    assert "[0, 1, 2, 3, 4]" in refusal(tmp_path)


def test_mask_of_another_value_than_255_or_1_is_refused(tmp_path):
    folder = write_case(tmp_path)
    tifffile.imwrite(folder / f"{CASE}_2_mask.tif", np.full((8, 9), 7, np.uint8))
    assert "[7]" in refusal(tmp_path)


def test_deflated_tiff_is_read(tmp_path):
    folder = write_case(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    tifffile.imwrite(folder / f"{CASE}_1.tif", image, photometric="rgb", compression="zlib")
    assert np.array_equal(read_first(tmp_path).image[0], image)


def test_tiff_that_unpacks_to_more_than_it_states_is_refused(tmp_path):
    path = write_case(tmp_path) / f"{CASE}_1.tif"
    tifffile.imwrite(path, np.zeros((1000, 1000, 3), np.uint8), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag, value in (("ImageLength", 8), ("ImageWidth", 9), ("RowsPerStrip", 8)):
            file.pages[0].tags[tag].overwrite(value)
    assert "the size that it states" in refusal(tmp_path)


def test_slices_of_two_sizes_are_refused(tmp_path):
    folder = write_case(tmp_path, masks=False)
    tifffile.imwrite(folder / f"{CASE}_2.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    assert "the same size" in refusal(tmp_path)


def test_slices_that_need_16_bits_are_refused(tmp_path):
    folder = write_case(tmp_path, masks=False)
    tifffile.imwrite(folder / f"{CASE}_2.tif", np.full((8, 9, 3), 300, np.uint16), photometric="rgb")
    assert "uint16" in refusal(tmp_path)


def test_tiff_that_claims_an_enormous_size_is_refused_before_it_is_decoded(tmp_path):
    folder = write_case(tmp_path, masks=False)
    huge = np.zeros((5000, 10, 3), np.uint8)
    tifffile.imwrite(folder / f"{CASE}_2.tif", huge, photometric="rgb", compression="zlib")
    assert "4096 pixels on each side" in refusal(tmp_path)


def test_the_same_number_twice_is_refused(tmp_path):
    folder = write_case(tmp_path, masks=False)
    (folder / f"{CASE}_01.tif").write_bytes((folder / f"{CASE}_1.tif").read_bytes())
    assert "must belong to one file" in refusal(tmp_path)


def test_empty_case_folder_is_named(tmp_path):
    write_case(tmp_path)
    (tmp_path / "TCGA_CS_4942_19970222").mkdir()
    assert "TCGA_CS_4942_19970222" in refusal(tmp_path)


def test_empty_cohort_folder_is_named(tmp_path):
    assert str(tmp_path) in refusal(tmp_path)


def test_a_clinical_table_without_its_patient_column_stops_no_reading_of_images(tmp_path):
    write_case(tmp_path)
    (tmp_path / "data.csv").write_text("Person,death01\nTCGA_CS_4941,1\n")
    assert len(open_cohort(tmp_path).cases) == 1


def test_name_that_is_not_tcgas_is_its_own_patient(tmp_path):
    write_case(tmp_path, "somebody_20200101")
    case = open_cohort(tmp_path).cases[0]
    assert (case.patient, case.institution) == ("somebody", None)
