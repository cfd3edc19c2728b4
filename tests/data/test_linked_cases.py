"""Data sets on clusters are often built of links to the folders of cases: all are followed, and none in a circle."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_series
from test_volume_cohorts import save

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.errors import UserError


def make(form, root, lgg):
    """Write a cohort of several cases, each below a folder of its own where the form has such folders."""
    if form == "lgg":
        shutil.copytree(lgg, root)
    elif form == "dicom":
        for patient in ("a", "b"):
            volume = np.arange(4 * 16 * 16, dtype=np.uint16).reshape(4, 16, 16)
            write_series(root / patient / "flair", volume, patient=patient, study=f"1.2.{ord(patient)}")
    elif form == "nifti":
        for patient in ("a", "b"):
            save(root / patient / "flair.nii.gz", np.ones((4, 4, 4), np.float32))
    else:
        synthesize_layout(form, root)
    return root


def link_all(source, root):
    """Link each file and folder of a cohort into a new folder."""
    root.mkdir()
    for each in source.iterdir():
        (root / each.name).symlink_to(each)
    return root


def contents(path):
    cohort = open_cohort(path)
    return cohort.format, [(case.id, case.patient, len(case.files)) for case in cohort.cases]


def make_brats(root):
    return make("brats-2023-gli", root, None)


@pytest.mark.parametrize(
    "form", ["lgg", "dicom", "nifti", "brats-2018", "brats-2023-gli", "egd", "decathlon", "figshare"]
)
def test_a_cohort_of_links_is_the_cohort_that_they_lead_to(tmp_path, lgg, form):
    source = make(form, tmp_path / "source", lgg)
    assert contents(link_all(source, tmp_path / "linked")) == contents(source)


def test_linked_and_real_cases_of_one_cohort_are_read(tmp_path):
    source = make_brats(tmp_path / "source")
    root = tmp_path / "cohort"
    shutil.copytree(source / "BraTS-GLI-00000-000", root / "BraTS-GLI-00000-000")
    (root / "BraTS-GLI-00005-000").symlink_to(source / "BraTS-GLI-00005-000")
    report = check(root)
    assert (report.patients, report.ok, report.remarks) == (2, True, ("recognized as BraTS-GLI",))


@pytest.mark.parametrize("target", [".", "cohort", "cohort/inner", "beside"])
def test_a_link_in_a_circle_ends_and_is_said(tmp_path, target):
    root = make_brats(tmp_path / "cohort")
    (root / "inner").mkdir()
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "more").symlink_to(root)
    (root / "inner" / "again").symlink_to(tmp_path / target)
    report = check(root)
    assert report.patients == 2
    assert any("inner/again" in remark and "links to folders" in remark for remark in report.remarks)


def test_a_link_beside_the_case_that_it_leads_to_makes_no_second_case(tmp_path, lgg):
    for form in ("lgg", "brats-2023-gli", "nifti"):
        root = make(form, tmp_path / form, lgg)
        before = contents(root)
        first = next(each for each in sorted(root.iterdir()) if each.is_dir())
        (root / "another").symlink_to(first)
        assert contents(root) == before
        assert any("another" in remark for remark in check(root).remarks)


def test_two_links_to_one_folder_make_one_case(tmp_path):
    source = make("nifti", tmp_path / "source", None)
    root = link_all(source, tmp_path / "linked")
    (root / "c").symlink_to(root / "a")
    (root / ".hidden").symlink_to(source / "a")
    assert contents(root) == contents(source)
    assert any(remark.endswith("that they are in: c") for remark in check(root).remarks)


def test_links_into_a_hidden_store_of_the_cohort_are_followed(tmp_path):
    root = make_brats(tmp_path / "cohort")
    (root / ".store").mkdir()
    for folder in [each for each in root.iterdir() if each.name.startswith("BraTS")]:
        folder.rename(root / ".store" / folder.name)
        folder.symlink_to(root / ".store" / folder.name)
    assert len(open_cohort(root).cases) == 2


@pytest.mark.parametrize("form", ["lgg", "brats-2023-gli"])
def test_links_to_nothing_are_named_with_what_to_do(tmp_path, lgg, form):
    source = make(form, tmp_path / "source", lgg)
    root = link_all(source, tmp_path / "linked")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    (root / "itself").symlink_to("itself")
    assert any(
        remark.startswith("links to nothing: mount") and "gone, itself" in remark for remark in check(root).remarks
    )
    shutil.rmtree(source)
    with pytest.raises(UserError, match=r"is a link to nothing; got .*source.*; mount or restore what it leads to"):
        open_cohort(root)


def test_a_linked_case_whose_files_are_linked_too_is_not_called_empty(tmp_path):
    save(tmp_path / "store" / "t1" / "flair.nii.gz", np.ones((4, 4, 4), np.float32))
    save(tmp_path / "cohort" / "a" / "flair.nii.gz", np.ones((4, 4, 4), np.float32))
    (tmp_path / "cohort" / "b").mkdir()
    (tmp_path / "cohort" / "b" / "images").symlink_to(tmp_path / "store" / "t1")
    assert not [each for each in check(tmp_path / "cohort").problems if "should hold files" in each.rule]


def test_a_folder_of_the_lgg_set_that_leads_to_itself_ends(tmp_path, lgg):
    root = make("lgg", tmp_path / "kaggle_3m", lgg)
    (root / "kaggle_3m").symlink_to(root)
    assert len(open_cohort(tmp_path).cases) == 8


@pytest.mark.parametrize("above", ["", "HGG"])
def test_a_case_that_may_not_be_read_is_named_and_never_missing_in_silence(above):
    with tempfile.TemporaryDirectory() as open_to_all:  # unlike pytest's own folders
        root = Path(open_to_all) / "cohort"
        make_brats(root / above)
        for each in (root.parent, *root.rglob("*")):
            each.chmod(0o755)
        closed = root / above / "BraTS-GLI-00005-000"
        closed.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # nobody: root may read everything
            for look in (open_cohort, check):
                with pytest.raises(UserError, match=rf"{closed}: the folders of a cohort must be readable; .*ask for"):
                    look(root)
        finally:
            os.seteuid(user)
            closed.chmod(0o755)
