"""The LGG set as people upload it again: other folders, other files, other masks, the same cases."""

import shutil

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats import lgg_pixels
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import read_study
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import UserError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("lgg") / "kaggle_3m"
    synthesize_lgg(path, patients=3, seed=0, size=48, slices=(5, 6))
    return path


def files_of(root):
    return sorted(root.glob("*/*.tif"))


def as_png(root, out):
    for file in files_of(root):
        target = out / file.parent.name / f"{file.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tifffile.imread(file)).save(target)


def flat(root, out):
    out.mkdir(parents=True)
    for file in files_of(root):
        shutil.copy(file, out / file.name)


def side_by_side(root, out, *, twins=False):
    for file in files_of(root):
        mask = file.stem.endswith("_mask")
        target = out / ("masks" if mask else "images") / (file.name.replace("_mask", "") if twins else file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def in_parts(root, out):
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        part = "val" if folder == min(root.glob("TCGA*")) else "train"
        shutil.copytree(folder, out / part / folder.name)


def side_by_side_in_parts(root, out):
    in_parts(root, out.with_name("parts"))
    for part in ("train", "val"):
        side_by_side(out.with_name("parts") / part, out / part)


COPIES = {
    "folders train and val": in_parts,
    "images and masks in train and val": side_by_side_in_parts,
    "PNG in case folders": as_png,
    "all in one folder": flat,
    "images and masks": side_by_side,
    "masks named as their images": lambda root, out: side_by_side(root, out, twins=True),
    "kaggle_3m in kaggle_3m": lambda root, out: shutil.copytree(root, out / "kaggle_3m" / "kaggle_3m"),
    "one level higher": lambda root, out: shutil.copytree(root, out / "lgg-mri-segmentation" / "kaggle_3m"),
    "the archive that holds itself": lambda root, out: (
        shutil.copytree(root, out / "kaggle_3m"),
        shutil.copytree(root, out / "lgg-mri-segmentation" / "kaggle_3m"),
    ),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_has_the_cases_of_the_original(original, tmp_path, copy):
    COPIES[copy](original, tmp_path / "copy")
    theirs, ours = open_cohort(tmp_path / "copy"), open_cohort(original)
    assert theirs.format == "lgg"
    assert [(case.id, case.patient, case.institution) for case in theirs.cases] == [
        (case.id, case.patient, case.institution) for case in ours.cases
    ]
    for case in ours.cases:
        one, other = theirs.read(case.id), ours.read(case.id)
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.mask, other.mask)
        assert one.slice_numbers == other.slice_numbers


@pytest.mark.parametrize("copy", COPIES)
def test_check_finds_nothing_wrong_with_a_copy(original, tmp_path, copy):
    COPIES[copy](original, tmp_path / "copy")
    report = check(tmp_path / "copy")
    assert report.ok, report.problems
    assert (report.patients, report.slices) == (3, check(original).slices)


def rewrite_masks(root, out, change):
    shutil.copytree(root, out)
    for file in out.glob("*/*_mask.tif"):
        tifffile.imwrite(file, change(tifffile.imread(file)))


@pytest.mark.parametrize(
    "change",
    [
        lambda mask: np.repeat(mask[..., None], 3, axis=2),
        lambda mask: np.where(mask > 0, 65535, 0).astype(np.uint16),
        lambda mask: (mask > 0).astype(np.uint8),
    ],
    ids=["RGB", "0 and 65535", "0 and 1"],
)
def test_masks_of_other_kinds_mean_the_same(original, tmp_path, change):
    rewrite_masks(original, tmp_path / "copy", change)
    for case in open_cohort(original).cases:
        assert np.array_equal(
            open_cohort(tmp_path / "copy").read(case.id).mask, open_cohort(original).read(case.id).mask
        )


def blur(mask):
    return cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_GRAYSCALE)


def test_blurred_masks_are_only_cut_where_a_person_says_so(original, tmp_path):
    copy = tmp_path / "copy"
    rewrite_masks(original, copy, blur)
    with pytest.raises(UserError, match="mask_threshold: 127"):
        [open_cohort(copy).read(case.id) for case in open_cohort(copy).cases]
    (copy / "cohort.yaml").write_text("mask_threshold: 127")
    for case in open_cohort(original).cases:
        truth, cut = open_cohort(original).read(case.id).mask, open_cohort(copy).read(case.id).mask
        assert (truth != cut).sum() <= 0.05 * truth.sum()
    report = check(copy)
    assert report.ok, report.problems
    assert any("masks are cut at 127" in remark for remark in report.remarks)


@pytest.mark.parametrize("packing", [None, "zlib"])
def test_planes_of_a_tiff_are_its_channels(original, tmp_path, packing):
    copy = shutil.copytree(original, tmp_path / "copy")
    for file in copy.glob("*/*[0-9].tif"):
        planes = np.moveaxis(tifffile.imread(file), -1, 0)
        tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", compression=packing)
    for case in open_cohort(original).cases:
        assert np.array_equal(open_cohort(copy).read(case.id).image, open_cohort(original).read(case.id).image)


def test_eight_bits_in_sixteen_and_packed_by_opencv_are_the_same_slices(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "copy")
    for file in copy.glob("*/*[0-9].tif"):
        wide = tifffile.imread(file).astype(np.uint16) * 257
        cv2.imwrite(str(file), wide[..., ::-1])  # LZW
    for case in open_cohort(original).cases:
        assert np.array_equal(open_cohort(copy).read(case.id).image, open_cohort(original).read(case.id).image)


def test_one_case_is_a_study_whatever_it_lies_beside(original, tmp_path):
    as_png(original, tmp_path / "png")
    case = open_cohort(original).cases[0]
    whole = open_cohort(original).read(case.id)
    for folder in (original / case.id, tmp_path / "png" / case.id):
        assert np.array_equal(read_study([folder]).image, whole.image)


def test_pictures_that_other_programs_drew_are_no_slices(original, tmp_path):
    root = shutil.copytree(original, tmp_path / "kaggle_3m")
    for name in ("loss_1.png", "dice_2.png"):
        cv2.imwrite(str(root / name), np.zeros((8, 8, 3), np.uint8))
    assert [case.id for case in open_cohort(root).cases] == [case.id for case in open_cohort(original).cases]


def test_pictures_beside_volumes_make_no_lgg_cohort(tmp_path):
    for name in ("p1/p1_flair.nii.gz", "p2/p2_flair.nii.gz", "images/p1_1.png", "images/p2_1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert open_cohort(tmp_path).format == "nifti"


@pytest.mark.parametrize("kind", [np.uint8, bool])
def test_a_threshold_leaves_masks_of_0_and_1_as_they_are(tmp_path, kind):
    mask = np.zeros((8, 8), kind)
    mask[2:4] = 1
    Image.fromarray(mask).save(tmp_path / "a_1_mask.png")
    assert np.array_equal(lgg_pixels.read_mask(tmp_path / "a_1_mask.png", (8, 8), 127), mask)


def test_masks_that_have_the_names_of_their_images_are_known_as_masks(original, tmp_path):
    side_by_side(original, tmp_path / "own", twins=True)
    cohort = open_cohort(tmp_path / "own")
    case = cohort.read(cohort.cases[0].id)
    assert {file.parent.name for file in case.files} == {"images"}
    files = check(tmp_path / "own").files
    assert len(files["images"]) == len(files["masks"]) == len(case.files)


def test_a_png_whose_colors_need_16_bits_is_refused_and_8_bits_in_16_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for name, deep in (("a", pixels * np.uint16(257)), ("b", pixels * np.uint16(257) + np.uint16(1) * (pixels < 255))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), deep[..., ::-1].astype(np.uint16))
    assert np.array_equal(lgg_pixels.read_slice(tmp_path / "a.png"), pixels)
    with pytest.raises(UserError, match="8-bit image"):
        lgg_pixels.read_slice(tmp_path / "b.png")


def test_parts_with_one_case_in_png_are_a_cohort(original, tmp_path):
    as_png(original, tmp_path / "png")
    for part, folder in zip(("train", "val", "test"), sorted((tmp_path / "png").iterdir()), strict=True):
        for file in folder.iterdir():
            target = tmp_path / "copy" / part / ("masks" if file.stem.endswith("_mask") else "images") / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    cohort = open_cohort(tmp_path / "copy")
    assert cohort.format == "lgg"
    assert [case.id for case in cohort.cases] == [case.id for case in open_cohort(original).cases]
