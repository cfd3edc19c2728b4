import shutil

import h5py
import numpy as np
import pytest

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.study import open_source, read_study
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.data.synthetic.matlab_slices import write_matlab_slice
from glioflow.errors import UserError
from glioflow.serving.http.uploads import read_uploads
from glioflow.serving.settings import Limits

IMAGE = np.arange(30, dtype=np.int16).reshape(5, 6)
MASK = (IMAGE > 20).astype(np.uint8)
PARENT = "set/brainTumorDataPublic_1-766"


@pytest.fixture
def folder(tmp_path):
    for number, (person, label) in enumerate([("100360", 2), ("MR040240", 2), ("MR040240B", 2), ("7", 1), ("8", 3)]):
        write_matlab_slice(tmp_path / PARENT / f"{number}.mat", person, IMAGE, MASK, label)
    return (tmp_path / PARENT).parent


def first(folder):
    return folder / "brainTumorDataPublic_1-766" / "0.mat"


def test_gliomas_are_read_upright_and_other_tumors_are_left_out_and_counted(folder):
    (folder / "cvind.mat").write_bytes(first(folder).read_bytes())
    cohort = open_cohort(folder)
    assert [case.id for case in cohort.cases] == ["0", "1", "2"]
    assert "1 of meningioma, 1 of pituitary tumor" in cohort.notes[0]
    case = cohort.read("0")
    assert np.array_equal(case.image, IMAGE[None, ..., None])
    assert np.array_equal(case.mask, MASK[None])
    assert case.channels == ("t1ce",)


def test_ids_that_differ_in_a_letter_are_one_person(folder):
    assert [case.patient for case in open_cohort(folder).cases] == ["100360", "MR040240", "MR040240"]


def test_check_finds_nothing_wrong(tmp_path):
    synthesize_layout("figshare", tmp_path / "set")
    report = check(tmp_path / "set")
    assert report.ok, report.problems
    assert report.layout == "Figshare's slices"
    assert (report.patients, report.slices, report.positive_slices) == (2, 3, 3)


def test_one_slice_is_a_study_whose_mask_is_not_looked_at(folder):
    case = read_study([first(folder)], masks=False)
    assert (case.id, case.patient, case.mask) == ("0", "100360", None)
    assert open_source(folder, masks=False).read("1").mask is None
    with pytest.raises(UserError, match="one case; got 2 cases"):
        read_study([first(folder), first(folder).with_name("3.mat")])
    meningioma = read_study([first(folder).with_name("3.mat")], masks=False)
    assert "meningioma" in meningioma.warnings[0]


def with_field(name, **described):
    def change(file):
        with h5py.File(file, "r+") as opened:
            del opened["cjdata"][name]
            if described:
                opened["cjdata"].create_dataset(name, **described)

    return change


def with_link(file):
    with_field("image")(file)
    with h5py.File(file, "r+") as opened:
        opened["cjdata"]["image"] = h5py.ExternalLink("1.mat", "/cjdata/image")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:1500]), "cannot be read"),
        (with_field("PID"), "cjdata/PID"),
        (with_field("PID", shape=(4000, 1), dtype="u2"), "must name the patient"),
        (with_field("label", data=[[np.nan]]), "must be 1, 2 or 3"),
        (with_field("image", shape=(9, 9), dtype="f4"), "mask of its size"),
        (with_field("image", shape=(99999, 9), dtype="f4"), "pixels on each side"),
        (with_field("image", data=np.full((6, 5), np.inf)), "finite numbers"),
        (with_field("tumorMask", data=MASK.T * 3), "0 and 1"),
        (with_field("image", shape=(6, 5), dtype="u1", external=[("/etc/passwd", 0, 30)]), "must hold cjdata/image"),
        (with_link, "must hold cjdata/image"),
    ],
)
def test_a_damaged_or_hostile_slice_is_refused(folder, damage, message):
    damage(first(folder))
    with pytest.raises(UserError, match=rf"0\.mat.*{message}"):
        open_cohort(folder).read("0")


def test_a_folder_of_other_tumors_alone_is_refused(folder):
    for number in (0, 1, 2):
        first(folder).with_name(f"{number}.mat").unlink()
    with pytest.raises(UserError, match="glioma"):
        open_cohort(folder)


def test_copies_of_one_slice_in_two_folders_are_refused(folder):
    shutil.copytree(folder / "brainTumorDataPublic_1-766", folder / "copy")
    with pytest.raises(UserError, match="unique"):
        open_cohort(folder)


def test_an_endpoint_does_not_read_them(folder, tmp_path):
    with first(folder).open("rb") as file, pytest.raises(UserError, match="MATLAB"):
        read_uploads([("0.mat", file)], tmp_path, Limits())
