import json

import nibabel
import numpy as np
import pytest
from pydantic import ValidationError

from glioflow.bundle.encoded_mask import legend_of_target
from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.mask_file import scheme_of
from glioflow.data.formats.study import read_study
from glioflow.data.preprocessing.pipeline import LabelMap, renamed_tissues
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.label_schemes import SCHEMES

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (4, 5, 6)


def write_case(root, case, labels, *, parts=("t1n", "t1c", "t2w", "t2f")):
    (root / case).mkdir(parents=True)
    for number, part in enumerate(parts):
        nibabel.save(
            nibabel.Nifti1Image(np.full(SHAPE, number + 1, np.int16), LPS), root / case / f"{case}-{part}.nii.gz"
        )
    if labels is not None:
        mask = np.resize(np.array(labels, np.uint8), SHAPE)
        nibabel.save(nibabel.Nifti1Image(mask, LPS), root / case / f"{case}-seg.nii.gz")


def labels_read(root):
    cohort = open_cohort(root)
    return cohort.labels, {int(v) for case in cohort.cases for v in np.unique(cohort.read(case.id).mask)}


@pytest.mark.parametrize("case", ["BraTS-GLI-00005-100", "BraTS-GLI-02063-101"])
def test_after_treatment_label_4_is_the_resection_cavity(tmp_path, case):
    write_case(tmp_path, case, (0, 1, 2, 3, 4))
    named, found = labels_read(tmp_path)
    assert (named[3], named[4], found) == ("enhancing tumor", "resection cavity", {0, 1, 2, 3, 4})


def test_visits_before_and_after_treatment_are_one_cohort_and_one_person(tmp_path):
    write_case(tmp_path, "BraTS-GLI-00005-000", (0, 3))
    write_case(tmp_path, "BraTS-GLI-00005-100", (0, 3, 4))
    assert labels_read(tmp_path)[1] == {0, 3, 4}
    assert {case.patient for case in open_cohort(tmp_path).cases} == {"BraTS-GLI-00005"}


@pytest.mark.parametrize("kind", ["GLI-00001-000", "MET-00001-000", "MEN-00004-000", "SSA-00002-000", "GoAT-00001"])
def test_the_other_sets_of_2023_and_later_have_labels_1_2_3(tmp_path, kind):
    write_case(tmp_path, f"BraTS-{kind}", (0, 1, 2, 3))
    assert labels_read(tmp_path) == (dict(SCHEMES["brats-2023"].labels), {0, 1, 2, 3})


def test_a_label_that_the_names_do_not_promise_is_refused_with_the_schemes_that_have_it(tmp_path):
    write_case(tmp_path, "BraTS-MET-00001-000", (0, 1, 2, 3, 4))
    with pytest.raises(UserError, match="brats-2024-gli"):
        labels_read(tmp_path)
    (tmp_path / "cohort.yaml").write_text("scheme: brats-2024-gli\n")
    assert labels_read(tmp_path)[0][4] == "resection cavity"


@pytest.mark.parametrize("scheme", ["brats-2023-ped", "brats-2024-ped"])
def test_the_scheme_of_the_childrens_set_is_asked_for(tmp_path, scheme):
    write_case(tmp_path, "BraTS-PED-00002-000", (0, 1, 2, 3))
    with pytest.raises(UserError, match=r"brats-2023-ped.*brats-2024-ped") as refused:
        open_cohort(tmp_path)
    assert "did you mean" not in str(refused.value)  # nobody can know
    (tmp_path / "cohort.yaml").write_text(f"scheme: {scheme}\n")
    cohort = open_cohort(tmp_path)
    assert (cohort.format, cohort.labels) == ("brats", dict(SCHEMES[scheme].labels))
    assert cohort.read(cohort.cases[0].id).channels == ("flair", "t1", "t1ce", "t2")


def test_a_study_of_the_childrens_set_without_a_mask_needs_no_scheme(tmp_path):
    write_case(tmp_path, "BraTS-PED-00002-000", None)
    assert read_study([tmp_path]).mask is None


def test_generations_whose_numbers_differ_are_not_mixed(tmp_path):
    write_case(tmp_path, "BraTS-GLI-00001-000", (0, 3))
    write_case(tmp_path, "BraTS2021_00006", (0, 4))
    with pytest.raises(UserError, match=r"one generation.*give the folder of each"):
        open_cohort(tmp_path)


@pytest.mark.parametrize(
    ("other", "scheme"), [("BraTS-PED-00002-000", "brats-2024-ped"), ("BraTS-GLI-00005-100", "brats-2013")]
)
def test_one_scheme_is_not_taken_for_sets_in_which_a_number_means_another_tissue(tmp_path, other, scheme):
    write_case(tmp_path, "BraTS2021_00006", (0, 1, 2))
    write_case(tmp_path, other, (0, 1, 2))
    (tmp_path / "cohort.yaml").write_text(f"scheme: {scheme}\n")
    wrong = "brats-2021" if "PED" in other else "brats-2024-gli"
    with pytest.raises(UserError, match=rf"{scheme} must fit.*{wrong}.*folder of each.*write `labels") as refused:
        open_cohort(tmp_path)
    assert refused.value.file == tmp_path
    (tmp_path / "cohort.yaml").write_text("labels: {1: core, 2: edema}\n")
    assert labels_read(tmp_path) == ({1: "core", 2: "edema"}, {0, 1, 2})


def test_masks_whose_numbers_were_made_those_of_another_year_may_have_the_names_of_both(tmp_path):
    write_case(tmp_path, "BraTS2021_00006", (0, 1, 2, 3))
    write_case(tmp_path, "BraTS-GLI-00001-000", (0, 1, 2, 3))
    (tmp_path / "cohort.yaml").write_text("scheme: brats-2023\n")
    assert labels_read(tmp_path) == (dict(SCHEMES["brats-2023"].labels), {0, 1, 2, 3})
    assert open_cohort(tmp_path).notes == ()


def test_metastases_with_a_resection_cavity_are_read_once_the_scheme_is_given(tmp_path):
    write_case(tmp_path, "BraTS-MET-00014-000", (0, 1, 2, 3))
    write_case(tmp_path, "BraTS-MET-00014-001", (0, 2, 3, 4))
    with pytest.raises(UserError, match=r"got \[0, 2, 3, 4\]; write `scheme: NAME`.*brats-2024-gli"):
        open_cohort(tmp_path).read("BraTS-MET-00014-001")
    (tmp_path / "cohort.yaml").write_text("scheme: brats-2024-gli\n")
    cohort = open_cohort(tmp_path)
    assert set(np.unique(cohort.read("BraTS-MET-00014-001").mask)) == {0, 2, 3, 4}
    assert ({case.patient for case in cohort.cases}, cohort.notes) == ({"BraTS-MET-00014"}, ())


def test_check_says_that_the_names_of_cases_imply_other_labels_than_the_person(tmp_path):
    write_case(tmp_path, "BraTS-MET-00001-000", (0, 1, 2, 3))
    (tmp_path / "cohort.yaml").write_text("scheme: brats-2013\n")
    assert any(
        "those of brats-2013, and the names of cases are those of brats-2023" in note
        for note in check(tmp_path).remarks
    )


@pytest.mark.parametrize("yaml", ["scheme: brats-2024-peds", "scheme: decathlon\nlabels: {1: core}"])
def test_a_scheme_that_does_not_exist_or_is_given_twice_is_refused(tmp_path, yaml):
    write_case(tmp_path, "BraTS-PED-00002-000", (0, 1))
    (tmp_path / "cohort.yaml").write_text(yaml)
    with pytest.raises(UserError, match=r"cohort\.yaml"):
        open_cohort(tmp_path)


@pytest.mark.parametrize("name", [name for name in SCHEMES if name not in ("tumor", "brats-men-rt", "brats-2013")])
def test_the_labels_of_a_preset_survive_encoding_and_decoding(name):
    target = TargetSettings.model_validate({"preset": name})
    mask = np.array([[0, *SCHEMES[name].labels]], np.uint8)
    assert np.array_equal(target.labels_of(target.split(mask)), mask)
    target.check_labels(SCHEMES[name].labels, "the cohort")
    legend = legend_of_target(target, "brats", SCHEMES[name].labels)
    assert legend.names == SCHEMES[name].labels
    assert legend.regions == {region: sorted(values) for region, values in SCHEMES[name].regions.items()}


def test_a_region_beside_the_others_takes_its_voxels_and_needs_no_nesting():
    target = TargetSettings.model_validate({"preset": "brats-2024-gli"})
    parts = {
        name: np.array(on, bool)
        for name, on in {"WT": [1, 1, 0], "TC": [1, 0, 0], "ET": [1, 0, 0], "RC": [1, 0, 1]}.items()
    }
    assert target.labels_of(parts).tolist() == [4, 2, 4]
    assert target.settle(parts)["ET"].tolist() == [False, False, False]


def test_classes_of_which_none_contains_another_are_written_in_their_order():
    target = TargetSettings.model_validate({"preset": "brats-2024-ped"})
    parts = dict.fromkeys(("WT", "TC", "CC", "ET"), np.array([True]))
    assert target.labels_of(parts).tolist() == [1]
    assert target.labels_of({**parts, "ET": np.array([False])}).tolist() == [3]
    assert target.labels_of({**parts, "TC": np.array([False])}).tolist() == [4]


@pytest.mark.parametrize("settings", [{"preset": "brats-2024"}, {"preset": "brats-2021", "kind": "binary"}])
def test_a_preset_is_known_and_stands_alone(settings):
    with pytest.raises((ValidationError, UserError), match=r"preset|scheme"):
        TargetSettings.model_validate(settings)


@pytest.mark.parametrize(
    ("name", "found", "scheme"),
    [
        ("BraTS2021_00006_seg.nii.gz", (1, 2, 4), "brats-2021"),
        ("BraTS-GLI-00005-100_mask.nii.gz", (1, 2, 4), "brats-2024-gli"),
        ("BraTS-SSA-00002-000-seg.nii.gz", (1, 2), "brats-2023"),
    ],
)
def test_the_name_of_a_mask_says_what_its_labels_mean(tmp_path, name, found, scheme):
    assert scheme_of(tmp_path / name, np.array(found, np.uint8), None).name == scheme


@pytest.mark.parametrize(
    ("labels", "more", "regions"),
    [
        (
            {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
            {"regions_class_order": [1, 2, 3]},
            {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)},
        ),
        (
            {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
            {},
            SCHEMES["decathlon"].regions,
        ),
        ({"background": 0, "edema": 1, "core": 2, "active": 3}, {}, None),
    ],
)
def test_what_nnunet_says_about_labels_goes_before_the_names_of_brats(tmp_path, labels, more, regions):
    mask = tmp_path / "labelsTr" / "BraTS2021_00006.nii.gz"
    mask.parent.mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, **more}))
    found = np.array((1, 2), np.uint8)  # no label 3 tells that these are not those of BraTS 2021
    if regions is not None:
        assert scheme_of(mask, found, None).regions == regions
        return
    with pytest.raises(UserError, match=r"1 edema, 2 core, 3 active; give scheme"):
        scheme_of(mask, found, None)
    assert scheme_of(mask, found, "decathlon").name == "decathlon"


@pytest.mark.parametrize("found", [(1, 2, 4), (1, 2, 3)])
def test_labels_without_a_name_are_asked_for_and_never_guessed(tmp_path, found):
    labels = np.array(found, np.uint8)
    with pytest.raises(UserError, match="give scheme "):
        scheme_of(tmp_path / "mask.nii.gz", labels, None)
    assert scheme_of(tmp_path / "mask.nii.gz", labels, "brats-2013").name == "brats-2013"


def test_a_model_of_before_keeps_the_names_of_its_labels():
    target = TargetSettings.model_validate({"preset": "brats-2021"})
    assert legend_of_target(target, "brats").names == SCHEMES["brats-2021"].labels
    assert legend_of_target(target, "nifti").names == {2: "WT", 1: "TC", 4: "ET"}


def test_names_of_labels_follow_the_step_that_renames_them():
    steps = (LabelMap(map={4: 3}),)
    assert renamed_tissues(SCHEMES["brats-2021"].labels, steps)[3] == "enhancing tumor"
    assert renamed_tissues({1: "core", 2: "edema"}, (LabelMap(map={2: 1}),)) == {}
