"""A folder that is no cohort's, such as a home or a whole disk, is refused before all of it is walked."""

import os
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest

from glioflow.data.checks import cohort_checks
from glioflow.data.formats import tree
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import open_source
from glioflow.errors import TooLarge, UserError


@pytest.fixture
def crowded(tmp_path, monkeypatch):
    """Return a folder of thirty files of other things, where ten are looked at and twenty may lie beside a cohort."""
    monkeypatch.setattr(tree, "MOST_LOOKED_AT", 10)
    monkeypatch.setattr(tree, "MOST_OTHERS", 20)
    for number in range(30):
        path = tmp_path / f"b{number // 10}" / f"{number:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x" * 200)
    return tmp_path


def save_volume(path):
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), path)


@pytest.mark.parametrize("look", [open_cohort, open_source, cohort_checks.check])
def test_a_folder_without_a_cohort_is_left_after_its_first_files_and_says_how_far_it_was_looked_at(crowded, look):
    with pytest.raises(TooLarge, match=r"among the first 10 files and folders in .*up to .*b2/21\.txt; give"):
        look(crowded)


@pytest.mark.parametrize("look", [open_cohort, open_source, cohort_checks.check])
def test_the_root_of_all_files_is_no_cohort_and_is_not_walked(look, monkeypatch):
    monkeypatch.setattr(tree, "MOST_OTHERS", 0)
    with pytest.raises(TooLarge, match=r"must have a folder of its own, and / is the root of all files"):
        look(Path("/"))


def test_a_folder_of_other_things_does_not_hide_the_cohort_beside_it(crowded, monkeypatch):
    monkeypatch.setattr(tree, "MOST_OTHERS", 100)
    save_volume(crowded / "sub-1" / "sub-1_FLAIR.nii.gz")
    assert [case.id for case in open_cohort(crowded).cases] == ["sub-1"]


@pytest.mark.parametrize("look", [open_cohort, open_source, cohort_checks.check])
def test_a_volume_among_too_many_other_files_makes_no_cohort(crowded, look):
    save_volume(crowded / "a" / "p1_flair.nii.gz")
    with pytest.raises(TooLarge, match=r"at most 20 other files .*; give the folder of the cohort itself"):
        look(crowded)


def test_a_cohort_may_have_other_files_beside_it(crowded, monkeypatch):
    save_volume(crowded / "a" / "p1_flair.nii.gz")
    monkeypatch.setattr(tree, "MOST_OTHERS", 100)
    assert [case.id for case in open_cohort(crowded).cases] == ["a"]


def test_pipes_are_not_read_which_would_wait_for_ever(tmp_path):
    os.mkfifo(tmp_path / "IM1")
    ended = threading.Event()

    def look():
        with pytest.raises(UserError, match="no files of a known cohort format"):
            open_cohort(tmp_path)
        ended.set()

    threading.Thread(target=look, daemon=True).start()
    assert ended.wait(30)
