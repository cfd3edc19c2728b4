"""A case that lacks a sequence is refused, left out or read with 0 in its place, as a person says: DICOM and lists."""

import json

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from test_volume_cohorts import save

import glioflow as gf
from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.errors import UserError

SERIES = ("AX FLAIR", "AX T1", "AX T2")
CHANNELS = {"dicom": ("flair", "pre", "t2"), "csv": ("flair", "t1", "t2"), "datalist": ("flair", "t1", "t2")}


def volume(seed):
    return np.random.default_rng(seed).integers(1, 256, (8, 32, 32)).astype(np.uint16)


def make(root, kind, lacking=(("p2", "T1"),)):
    """Write three cases with FLAIR, T1 and T2, of which some lack a sequence."""
    root.mkdir()
    rows, items = ["case,patient,flair,t1,t2"], []
    for number, case in enumerate(("p1", "p2", "p3", "p4")):
        files = {}
        for place, description in enumerate(SERIES, start=1):
            name = description.split()[1]
            if (case, name) in lacking:
                continue
            if kind == "dicom":
                folder = root / case / name
                image = volume(10 * number + place)
                of = {"study": f"1.{number + 1}", "patient": case}
                write_series(folder, image, description=description, number=place, **of)
            else:
                files[name] = f"{case}_{name.lower()}.nii.gz"
                save(root / files[name], volume(10 * number + place).astype(np.int16))
        rows.append(",".join((case, case, *(files.get(name, "") for name in ("FLAIR", "T1", "T2")))))
        items.append({"id": case, "image": list(files.values())})
    if kind == "csv":
        (root / "cohort.csv").write_text("\n".join(rows) + "\n")
    if kind == "datalist":
        (root / "datalist.json").write_text(json.dumps({"training": items}))
    return root


@pytest.fixture(params=CHANNELS)
def kind(request):
    return request.param


@pytest.fixture
def cohort(kind, tmp_path):
    return make(tmp_path / "cohort", kind)


def test_without_a_word_from_the_person_such_a_case_is_named_and_both_ways_are_said(cohort, kind, tmp_path):
    with pytest.raises(UserError, match=r"skip_incomplete: true.*fill_missing: true"):
        gf.prepare(cohort, tmp_path / "prepared", say=lambda *_: None)
    if kind != "csv":  # which is not even listed
        (problem,) = (each for each in check(cohort).problems if "same channels" in each.rule)
        assert (problem.file, "skip_incomplete: true" in problem.rule) == ("p2", True)


def test_it_is_left_out_and_named(cohort, kind):
    note = f"cases left out, since they lack a sequence: p2 (no {CHANNELS[kind][1]})"
    report = check(cohort, skip_incomplete=True)
    assert report.ok, report.problems
    assert note in report.remarks
    (cohort / "cohort.yaml").write_text("skip_incomplete: true\n")
    assert [case.id for case in open_cohort(cohort).cases] == ["p1", "p3", "p4"]
    assert note in check(cohort).remarks


def test_it_is_read_with_0_and_named(cohort, kind):
    (cohort / "cohort.yaml").write_text("fill_missing: true\n")
    filled = open_cohort(cohort)
    assert [case.id for case in filled.cases] == ["p1", "p2", "p3", "p4"]
    case = filled.read("p2")
    assert case.channels == CHANNELS[kind] == filled.read("p1").channels
    assert not case.image[..., 1].any()
    assert case.image[..., 0].all()
    assert case.image[..., 2].all()
    assert f"{CHANNELS[kind][1]} missing: read as 0" in case.warnings
    report = check(cohort)
    assert report.ok, report.problems
    assert f"sequences that are missing hold 0: p2 (no {CHANNELS[kind][1]})" in report.remarks


def test_a_filled_case_is_prepared_with_the_others(cohort, kind, tmp_path):
    (cohort / "cohort.yaml").write_text("fill_missing: true\n")
    assert gf.prepare(cohort, tmp_path / "prepared", say=lambda *_: None).patients == 4


def test_a_lone_t1_that_may_be_before_or_after_contrast_is_left_out(tmp_path):
    root = make(tmp_path / "cohort", "dicom", lacking=())
    for number, case in enumerate(("p1", "p3", "p4")):
        study = f"1.{case[1]}"
        write_series(
            root / case / "post", volume(90 + number), description="AX T1 +C", study=study, number=4, patient=case
        )
    for file in (root / "p2" / "T1").iterdir():
        header = pydicom.dcmread(file)
        header.ContrastBolusAgent = "Gadavist"
        pydicom.dcmwrite(file, header, enforce_file_format=True)
    report = check(root, skip_incomplete=True)
    assert report.ok, report.problems
    assert "cases left out, since they lack a sequence: p2 (no pre, post)" in report.remarks


def test_a_case_that_cannot_be_read_is_reported_and_not_left_out_as_incomplete(tmp_path):
    root = make(tmp_path / "cohort", "dicom", lacking=())
    broken = sorted((root / "p2" / "T1").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:700])
    report = check(root, skip_incomplete=True)
    assert [problem.severity for problem in report.problems] == ["error"]
    assert not any("left out" in remark for remark in report.remarks)


@pytest.mark.parametrize("written", ["", "NA", "nan", "n/a", "None"])
def test_a_cell_that_pandas_or_r_left_empty_names_no_file(tmp_path, written):
    root = make(tmp_path / "cohort", "csv")
    table = root / "cohort.csv"
    table.write_text(table.read_text().replace("flair.nii.gz,,", f"flair.nii.gz,{written},"))
    with pytest.raises(UserError, match="row 3 names no file for t1; complete it, or leave such cases out"):
        open_cohort(root)
    (root / "cohort.yaml").write_text("fill_missing: true\n")
    assert open_cohort(root).read("p2").channels == CHANNELS["csv"]


def test_a_column_of_paths_with_another_word_in_it_is_not_ignored(tmp_path):
    root = make(tmp_path / "cohort", "csv")
    table = root / "cohort.csv"
    table.write_text(table.read_text().replace("flair.nii.gz,,", "flair.nii.gz,lost,"))
    with pytest.raises(UserError, match=r"row 3, column t1 must be a file.*got lost"):
        open_cohort(root)


def test_a_row_without_any_image_is_refused(tmp_path):
    root = make(tmp_path / "cohort", "csv", lacking=[("p2", name) for name in ("FLAIR", "T1", "T2")])
    (root / "cohort.yaml").write_text("skip_incomplete: true\n")
    with pytest.raises(UserError, match="row 3 names no file for flair and t1 and t2; remove the row"):
        open_cohort(root)


def test_a_list_in_which_no_case_is_complete_is_not_an_empty_cohort(tmp_path):
    root = make(tmp_path / "cohort", "csv", lacking=[("p1", "T1"), ("p2", "T2"), ("p3", "T1"), ("p4", "T2")])
    (root / "cohort.yaml").write_text("skip_incomplete: true\n")
    with pytest.raises(UserError, match=r"none of 4 that has flair, t1, t2.*fill_missing"):
        open_cohort(root)
    (root / "cohort.yaml").write_text("fill_missing: true\n")
    assert open_cohort(root).read("p2").channels == CHANNELS["csv"]


def test_images_without_names_of_sequences_are_not_filled_by_their_place(tmp_path):
    root = tmp_path / "cohort"
    items = []
    for case, count in (("p1", 3), ("p2", 2)):
        files = [f"{case}/scan{number}.nii.gz" for number in range(count)]
        for number, file in enumerate(files):
            save(root / file, volume(number + count).astype(np.int16))
        items.append({"id": case, "image": files})
    (root / "datalist.json").write_text(json.dumps({"training": items}))
    (root / "cohort.yaml").write_text("fill_missing: true\n")
    with pytest.raises(UserError, match=r"must tell their sequences.*got 2 to 3 images a case; leave such cases out"):
        open_cohort(root)
    (root / "cohort.yaml").write_text("skip_incomplete: true\n")
    assert [case.id for case in open_cohort(root).cases] == ["p1"]


def test_a_damaged_header_of_one_case_does_not_keep_the_others_from_being_listed(tmp_path):
    root = make(tmp_path / "cohort", "dicom", lacking=())
    for file in (root / "p2" / "T1").iterdir():
        file.write_bytes(file.read_bytes().replace(b"\x28\0\x10\0US", b"\x28\0\x10\0UL"))  # rows of four bytes in two
    cohort = open_cohort(root)
    assert [case.id for case in cohort.cases] == ["p1", "p2", "p3", "p4"]
    assert [problem.file.split("/")[0] for problem in check(root).problems] == ["p2"]
