import re

import numpy as np
import pytest
import tifffile

from glioflow.data.case import Case
from glioflow.data.preprocessing.geometry_steps import ResizePlane
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.errors import UserError
from glioflow.reports.case_pictures import montage, through_steps
from glioflow.reports.cohort_page import describe
from glioflow.reports.page import Section, render_page


@pytest.fixture(scope="module")
def lgg(tmp_path_factory):
    path = tmp_path_factory.mktemp("describe") / "lgg"
    synthesize_lgg(path, patients=4, seed=0, size=64, slices=(6, 9))
    return path


def counts(root):
    masks = list(root.rglob("*_mask.tif"))
    return len(masks), sum(bool(tifffile.imread(path).any()) for path in masks)


def test_the_report_counts_what_is_on_disk_and_needs_no_other_file(lgg, tmp_path):
    done = describe(lgg, tmp_path / "out")
    slices, positive = counts(lgg)
    assert (done.patients, done.slices, done.positive_slices) == (4, slices, positive)
    page = done.report.read_text()
    assert f"{slices - positive:,} slices without tumor to {positive:,} with tumor" in page
    assert set(re.findall(r'src="([^"]{22})', page)) == {"data:image/png;base64,"}
    assert "http" not in page
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert names >= {"balance", "slices", "areas", "intensities", "missing", "preprocessing", "channels", "montage"}


def test_gaps_copies_and_steps_are_told(lgg, tmp_path):
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    for path in folder.glob("*.tif"):
        if "_mask" not in path.name:
            pixels = tifffile.imread(path)
            pixels[..., 2] = pixels[..., 1]
            tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, software="")
    table = lgg / "data.csv"
    rows = [*table.read_text().replace("TCGA_", "TCGA-", 1).splitlines(), "TCGA_XX_0000" + "," * 17]
    table.write_text("\n".join(",".join(reversed(row.split(","))) for row in rows))
    page = describe(lgg, tmp_path / "out").report.read_text()
    assert re.search(rf"<td>{folder.name}</td><td>.*post</td>", page)
    assert "1 match no case, 0 patients have no row" in page
    assert "percentile, brain_mask, crop_brain, clahe, pad_square, resize, zscore" in page


def test_volumes_get_planes_and_classes(tmp_path):
    synthesize_brats(tmp_path / "brats", patients=1, seed=0, size=48, slices=24)
    done = describe(tmp_path / "brats", tmp_path / "out")
    assert {"planes", "classes"} <= {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert "enhancing tumor" in done.report.read_text()


def test_an_unreadable_case_is_named_and_nothing_is_written(lgg, tmp_path):
    import shutil

    broken = shutil.copytree(lgg, tmp_path / "broken")
    path = next(broken.rglob("*_2.tif"))
    path.write_bytes(b"II*\0")
    with pytest.raises(UserError, match=path.name):
        describe(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_texts_from_files_are_escaped():
    page = render_page("<script>alert(1)</script>", "", {}, [Section("t", rows=[["<img src=x>"]], head=["a&b"])])
    assert "<script>" not in page
    assert "<img src=x>" not in page
    assert "a&amp;b" in page


def test_describing_an_empty_mask_or_none_works(lgg, tmp_path):
    import shutil

    one = next(path.name for path in lgg.iterdir() if path.is_dir())
    plain, blank = (shutil.copytree(lgg / one, tmp_path / name / one).parent for name in ("plain", "blank"))
    for path in plain.rglob("*_mask.tif"):
        path.unlink()
    assert describe(plain, tmp_path / "none").positive_slices == 0
    for path in blank.rglob("*_mask.tif"):
        tifffile.imwrite(path, np.zeros((64, 64), np.uint8))
    assert describe(blank, tmp_path / "zero").positive_slices == 0


def test_the_slice_that_is_followed_through_preprocessing_stays_the_same():
    """A step may make another slice the one of largest tumor; the picture must not jump to it."""
    image = np.full((2, 32, 32, 1), 10, np.uint8)
    image[1] = 200
    mask = np.zeros((2, 32, 32), np.uint8)
    mask[0, 3::4, 3::4] = 1  # 64 pixels that resizing loses
    mask[1, 8:14, 8:14] = 1
    case = Case("a", "a", image, mask, ("flair",), (1, 2))
    for picture in through_steps(case, (ResizePlane(size=8),)):
        assert picture.image.max() == 10


def test_slices_of_noise_are_not_blown_up():
    image = np.zeros((4, 8, 8, 1), np.uint8)
    image[:3] = np.arange(64).reshape(8, 8, 1) * 4
    image[3] = np.arange(64).reshape(8, 8, 1) % 2
    (row,) = montage(Case("a", "a", image, None, ("flair",), (1, 2, 3, 4)))
    assert len({picture.window for picture in row}) == 1
    assert row[0].window[1] > 200
