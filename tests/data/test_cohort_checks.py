import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.errors import UserError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("checks") / "lgg"
    synthesize_lgg(path, patients=4, seed=0, size=64, slices=(8, 10))
    return path


@pytest.fixture
def lgg(sound, tmp_path):
    """A sound cohort of our own to damage."""
    import shutil

    return shutil.copytree(sound, tmp_path / "lgg")


@pytest.fixture
def brats(tmp_path):
    synthesize_brats(tmp_path / "brats", patients=3, seed=0, size=40, slices=24)
    return tmp_path / "brats"


def slice_path(root, case=0, number=3, mask=False):
    folder = sorted(path for path in root.iterdir() if path.is_dir())[case]
    return folder / f"{folder.name}_{number}{'_mask' if mask else ''}.tif"


def errors(path):
    return [problem for problem in check(path).problems if problem.severity == "error"]


def only_error(path):
    found = errors(path)
    assert len(found) == 1, found
    return found[0]


def test_sound_cohort_has_no_errors_and_the_right_counts(lgg):
    report = check(lgg)
    cohort = open_cohort(lgg)
    cases = [cohort.read(case.id) for case in cohort.cases]
    assert report.ok
    assert (report.format, report.patients) == ("lgg", 4)
    assert report.slices == sum(len(case.image) for case in cases)
    assert report.positive_slices == sum(int(case.mask.any(axis=(1, 2)).sum()) for case in cases)


def test_report_is_json(lgg):
    report = check(lgg).to_dict()
    assert set(json.loads(json.dumps(report))) == {
        "format",
        "patients",
        "slices",
        "positive_slices",
        "problems",
        "files",
        "layout",
        "remarks",
    }


def test_processes_give_the_same_report(lgg):
    slice_path(lgg).write_bytes(b"broken")
    with ProcessPoolExecutor(2) as pool:
        assert check(lgg, map_cases=pool.map) == check(lgg)


@pytest.mark.parametrize("mask", [False, True])
def test_truncated_slice_is_named(lgg, mask):
    path = slice_path(lgg, mask=mask)
    path.write_bytes(path.read_bytes()[:500])
    assert only_error(lgg).file == str(path.relative_to(lgg))


def test_slice_cut_before_its_directory_says_so_in_words(lgg):
    path = slice_path(lgg)
    content = bytearray(path.read_bytes())
    content[4:8] = (len(content) + 100).to_bytes(4, "little")  # the real cohort's directories lie at the end
    path.write_bytes(content)
    assert only_error(lgg).value == "cut short or damaged"


def test_every_broken_file_is_named_and_not_the_first_alone(lgg):
    broken = [slice_path(lgg, 0, 2), slice_path(lgg, 0, 5, mask=True), slice_path(lgg, 2, 3)]
    for path in broken:
        path.write_bytes(b"broken")
    assert sorted(problem.file for problem in errors(lgg)) == sorted(str(path.relative_to(lgg)) for path in broken)


def test_slice_of_another_type_is_named(lgg):
    path = slice_path(lgg)
    tifffile.imwrite(path, np.ones((64, 64, 3), np.uint16), photometric="rgb")
    assert "uint16" in only_error(lgg).value


def test_slice_of_another_size_is_named(lgg):
    tifffile.imwrite(slice_path(lgg), np.ones((32, 64, 3), np.uint8), photometric="rgb")
    assert any(problem.rule == "all slices of a case must have the same size" for problem in errors(lgg))


def test_mask_of_another_size_is_named(lgg):
    tifffile.imwrite(slice_path(lgg, mask=True), np.zeros((32, 64), np.uint8))
    assert only_error(lgg).rule == "a mask must have the size of its slice"


def test_mask_that_is_not_binary_is_named(lgg):
    path = slice_path(lgg, mask=True)
    tifffile.imwrite(path, np.arange(4096, dtype=np.uint8).reshape(64, 64))
    problem = only_error(lgg)
    assert (problem.file, problem.value) == (str(path.relative_to(lgg)), "[0, 1, 2, 3, 4]")


def test_missing_mask_is_named(lgg):
    slice_path(lgg, mask=True).unlink()
    assert only_error(lgg).file == str(slice_path(lgg).relative_to(lgg))


def test_missing_slice_number_is_named(lgg):
    slice_path(lgg).unlink()
    slice_path(lgg, mask=True).unlink()
    problem = only_error(lgg)
    assert (problem.rule, problem.value) == ("slice numbers must run from 1 without a gap", "[3] missing")
    assert problem.file == slice_path(lgg).parent.name


def test_same_slice_twice_is_named(lgg):
    slice_path(lgg, number=4).write_bytes(slice_path(lgg, number=3).read_bytes())
    problem = only_error(lgg)
    assert problem.value == "slice 4 equals slice 3"


def test_same_slice_number_twice_is_named(lgg):
    path = slice_path(lgg)
    path.with_name(path.name.replace("_3.", "_03.")).write_bytes(path.read_bytes())
    assert "slice number 3 must belong to one file" in only_error(lgg).rule


def test_blank_image_is_named(lgg):
    tifffile.imwrite(slice_path(lgg, number=1), np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    assert (only_error(lgg).rule, only_error(lgg).value) == ("an image must not be blank", "slices [1]")


def test_blank_channel_is_named(lgg):
    for path in slice_path(lgg).parent.glob("*[0-9].tif"):
        image = tifffile.imread(path)
        image[..., 2] = 0
        tifffile.imwrite(path, image, photometric="rgb")
    assert (only_error(lgg).rule, only_error(lgg).value) == ("a channel must not be blank", "post")


def test_mask_beside_the_head_is_named(lgg):
    for path in slice_path(lgg).parent.glob("*_mask.tif"):
        tifffile.imwrite(path, np.roll(tifffile.imread(path), 32, axis=1))
    assert only_error(lgg).rule == "a mask must lie inside the head"


def test_one_slice_whose_mask_is_beside_the_head_is_named(lgg):
    mask = np.zeros((64, 64), np.uint8)
    mask[:2, :2] = 255
    path = slice_path(lgg, number=1, mask=True)
    assert not tifffile.imread(path).any()
    tifffile.imwrite(path, mask)
    problem = only_error(lgg)
    assert problem.rule == "a mask must lie inside the head"
    assert problem.value.endswith("slices [1]")


def test_mask_in_the_scalp_is_a_warning(tmp_path):
    """The head is drawn by hand: scalp, skull and brain; the mask is a piece of scalp."""
    folder = tmp_path / "lgg" / "TCGA_CS_0001_20000101"
    folder.mkdir(parents=True)
    y, x = np.mgrid[:256, :256] - 128
    radius = np.hypot(y, x)
    plane = np.where(radius < 112, 200, 0)
    plane[radius < 104] = 40
    plane[radius < 90] = 120
    scalp = (radius > 105) & (radius < 112) & (y < -60)
    brain = np.hypot(y, x) < 20
    for marked, warned in ((scalp, True), (brain, False)):
        for number in range(1, 5):
            image = np.repeat(plane[..., None], 3, axis=2).astype(np.uint8)
            image[..., 0] //= 2
            image[..., 2] //= 3
            image[100, 100, 0] = number
            tifffile.imwrite(folder / f"{folder.name}_{number}.tif", image, photometric="rgb")
            mask = marked.astype(np.uint8) * 255
            tifffile.imwrite(folder / f"{folder.name}_{number}_mask.tif", mask)
        report = check(tmp_path / "lgg")
        assert report.ok
        assert ("a mask should lie inside the brain" in {problem.rule for problem in report.problems}) == warned


def test_slice_of_one_value_is_blank(lgg):
    tifffile.imwrite(slice_path(lgg, number=1), np.full((64, 64, 3), 7, np.uint8), photometric="rgb")
    assert (only_error(lgg).rule, only_error(lgg).value) == ("an image must not be blank", "slices [1]")


def test_case_without_masks_among_others_is_a_warning(lgg):
    folder = slice_path(lgg).parent
    for path in folder.glob("*_mask.tif"):
        path.unlink()
    report = check(lgg)
    assert report.ok
    assert (folder.name, "no mask") in {(problem.file, problem.value) for problem in report.problems}


def test_empty_masks_are_a_warning(lgg):
    for path in slice_path(lgg).parent.glob("*_mask.tif"):
        tifffile.imwrite(path, np.zeros((64, 64), np.uint8))
    report = check(lgg)
    assert report.ok
    assert "an empty mask" in {problem.value for problem in report.problems}


def test_copy_of_flair_is_a_warning(lgg):
    for path in slice_path(lgg).parent.glob("*[0-9].tif"):
        image = tifffile.imread(path)
        image[..., 0] = image[..., 1]
        tifffile.imwrite(path, image, photometric="rgb")
    report = check(lgg)
    assert report.ok
    assert "pre is a copy of flair" in {problem.value for problem in report.problems}


def test_two_patients_with_the_same_images_are_named(lgg):
    one, other = slice_path(lgg, 0).parent, slice_path(lgg, 1).parent
    for path in other.iterdir():
        path.unlink()
    for path in one.iterdir():
        (other / path.name.replace(one.name, other.name)).write_bytes(path.read_bytes())
    problem = only_error(lgg)
    assert problem.rule == "two cases must not have the same image"
    assert (problem.file, one.name in problem.value) == (other.name, True)


def test_slice_of_another_patient_among_ours_is_named(lgg):
    path = slice_path(lgg)
    path.rename(path.with_name("TCGA_XX_0000_20000101_3.tif"))
    assert any(problem.rule == "a slice must be named after its folder" for problem in errors(lgg))


def test_empty_case_folder_is_named(lgg):
    (lgg / "TCGA_CS_0000_20000101").mkdir()
    assert only_error(lgg).file == "TCGA_CS_0000_20000101"


def test_key_without_a_case_and_case_without_a_key_are_warnings(lgg):
    table = lgg / "data.csv"
    lines = table.read_text().splitlines()
    lost = lines[1].split(",")[0]
    table.write_text("\n".join([lines[0], lines[1].replace(lost, "TCGA_ZZ_0000"), *lines[2:]]) + "\n")
    report = check(lgg)
    assert report.ok
    assert [problem.value for problem in report.problems if problem.file == "data.csv"] == ["TCGA_ZZ_0000", lost]


def test_table_without_its_patient_column_is_named(lgg):
    (lgg / "data.csv").write_text("Person,death01\nx,1\n")
    assert not errors(lgg)
    assert any(problem.file == "data.csv" and "Patient" in problem.rule for problem in check(lgg).problems)


def test_single_case_folder_and_single_file_can_be_checked(lgg):
    folder = slice_path(lgg).parent
    assert check(folder).patients == 1
    assert check(folder).ok
    assert check(slice_path(lgg)).slices == 1
    slice_path(lgg, mask=True).write_bytes(b"broken")
    assert not check(folder).ok


def test_path_without_anything_known_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "nowhere"):
        with pytest.raises(UserError):
            check(path)


def modality(root, name, case="BraTS20_Training_002"):
    return root / case / f"{case}_{name}.nii.gz"


def rewrite(path, change):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


def test_sound_brats_cohort_has_no_problems(brats):
    report = check(brats)
    assert report.problems == ()
    assert (report.format, report.patients, report.slices) == ("brats", 3, 72)


def test_truncated_volumes_are_all_named(brats):
    for name in ("t1", "seg"):
        path = modality(brats, name)
        path.write_bytes(path.read_bytes()[:200])
    assert {problem.file for problem in errors(brats)} == {
        str(modality(brats, name).relative_to(brats)) for name in ("t1", "seg")
    }


def test_nan_is_named(brats):
    rewrite(modality(brats, "t2"), lambda data: np.where(data > 0, data, np.nan).astype(np.float32))
    problem = only_error(brats)
    assert (problem.rule, problem.file) == (
        "an image must hold finite numbers",
        str(modality(brats, "t2").relative_to(brats)),
    )


def test_label_outside_the_scheme_is_named(brats):
    rewrite(modality(brats, "seg"), lambda data: np.where(data == 2, 3, data).astype(np.uint8))
    problem = only_error(brats)
    assert "among [0, 1, 2, 4]" in problem.rule
    assert problem.file == str(modality(brats, "seg").relative_to(brats))


def test_volume_on_another_grid_is_named_beside_the_one_it_differs_from(brats):
    path = modality(brats, "t1")
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), path)
    problem = only_error(brats)
    assert problem.file == str(path.relative_to(brats))
    assert problem.value.endswith(modality(brats, "flair").name)


def test_empty_folder_among_cases_is_a_warning(brats):
    (brats / "BraTS20_Training_004").mkdir()
    report = check(brats)
    assert report.ok
    assert [problem.file for problem in report.problems] == ["BraTS20_Training_004"]


def test_missing_modality_hides_no_other_damage(brats):
    modality(brats, "t1").unlink()
    modality(brats, "flair", "BraTS20_Training_003").write_bytes(b"broken")
    assert [Path(problem.file).parts[0] for problem in errors(brats)] == [
        "BraTS20_Training_002",
        "BraTS20_Training_003",
    ]


@pytest.mark.real
@pytest.mark.parametrize(("name", "counts"), [("kaggle_3m", (65, 2396, 854)), ("brats2021", (5, 775, 373))])
def test_real_cohorts_have_warnings_only(name, counts):
    path = Path(os.environ.get("GLIOFLOW_DATA", "nowhere")) / name
    if not path.is_dir():
        pytest.skip(f"{name} is not under GLIOFLOW_DATA")
    with ProcessPoolExecutor(2) as pool:
        report = check(path, map_cases=pool.map)
    assert report.ok
    assert (report.patients, report.slices, report.positive_slices) == counts


def test_a_patient_twice_in_the_table_is_a_warning_since_segmentation_reads_no_row(lgg):
    table = lgg / "data.csv"
    lines = table.read_text().splitlines()
    own = lines[1].split(",")[0]
    table.write_text("\n".join([*lines, lines[1].replace(own, own.replace("_", "-"))]) + "\n")
    report = check(lgg)
    assert report.ok
    (problem,) = [each for each in report.problems if each.file == "data.csv"]
    assert (problem.value, "survival" in problem.rule) == (own, True)


def test_the_mistake_of_a_whole_folder_is_reported_beside_those_of_its_parts(tmp_path):
    synthesize_layout("upenn-gbm", tmp_path / "upenn")
    shutil.rmtree(tmp_path / "upenn" / "images_segm")
    assert "kind corrected" in check(tmp_path / "upenn").problems[0].rule
