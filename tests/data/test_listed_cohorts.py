import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from test_volume_cohorts import save

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.splits import SplitSettings, make_split, read_split
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.errors import UserError


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    path = tmp_path_factory.mktemp("listed") / "brats"
    synthesize_layout("brats-2024-gli", path)
    return path


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory):
    path = tmp_path_factory.mktemp("listed") / "task01"
    synthesize_layout("decathlon", path)
    return path


def written(path, text):
    path.write_text(text)
    return path


def csv_of(root, *, separator=",", extra=""):
    rows = [separator.join(("Patient", "case", "FLAIR", "t1ce", "mask", "age"))]
    for case in open_cohort(root).cases:
        flair, _, t1ce, _, mask = (str(file.relative_to(root)) for file in case.files)
        rows.append(separator.join((case.patient, case.id, flair, t1ce, mask, "50")))
    (root / "cohort.csv").write_text("\n".join(rows) + extra)


def test_a_csv_with_columns_of_paths_is_a_cohort(brats, tmp_path):
    root = shutil.copytree(brats, tmp_path / "own")
    csv_of(root)
    (root / "cohort.yaml").write_text("scheme: brats-2024-gli")
    for path in (root, root / "cohort.csv"):
        cohort = open_cohort(path)
        case = cohort.read(cohort.cases[0].id)
        assert (cohort.format, case.channels, case.patient) == ("listed", ("flair", "t1ce"), "BraTS-GLI-00005")
        assert set(np.unique(case.mask)) == {0, 1, 2, 3, 4}
        report = check(path)
        assert report.ok, report.problems
        assert report.patients == 1


@pytest.mark.parametrize(
    ("header", "row", "rule"),
    [
        ("patient,flair,flair,mask", "p,a.nii,b.nii,m.nii", "a column of the list must appear once; got flair"),
        ("patient,t1,T1,mask", "p,a.nii,b.nii,m.nii", "must appear once; got t1"),
        ("patient,t1,image_t1,mask", "p,a.nii,b.nii,m.nii", "must appear once; got t1"),
        ("patient,Patient,t1,mask", "p,q,a.nii,m.nii", "must appear once; got patient"),
        ("patient,t1,mask", "p,a.nii,m.nii,b.nii", "row 2 must have no more cells than there are columns"),
    ],
)
def test_a_csv_in_which_one_cell_would_hide_another_is_refused(tmp_path, header, row, rule):
    for name in ("a", "b", "m"):
        save(tmp_path / f"{name}.nii", np.ones((4, 5, 6), np.int16))
    written(tmp_path / "cohort.csv", f"{header}\n{row}\n")
    with pytest.raises(UserError, match=rule):
        open_cohort(tmp_path)
    written(tmp_path / "cohort.csv", "patient,t1,mask,notes,Notes\np,a.nii,m.nii,x,y\n")
    assert open_cohort(tmp_path).cases


def test_without_masks_nobody_is_asked_what_the_labels_of_a_list_mean(brats, tmp_path):
    csv_of(shutil.copytree(brats, tmp_path / "own"))
    (tmp_path / "own" / "cohort.csv").write_text((tmp_path / "own" / "cohort.csv").read_text().replace("BraTS-", "x"))
    for file in sorted((tmp_path / "own").rglob("*BraTS*"), key=lambda file: len(file.parts), reverse=True):
        file.rename(file.with_name(file.name.replace("BraTS-", "x")))
    for path in (tmp_path / "own", tmp_path / "own" / "cohort.csv"):
        cohort = open_cohort(path, masks=False)
        case = cohort.read(cohort.cases[0].id)
        assert (case.channels, case.mask) == (("flair", "t1ce"), None)


def test_a_list_may_name_files_that_lie_elsewhere(brats, tmp_path):
    case = open_cohort(brats).cases[0]
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "cohort.csv").write_text(f"patient,flair,mask\nP1,{case.files[0]},{case.files[4]}\n")
    (tmp_path / "list" / "cohort.yaml").write_text("scheme: brats-2024-gli")
    report = check(tmp_path / "list")
    assert report.ok, report.problems


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_read(brats, tmp_path, separator):
    root = shutil.copytree(brats, tmp_path / "own")
    csv_of(root, separator=separator)
    assert len(open_cohort(root).cases) == 2


def test_a_row_whose_file_does_not_exist_is_named(brats, tmp_path):
    root = shutil.copytree(brats, tmp_path / "own")
    csv_of(root, extra="\nP9,P9,nowhere.nii.gz,nowhere.nii.gz,,")
    with pytest.raises(UserError, match=r"row 4, column FLAIR"):
        open_cohort(root)


@pytest.mark.parametrize("shared", ["p1_seg.nii.gz", "p1_flair.nii.gz"])
def test_a_file_of_two_cases_is_refused(tmp_path, shared):
    for case in ("p1", "p2"):
        save(tmp_path / f"{case}_flair.nii.gz", np.ones((4, 5, 6), np.int16))
        save(tmp_path / f"{case}_seg.nii.gz", np.ones((4, 5, 6), np.uint8))
    rows = "case,flair,mask\np1,p1_flair.nii.gz,p1_seg.nii.gz\np2,p2_flair.nii.gz,p2_seg.nii.gz\n"
    assert len(open_cohort(written(tmp_path / "list.csv", rows)).cases) == 2
    twice = rows.replace(shared.replace("p1", "p2"), f"./{shared}")
    with pytest.raises(
        UserError, match=rf"list\.csv: a file must be listed for one case alone; got {shared} for p1 and p2"
    ):
        open_cohort(written(tmp_path / "list.csv", twice))


def test_a_row_without_the_patient_that_others_name_is_refused(tmp_path):
    for case in ("p1", "p2"):
        save(tmp_path / f"{case}_flair.nii.gz", np.ones((4, 5, 6), np.int16))
    rows = "patient,flair\n{},p1_flair.nii.gz\n,p2_flair.nii.gz\n"
    with pytest.raises(UserError, match=r"list\.csv: row 3 must name its patient, as others do; got p2"):
        open_cohort(written(tmp_path / "list.csv", rows.format("A")))
    assert len(open_cohort(written(tmp_path / "list.csv", rows.format(""))).cases) == 2


def test_a_clinical_table_of_that_name_lists_nothing(brats, tmp_path):
    root = shutil.copytree(brats, tmp_path / "own")
    (root / "cohort.csv").write_text("Patient,age\nBraTS-GLI-00005,50\n")
    assert open_cohort(root).format == "brats"


def datalist_of(root, **more):
    items = []
    for fold, case in enumerate(open_cohort(root).cases):
        *images, mask = (str(file.relative_to(root)) for file in case.files)
        items.append({"image": images, "label": mask, "fold": fold, **more})
    return {"training": items}


def test_a_datalist_of_monai_has_the_cases_persons_and_labels_of_its_files(brats, tmp_path):
    root = shutil.copytree(brats, tmp_path / "own")
    (root / "folds.json").write_text(json.dumps(datalist_of(root)))
    cohort, ours = open_cohort(root / "folds.json"), open_cohort(brats)
    assert cohort.format == "listed"
    assert cohort.labels == ours.labels
    assert [(case.id, case.patient) for case in cohort.cases] == [(case.id, case.patient) for case in ours.cases]
    case, other = cohort.read(cohort.cases[0].id), ours.read(ours.cases[0].id)
    assert case.channels == ("t2f", "t1n", "t1c", "t2w")
    assert np.array_equal(case.image, other.image)
    assert np.array_equal(case.mask, other.mask)


def test_the_decathlons_own_list_with_four_axes_is_read(decathlon):
    images = sorted(file.name for file in (decathlon / "imagesTr").iterdir())
    description = json.loads((decathlon / "dataset.json").read_text())
    description["training"] = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in images]
    (decathlon / "datalist.json").write_text(json.dumps(description))
    cohort = open_cohort(decathlon)
    case = cohort.read("BRATS_001")
    assert (cohort.format, case.channels) == ("listed", ("flair", "t1w", "t1gd", "t2w"))
    assert cohort.labels[3] == "enhancing tumour"
    (decathlon / "datalist.json").unlink()
    assert np.array_equal(open_cohort(decathlon).read("BRATS_001").image, case.image)


@pytest.mark.parametrize(
    "damage", ["[]", "{", '{"training": [{"label": "x.nii.gz"}]}', '{"training": []}', '{"training": [], "test": null}']
)
def test_what_is_no_datalist_is_refused(tmp_path, damage):
    (tmp_path / "datalist.json").write_text(damage)
    with pytest.raises(UserError):
        open_cohort(tmp_path)


def test_the_datastore_of_monai_label_has_its_final_masks(brats, tmp_path):
    case = open_cohort(brats).cases[0]
    (tmp_path / "datastore_v2.json").write_text('{"objects": {}}')
    shutil.copy(case.files[0], tmp_path / "scan.nii.gz")
    for tag in ("final", "original"):
        (tmp_path / "labels" / tag).mkdir(parents=True)
    shutil.copy(case.files[4], tmp_path / "labels" / "final" / "scan.nii.gz")
    shutil.copy(case.files[0], tmp_path / "labels" / "original" / "scan.nii.gz")
    (tmp_path / "cohort.yaml").write_text("scheme: brats-2024-gli")
    cohort = open_cohort(tmp_path)
    assert [entry.id for entry in cohort.cases] == ["scan"]
    assert set(np.unique(cohort.read("scan").mask)) == {0, 1, 2, 3, 4}


def people(cohort):
    return [Person(case.id, case.patient) for case in cohort.cases]


@dataclass(frozen=True)
class Person:
    id: str
    patient: str
    institution: str | None = None
    volume_px: int | None = 1


FOLDS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}]


def test_the_folds_of_nnunet_are_a_split_once_one_is_chosen(tmp_path):
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(FOLDS))
    cases = [Person(name, name) for name in "abc"]
    split = make_split(cases, SplitSettings(method="file", file=str(file), fold=1))
    assert (split.train, split.val, split.test) == (("a", "c"), ("b",), ())
    for settings in ({}, {"fold": 2}):
        with pytest.raises(UserError, match="2 folds"):
            make_split(cases, SplitSettings(method="file", file=str(file), **settings))


def test_folds_of_nnunet_with_a_person_on_both_sides_are_refused(tmp_path):
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(FOLDS))
    cases = [Person("a", "one"), Person("b", "one"), Person("c", "other")]
    with pytest.raises(UserError, match="one part of the split"):
        make_split(cases, SplitSettings(method="file", file=str(file), fold=0))


def test_folds_of_a_datalist_split_a_cohort_that_is_elsewhere(brats, tmp_path):
    images = [f"TrainingData/{{case}}/{{case}}-{name}.nii.gz" for name in ("t2f", "t1n")]
    items = [
        {"fold": fold, "image": [each.format(case=case.id) for each in images], "label": f"{case.id}-seg.nii.gz"}
        for fold, case in enumerate(open_cohort(brats).cases)
    ]
    (tmp_path / "folds.json").write_text(json.dumps({"training": items}))
    fold = SplitSettings(method="file", file=str(tmp_path / "folds.json"), fold=0)
    assert read_split(fold, None).val == (open_cohort(brats).cases[0].id,)
    (tmp_path / "one.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    with pytest.raises(UserError, match=r"the file lists 1 fold, .*give split\.fold=0"):
        read_split(SplitSettings(method="file", file=str(tmp_path / "one.json")), None)


def test_the_folds_of_a_datalist_are_a_split(brats, tmp_path):
    root = shutil.copytree(brats, tmp_path / "own")
    (root / "folds.json").write_text(json.dumps(datalist_of(root)))
    cohort = open_cohort(root / "folds.json")
    cases = [Person(case.id, case.id) for case in cohort.cases]
    split = make_split(cases, SplitSettings(method="file", file=str(root / "folds.json"), fold=0))
    assert (split.val, split.train) == (("BraTS-GLI-00005-100",), ("BraTS-GLI-00005-101",))
    with pytest.raises(UserError, match="one part of the split"):  # both visits are of one person
        make_split(people(cohort), SplitSettings(method="file", file=str(root / "folds.json"), fold=0))


def images_in(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return names


@pytest.mark.parametrize(
    ("names", "cases", "patients"),
    [
        (("images/p1.nii.gz", "images/p2.nii.gz"), ["p1", "p2"], ["p1", "p2"]),
        (("p1/flair.nii.gz", "p2/flair.nii.gz"), ["p1", "p2"], ["p1", "p2"]),
        (
            ("a/BraTS-GLI-00001-000-t2f.nii.gz", "a/BraTS-GLI-00001-001-t2f.nii.gz"),
            ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001"],
            ["BraTS-GLI-00001"] * 2,
        ),
        (("a/sub-1_ses-1_FLAIR.nii.gz", "a/sub-1_ses-2_FLAIR.nii.gz"), ["sub-1_ses-1", "sub-1_ses-2"], ["sub-1"] * 2),
        (
            ("a/UPENN-GBM-00001_11_FLAIR.nii.gz", "a/UPENN-GBM-00001_21_FLAIR.nii.gz"),
            ["UPENN-GBM-00001_11", "UPENN-GBM-00001_21"],
            ["UPENN-GBM-00001"] * 2,
        ),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_list_that_names_images_alone_knows_cases_and_persons_by_them(tmp_path, kind, names, cases, patients):
    images_in(tmp_path, *names)
    file = tmp_path / f"list.{kind}"
    datalist = json.dumps({"training": [{"image": name} for name in names]})
    file.write_text("\n".join(["image", *names]) if kind == "csv" else datalist)
    cohort = open_cohort(file)
    assert ([case.id for case in cohort.cases], [case.patient for case in cohort.cases]) == (cases, patients)


def test_labels_of_cohort_yaml_hold_for_a_list(tmp_path):
    images_in(tmp_path, "p1_flair.nii.gz", "p1_other.nii.gz")
    (tmp_path / "cohort.csv").write_text("patient,flair,mask\nA,p1_flair.nii.gz,p1_other.nii.gz")
    (tmp_path / "cohort.yaml").write_text("labels: {1: core, 2: edema}")
    cohort = open_cohort(tmp_path)
    assert (cohort.format, cohort.cases[0].patient, cohort.labels) == ("listed", "A", {1: "core", 2: "edema"})


def test_a_clinical_table_in_another_encoding_is_no_list(tmp_path):
    images_in(tmp_path, "p1_flair.nii.gz")
    (tmp_path / "cohort.csv").write_bytes("Patient,name\np1,Jos\xe9\n".encode("latin-1"))
    assert open_cohort(tmp_path).format == "nifti"


@pytest.mark.parametrize("fold", ["null", '"a"', "-1", "1.5", "1000000000", "true"])
def test_a_fold_that_is_no_number_of_one_is_refused(tmp_path, fold):
    images_in(tmp_path, "p1.nii.gz")
    (tmp_path / "list.json").write_text(f'{{"training": [{{"image": "p1.nii.gz", "fold": {fold}}}]}}')
    with pytest.raises(UserError, match="the fold of a case must be a number"):
        make_split([], SplitSettings(method="file", file=str(tmp_path / "list.json"), fold=0))


IMAGE = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


@pytest.mark.parametrize("column", ["segmentation_mask", "label_path", "Tumor Mask", "seg"])
def test_a_column_named_like_a_mask_holds_masks_and_no_channel(tmp_path, column):
    save(tmp_path / "a.nii.gz", IMAGE)
    save(tmp_path / "m.nii.gz", (IMAGE > 30).astype(np.uint8))
    (tmp_path / "cohort.csv").write_text(f"Subject ID,image_flair,{column}\nP1,a.nii.gz,m.nii.gz\n")
    (case,) = open_cohort(tmp_path).cases
    read = open_cohort(tmp_path).read(case.id)
    assert (case.patient, read.channels) == ("P1", ("flair",))
    assert read.mask.sum() == 29


def test_masks_under_the_name_of_an_image_are_refused(tmp_path):
    save(tmp_path / "a.nii.gz", IMAGE)
    save(tmp_path / "m.nii.gz", (IMAGE > 30).astype(np.uint8))
    (tmp_path / "cohort.csv").write_text("patient,flair,outline\nP1,a.nii.gz,m.nii.gz\n")
    cohort = open_cohort(tmp_path)
    with pytest.raises(UserError, match="is it a mask"):
        cohort.read(cohort.cases[0].id)


def test_two_columns_of_masks_are_refused(tmp_path):
    save(tmp_path / "a.nii.gz", IMAGE)
    (tmp_path / "cohort.csv").write_text("patient,flair,mask,edema_seg\nP1,a.nii.gz,a.nii.gz,a.nii.gz\n")
    with pytest.raises(UserError, match="one column of masks; got mask, edema_seg"):
        open_cohort(tmp_path)


def test_rows_of_one_folder_are_named_after_their_patients_and_may_have_the_paths_of_windows(tmp_path):
    for name in ("a1", "a2", "b1", "b2"):
        save(tmp_path / "im" / f"{name}.nii.gz", IMAGE)
    rows = ("patient,t1,flair", r"P1,im\a1.nii.gz,im\a2.nii.gz", "P2,im/b1.nii.gz,im/b2.nii.gz")
    (tmp_path / "cohort.csv").write_text("\n".join(rows))
    assert [case.id for case in open_cohort(tmp_path).cases] == ["P1", "P2"]


def test_the_check_of_a_list_with_a_mistake_is_about_the_list_alone(tmp_path):
    save(tmp_path / "im" / "a.nii.gz", IMAGE)
    (tmp_path / "cohort.csv").write_text("patient,flair\nP1,im/a.nii.gz\nP2,im/b.nii.gz\n")
    with pytest.raises(UserError, match="row 3"):
        check(tmp_path)


@pytest.mark.parametrize("key", ["label", "mask", "seg", "segmentation"])
@pytest.mark.parametrize("in_a_list", [False, True])
def test_the_mask_of_a_datalist_is_never_lost(tmp_path, key, in_a_list):
    mask = np.zeros((8, 8, 4), np.uint8)
    mask[2:4, 3:5, 1] = 1
    save(tmp_path / "p1_flair.nii.gz", np.arange(256.0).reshape(8, 8, 4))
    save(tmp_path / "p1_x.nii.gz", mask)
    named = ["p1_x.nii.gz"] if in_a_list else "p1_x.nii.gz"
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [{"image": "p1_flair.nii.gz", key: named}]}))
    cohort = open_cohort(tmp_path)
    read = cohort.read(cohort.cases[0].id).mask
    assert read is not None
    assert read.sum() == 4


def test_several_masks_of_a_case_in_a_datalist_are_refused(tmp_path):
    for name in ("p1_flair", "p1_a", "p1_b"):
        save(tmp_path / f"{name}.nii.gz", np.arange(256.0).reshape(8, 8, 4))
    item = {"image": "p1_flair.nii.gz", "label": ["p1_a.nii.gz", "p1_b.nii.gz"]}
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [item]}))
    with pytest.raises(UserError, match=r"training\[0\].label must be the path of one mask; got a list of 2"):
        open_cohort(tmp_path)


@pytest.mark.parametrize(
    ("separator", "encoding", "first"), [(",", "utf-16", ""), ("|", "utf-8", ""), (";", "utf-8", "sep=;\n")]
)
def test_the_persons_of_a_list_hold_however_a_spreadsheet_saved_it(tmp_path, separator, encoding, first):
    rows = ["patient,case,flair"]
    for scan in ("scan0", "scan1"):
        save(tmp_path / scan / "flair.nii.gz", np.arange(256.0).reshape(8, 8, 4))
        rows.append(f"P1,{scan},{scan}/flair.nii.gz")
    text = first + "\n".join(rows).replace(",", separator)
    (tmp_path / "cohort.csv").write_text(text, encoding=encoding)
    cohort = open_cohort(tmp_path)
    assert [(case.id, case.patient) for case in cohort.cases] == [("scan0", "P1"), ("scan1", "P1")]
