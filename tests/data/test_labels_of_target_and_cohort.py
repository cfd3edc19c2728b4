"""The labels of a target and those of a cohort: compared before anything runs, both named where they differ."""

import nibabel
import numpy as np
import pytest
from dicom_series import write_series
from test_volume_cohorts import LPS, write_brats

from bundles import ORIGIN, changed, describe
from glioflow.bundle.prediction import Predictor
from glioflow.config import Experiment
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.dicom_seg import encode_dicom_seg
from glioflow.data.formats.mask_file import read_mask
from glioflow.data.formats.study import read_study
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.data.preprocessing.pipeline import LabelMap
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.features import measure_regions
from glioflow.label_schemes import SCHEMES
from glioflow.runs.analysis.evaluate import Subject, evaluate

TO_2021 = {
    "kind": "regions",
    "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
    "decode": {"WT": 2, "TC": 1, "ET": 4},
}
REGIONS = TargetSettings.model_validate(TO_2021)


def refusal(*arguments, **options):
    with pytest.raises(UserError) as caught:
        find_or_prepare(*arguments, **options)
    return str(caught.value)


@pytest.fixture
def from_2023(tmp_path):
    """Return a cohort of two cases with the labels 1, 2 and 3."""
    for number in (1, 2):
        write_brats(tmp_path / "cohort", f"BraTS-GLI-0000{number}-000", labels=(0, 1, 2, 3))
    return tmp_path / "cohort"


def test_regions_of_another_generation_are_refused_with_both_lists_before_a_case_is_read(from_2023, tiny, home):
    refused = refusal(from_2023, tiny.preprocess, home=home, target=REGIONS)
    assert "target [1, 2, 4] and cohort [1, 2, 3]" in refused
    assert "does not map [3]" in refused
    assert "never has [4]" in refused
    assert not home.exists()


def test_a_prepared_cohort_is_refused_as_the_raw_one_is(from_2023, tiny, home):
    prepared = find_or_prepare(from_2023, tiny.preprocess, home=home)
    assert "target [1, 2, 4] and cohort [1, 2, 3]" in refusal(prepared.path, tiny.preprocess, home=home, target=REGIONS)


def test_labels_are_compared_as_the_steps_rename_them(from_2023, tiny, home):
    steps = (*tiny.preprocess, LabelMap(map={3: 4}))
    assert find_or_prepare(from_2023, steps, home=home, target=REGIONS).manifest.labels[3] == "enhancing tumor"


def test_regions_over_one_label_are_refused(lgg, tiny, home):
    assert "target [1, 2, 4] and cohort [1]" in refusal(lgg, tiny.preprocess, home=home, target=REGIONS)


def test_classes_that_leave_a_label_out_are_refused(from_2023, tiny, home):
    target = TargetSettings(kind="multiclass", labels=(1, 2))
    assert "does not map [3]" in refusal(from_2023, tiny.preprocess, home=home, target=target)


def test_any_labels_are_a_binary_target(from_2023, tiny, home):
    assert find_or_prepare(from_2023, tiny.preprocess, home=home, target=TargetSettings()).records


def test_a_model_is_not_measured_on_labels_that_it_does_not_know(prepared, tiny, tmp_path, monkeypatch):
    experiment = changed(tiny, target=TO_2021)
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: Predictor(describe(experiment), None))
    (tmp_path / "model.json").touch()
    with pytest.raises(UserError, match=r"target \[1, 2, 4\] and cohort \[1\]"):
        evaluate(str(tmp_path), prepared.path)


def test_a_rule_for_small_parts_names_parts_of_the_target():
    with pytest.raises(UserError, match="got et; choose one of: WT, TC, ET"):
        Experiment.model_validate({"target": TO_2021, "postprocess": {"min_total_px": {"et": 500}}})


def test_the_segments_of_a_dicom_segmentation_stay_apart(tmp_path):
    series = write_series(tmp_path / "study" / "flair", np.full((4, 6, 8), 100, np.uint16))
    case = read_study([series])
    mask = np.zeros((4, 6, 8), np.uint8)
    mask[1:3, 1:3, 1:3], mask[1:3, 3:5, 3:5] = 1, 2
    (tmp_path / "study" / "seg").mkdir()
    (tmp_path / "study" / "seg" / "mask.dcm").write_bytes(encode_dicom_seg(mask, case, {1: "core", 2: "edema"}))
    cohort = open_cohort(tmp_path)
    assert cohort.labels == {1: "core", 2: "edema"}
    assert np.array_equal(cohort.read(cohort.cases[0].id).mask, mask)


def test_a_label_that_is_known_to_be_no_tumor_is_no_part_of_a_binary_target():
    target = TargetSettings()
    after = SCHEMES["brats-2024-gli"].labels
    with pytest.raises(UserError, match=r"label 4, resection cavity, of x; .*label_map \({map: {4: 0}}\)"):
        target.check_labels(after, "x", after)
    target.check_labels({1, 2, 3}, "x", {label: name for label, name in after.items() if label < 4})
    with pytest.raises(UserError, match="label 2, Ventricles"):
        target.check_labels({1, 2}, "x", {1: "brainstem glioma", 2: "Ventricles"})


def test_a_binary_mask_of_0_and_255_is_one_tumor(tmp_path):
    path = tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.resize(np.array([0, 255], np.uint8), (4, 5, 6)), LPS), path)
    assert np.unique(read_mask(path)[0]).tolist() == [0, 1]


def test_regions_are_not_measured_on_labels_that_none_of_them_has():
    with pytest.raises(UserError, match=r"only the labels \[1, 2, 4\]; got labels \[7\]"):
        measure_regions(np.full((2, 3, 3), 7, np.uint8), regions=SCHEMES["brats-2021"].regions)


DECATHLON = TargetSettings.model_validate({"preset": "decathlon"})


def test_equal_numbers_that_mean_other_tissues_are_refused_with_both(from_2023, tiny, home):
    refused = refusal(from_2023, tiny.preprocess, home=home, target=DECATHLON)
    assert "the region TC of the labels brats-2023 must unite [1, 3]; got target [2, 3]" in refused
    assert "1 necrotic core, 2 edema, 3 enhancing tumor" in refused
    assert "set target to {preset: brats-2023}" in refused
    named = DECATHLON.model_copy(update={"regions": {"WT": (1, 2, 3), "core or edema": (2, 3), "ET": (3,)}})
    assert find_or_prepare(from_2023, tiny.preprocess, home=home, target=named).records
    (from_2023 / "cohort.yaml").write_text("scheme: decathlon\n")
    assert find_or_prepare(from_2023, tiny.preprocess, home=home, target=DECATHLON).records


def test_an_evaluation_says_which_labels_meant_other_tissues_in_training(from_2023, tiny, home):
    experiment = changed(tiny, target={"kind": "multiclass", "labels": [1, 2, 3]}, loss={"name": "cross_entropy"})
    cohort = find_or_prepare(from_2023, tiny.preprocess, home=home)
    for scheme, expected in (
        ("decathlon", "1 (edema, here necrotic core), 2 (non-enhancing tumor, here edema)"),
        ("brats-2023", ""),
    ):
        origin = ORIGIN.model_copy(update={"labels": dict(SCHEMES[scheme].labels)})
        reported = Subject("model", Predictor(describe(experiment, origin=origin), None), None).warnings(cohort, [])
        assert [text.partition("trained: ")[2] for text in reported if "other tissues" in text] == [expected] * bool(
            expected
        )
