"""What a person says about a cohort has an effect, or is refused with the name of the format that has no use for it."""

import shutil

import nibabel
import numpy as np
import pytest
import tifffile
from dicom_series import write_series

from glioflow.data.checks import cohort_checks
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import read_roles
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.errors import UserError

VOLUME = np.random.default_rng(0).integers(0, 200, (4, 12, 14)).astype(np.uint16)
KEYS = {
    "images": '["*_flair.nii.gz"]',
    "masks": '["*_mask.nii.gz"]',
    "brain_masks": '["*_brain.nii.gz"]',
    "labels": "{1: core}",
    "scheme": "brats-2021",
    "outlines": "[GTV]",
    "skip_incomplete": "true",
    "fill_missing": "true",
    "mask_threshold": "127",
    "mask_source": "any",
    "resample_to": "flair",
}
USED = {
    "lgg": {"mask_threshold"},
    "nifti": {"images", "masks", "brain_masks", "labels", "scheme", "resample_to", "skip_incomplete", "fill_missing"},
    "brats": {"images", "masks", "brain_masks", "labels", "scheme", "resample_to", "skip_incomplete", "fill_missing"},
    "published": {
        "images",
        "masks",
        "brain_masks",
        "labels",
        "scheme",
        "resample_to",
        "skip_incomplete",
        "fill_missing",
        "mask_source",
    },
    "listed": {"labels", "scheme", "resample_to", "skip_incomplete", "fill_missing"},
    "dicom": {"outlines", "resample_to", "skip_incomplete", "fill_missing"},
    "figshare": set(),
    "slices": set(),
}


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(VOLUME.astype(np.int16), np.eye(4)), path)


@pytest.fixture(scope="module")
def cohorts(lgg, tmp_path_factory):
    """Return a folder with a small cohort of each format."""
    root = tmp_path_factory.mktemp("formats")
    shutil.copytree(lgg, root / "lgg")
    synthesize_layout("upenn-gbm", root / "published", patients=None, seed=0, size=32)
    synthesize_layout("figshare", root / "figshare")
    for case in ("p1", "p2"):
        save(root / "nifti" / case / f"{case}_flair.nii.gz")
        save(root / "listed" / f"{case}_flair.nii.gz")
        for channel in ("flair", "t1", "t1ce", "t2"):
            save(root / "brats" / case / f"{case}_{channel}.nii.gz")
    (root / "listed" / "cohort.csv").write_text("case,flair\np1,p1_flair.nii.gz\np2,p2_flair.nii.gz\n")
    write_series(root / "dicom" / "p1", VOLUME, description="AX FLAIR", patient="p1")
    (root / "slices").mkdir()
    tifffile.imwrite(root / "slices" / "a_1.tif", np.ones((8, 9, 3), np.uint8), photometric="rgb")
    return root


@pytest.mark.parametrize(
    ("format", "key"), [(format, key) for format, used in USED.items() for key in KEYS if key not in used]
)
def test_a_key_of_cohort_yaml_that_a_format_does_not_use_is_refused(cohorts, format, key):
    declared = cohorts / format / "cohort.yaml"
    declared.write_text(f"{key}: {KEYS[key]}\n")
    try:
        with pytest.raises(UserError, match=r"cohort\.yaml"):
            open_cohort(cohorts / format)
    finally:
        declared.unlink()
    assert open_cohort(cohorts / format).format == format


@pytest.mark.parametrize(("format", "key"), [("dicom", "mask_threshold"), ("nifti", "outlines"), ("lgg", "scheme")])
def test_the_refusal_names_the_key_and_the_format(cohorts, format, key):
    declared = cohorts / format / "cohort.yaml"
    declared.write_text(f"{key}: {KEYS[key]}\n")
    with pytest.raises(UserError, match=f"{key} has no effect on cohorts of the format {format}; remove it; it takes"):
        open_cohort(cohorts / format)
    declared.unlink()


def test_check_reports_it_too(cohorts):
    declared = cohorts / "dicom" / "cohort.yaml"
    declared.write_text("mask_threshold: 127\n")
    checked = cohort_checks.check(cohorts / "dicom")
    declared.unlink()
    (problem,) = checked.problems
    assert problem.rule.startswith("mask_threshold has no effect on cohorts of the format dicom; remove it")
    assert not checked.ok


@pytest.mark.parametrize("format", [name for name in USED if "skip_incomplete" not in USED[name]])
def test_skip_incomplete_is_refused_where_no_case_can_be_incomplete(cohorts, format):
    with pytest.raises(UserError, match=f"skip_incomplete .*got the format {format}"):
        open_cohort(cohorts / format, skip_incomplete=True)


@pytest.mark.parametrize("format", [name for name in USED if name not in ("dicom", "nifti")])
def test_a_channel_is_refused_where_no_series_can_be_chosen(cohorts, format):
    with pytest.raises(UserError, match=f"channels .*got the format {format}"):
        open_cohort(cohorts / format).with_channels({"flair": "x"})


def test_a_cohort_yaml_that_leads_nowhere_is_refused(cohorts):
    declared = cohorts / "lgg" / "cohort.yaml"
    declared.symlink_to("nowhere.yaml")
    try:
        with pytest.raises(UserError, match=r"cohort\.yaml must be a file that can be read"):
            open_cohort(cohorts / "lgg")
    finally:
        declared.unlink()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imges: [x]", "unknown key 'imges'; did you mean images?"),
        ("skip_incomplete: maybe", "skip_incomplete must be true or false; got 'maybe'"),
        ("labels: {a: core}", "labels.a must be a whole number; got 'a'"),
        ("outlines: GTV", "outlines must be a list; got 'GTV'"),
        ("mask_source: 3", "mask_source must be text; got 3"),
        ("[1]", "cohort.yaml must have keys, such as images and masks; got [1]"),
    ],
)
def test_a_mistake_in_cohort_yaml_names_the_key_and_what_it_takes(tmp_path, text, expected):
    (tmp_path / "cohort.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_roles(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'cohort.yaml'}: {expected}")
