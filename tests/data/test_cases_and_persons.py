"""Which files are one case, and which cases are one person: no id is given twice, nobody becomes somebody else."""

import shutil

import nibabel
import numpy as np
import pytest
from dicom_series import write_series
from test_volume_cohorts import LPS, read_first, save, write_brats

from glioflow.data.checks.cohort_checks import check
from glioflow.data.checks.remarks import doubtful_persons
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.lgg import patient_of
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.study import open_study
from glioflow.data.prepared.preparation import prepare
from glioflow.data.sequences import sequence_of
from glioflow.data.synthetic.layouts import synthesize_layout
from glioflow.errors import UserError
from glioflow.survival import read_clinical

SHAPE = (4, 5, 6)


def image(path, value=1):
    return save(path, np.full(SHAPE, value, np.int16))


def mask(path):
    return save(path, np.ones(SHAPE, np.uint8))


def ids(path):
    return [(case.id, case.patient) for case in open_cohort(path).cases]


def test_the_same_folder_name_at_two_sites_is_two_cases_of_two_persons(tmp_path):
    for site in ("siteA", "siteB"):
        image(tmp_path / site / "sub-01" / "flair.nii.gz")
        mask(tmp_path / site / "sub-01" / "mask.nii.gz")
    image(tmp_path / "siteB" / "sub-02" / "flair.nii.gz")
    assert ids(tmp_path) == [
        ("siteA_sub-01", "siteA_sub-01"),
        ("siteB_sub-01", "siteB_sub-01"),
        ("sub-02", "sub-02"),
    ]
    assert {case.channels for case in map(open_cohort(tmp_path).read, ("siteA_sub-01", "sub-02"))} == {("flair",)}


@pytest.mark.parametrize(
    "names",
    [
        ("sub-1_T1w", "sub-2_FLAIR"),
        ("BraTS-GLI-00001-000-t1n", "BraTS-GLI-00002-000-seg"),
        ("P1_T1w", "P2_flair"),
        ("site1_P1_T1w", "site1_P2_flair"),
        ("patient_1_T1w", "patient_2_flair"),
        ("case-01 T1w", "case-02 flair"),
    ],
)
def test_files_of_two_persons_in_one_folder_are_not_one_case(tmp_path, names):
    for name in names:
        image(tmp_path / "all" / f"{name}.nii.gz")
    with pytest.raises(UserError, match=r"all: the files of a case must be of one person; got \S+1 and \S+2;"):
        open_cohort(tmp_path, format="nifti")


@pytest.mark.parametrize(
    "names",
    [
        ("se3_T1w", "se4_flair"),
        ("BRAIN_3_T1w", "BRAIN_4_flair"),
        ("P1_3_T1w", "P1_4_flair"),
        ("P1_20190101_T1w", "P1_20190102_flair"),
        ("2D_T1w", "3D_flair"),
    ],
)
def test_numbers_of_series_do_not_make_one_person_two(tmp_path, names):
    for name in names:
        image(tmp_path / "all" / f"{name}.nii.gz")
    assert len(open_cohort(tmp_path, format="nifti").cases) == 1


def test_folders_that_are_not_bids_are_told_apart_as_well(tmp_path):
    for name in ("a/scan", "b/scan", "a_b/c", "a/b_c"):
        image(tmp_path / name / "flair.nii.gz")
    found = ids(tmp_path)
    assert len({case for case, _ in found}) == len({person for _, person in found}) == 4


def test_the_space_of_a_bids_image_is_not_its_sequence(tmp_path):
    for entity in ("space-T1w_FLAIR", "space-T1w_ce-GADOLINIUM_T1w", "space-MNI152_T2w"):
        image(tmp_path / "sub-01" / "anat" / f"sub-01_{entity}.nii.gz")
    _, case = read_first(tmp_path)
    assert [sequence_of(channel) for channel in case.channels] == ["t2", "flair", "post"]


def test_own_cases_whose_files_are_named_like_those_of_brats_have_visits_too(tmp_path):
    for case in ("P1_visit1", "P1_20200131", "P2_visit1", "Brats17_2013_10_1"):
        write_brats(tmp_path, case)
    assert open_cohort(tmp_path).format == "brats"
    assert set(ids(tmp_path)) == {
        ("P1_visit1", "P1"),
        ("P1_20200131", "P1"),
        ("P2_visit1", "P2"),
        ("Brats17_2013_10_1", "Brats17_2013_10_1"),
    }
    study, *_ = open_study([*(tmp_path / "P1_visit1").iterdir()], masks=False).cases
    assert study.patient == "P1"
    assert any(
        remark.startswith("cases of one person: P1 (P1_20200131, P1_visit1)") for remark in check(tmp_path).remarks
    )
    (tmp_path / "cohort.yaml").write_text("each_case_is_a_person: true\n")
    cohort = open_cohort(tmp_path)
    assert len({case.patient for case in cohort.cases}) == 4
    assert cohort.inputs == (tmp_path / "cohort.yaml",)


def test_own_cases_named_like_those_of_brats_that_may_be_scans_of_one_person_are_said(tmp_path):
    for case in ("P1_1", "P1_2", "P2_1", "P2_2"):
        write_brats(tmp_path, case)
    assert any(
        "P1_1, P1_2" in remark and "visits: ['_1', '_2']" in remark
        for remark in doubtful_persons(open_cohort(tmp_path))
    )
    (tmp_path / "cohort.yaml").write_text("visits: [_1, _2]\n")
    assert {case.patient for case in open_cohort(tmp_path).cases} == {"P1", "P2"}


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (("siteA", "siteB"), [("siteA_P1", "siteA_P1"), ("siteB_P1", "siteB_P1")]),
        (("P1/visit1", "P1/visit2"), [("P1_visit1", "P1"), ("P1_visit2", "P1")]),
    ],
)
def test_own_cases_named_like_those_of_brats_are_told_apart_by_their_folders(tmp_path, folders, found):
    for folder in folders:
        written = write_brats(tmp_path / folder, "P1", labels=(0, 1))
        if "visit" in folder:
            for file in list(written.iterdir()):
                file.rename(tmp_path / folder / file.name)
            written.rmdir()
    cohort = open_cohort(tmp_path)
    assert [(case.id, case.patient) for case in cohort.cases] == found
    assert cohort.read(found[1][0]).channels == ("flair", "t1", "t1ce", "t2")


@pytest.mark.parametrize("case", ["P1", "P1_visit2", "BraTS2021_00001"])
@pytest.mark.parametrize("ending", ["mask", "label", "tumor_mask", "gt"])
def test_masks_under_other_names_beside_files_named_like_those_of_brats_are_not_dropped(tmp_path, case, ending):
    write_brats(tmp_path, case, labels=(0, 1), seg=f"{{case}}_{ending}")
    cohort, read = read_first(tmp_path)
    assert (read.channels, set(np.unique(read.mask))) == (("flair", "t1", "t1ce", "t2"), {0, 1})
    assert cohort.cases[0].patient == case.removesuffix("_visit2")
    assert cohort.labels == {1: "tumor"}


def test_masks_of_brats_are_preferred_to_others_beside_them(tmp_path):
    folder = write_brats(tmp_path, "BraTS2021_00001")
    mask(folder / "BraTS2021_00001_mask.nii.gz")
    cohort, read = read_first(tmp_path)
    assert (cohort.format, set(np.unique(read.mask))) == ("brats", {0, 1, 2, 4})


@pytest.mark.parametrize("name", ["P1_seg_manual", "PatientID_0003_Timepoint_1_tumor_mask_v2"])
def test_check_names_files_that_may_be_masks_of_a_cohort_without_masks(tmp_path, name):
    if name.startswith("P1"):
        mask(write_brats(tmp_path, "P1", seg=None) / f"{name}.nii.gz")
    else:
        synthesize_layout("mu-glioma-post", tmp_path / "set")
        for file in tmp_path.rglob("*tumorMask*"):
            file.rename(file.with_name(file.name.replace("tumorMask", "tumor_mask_v2")))
    assert any(f"may be masks are not read: {name}.nii.gz" in remark for remark in check(tmp_path).remarks)


def test_the_participants_of_bids_are_its_clinical_table(tmp_path):
    for person in ("sub-01", "sub-02"):
        image(tmp_path / person / "anat" / f"{person}_FLAIR.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t51\tF\nsub-02\t60\tM\n")
    cohort = open_cohort(tmp_path)
    assert cohort.clinical == tmp_path / "participants.tsv"
    (tmp_path / "above").mkdir()
    for part in list(tmp_path.iterdir()):
        if part.name != "above":
            shutil.move(part, tmp_path / "above")
    cohort = open_cohort(tmp_path)
    assert cohort.clinical == tmp_path / "above" / "participants.tsv", "a folder higher"
    table = read_clinical(cohort.clinical)
    assert table["age_years"].to_dict() == {"sub-01": 51, "sub-02": 60}
    assert set(table.index) == {case.patient for case in cohort.cases}
    assert not [problem for problem in check(tmp_path).problems if problem.file == "participants.tsv"]


def test_bids_names_persons_and_visits_not_the_folder_anat(tmp_path):
    for person in ("sub-01", "sub-02"):
        for visit in ("ses-1", "ses-2"):
            folder, name = tmp_path / person / visit / "anat", f"{person}_{visit}"
            image(folder / f"{name}_T1w.nii.gz")
            image(folder / f"{name}_FLAIR.nii.gz")
        image(tmp_path / person / "ses-1" / "func" / f"{person}_ses-1_bold.nii.gz")
        mask(tmp_path / "derivatives" / "raters" / person / "ses-1" / "anat" / f"{person}_ses-1_dseg.nii.gz")
        image(tmp_path / "derivatives" / "raters" / person / "ses-1" / "anat" / f"{person}_ses-1_desc-n4_T1w.nii.gz")
    assert ids(tmp_path) == [
        ("sub-01_ses-1", "sub-01"),
        ("sub-01_ses-2", "sub-01"),
        ("sub-02_ses-1", "sub-02"),
        ("sub-02_ses-2", "sub-02"),
    ]
    _, first = read_first(tmp_path)
    assert set(first.channels) == {"t1w", "flair"}
    assert first.mask is not None


def test_persons_of_two_sites_are_apart_although_their_visits_differ(tmp_path):
    image(tmp_path / "siteA" / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_FLAIR.nii.gz")
    image(tmp_path / "siteB" / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_FLAIR.nii.gz")
    assert [person for _, person in ids(tmp_path)] == ["siteA_sub-01", "siteB_sub-01"]


def test_the_name_of_a_folder_that_is_alone_stays_as_it_was(tmp_path):
    image(tmp_path / "siteA" / "one" / "flair.nii.gz")
    assert ids(tmp_path) == [("one", "one")]


def test_a_cohort_cannot_have_one_id_twice(tmp_path):
    cases = (CaseFiles("a", "a", ()), CaseFiles("a", "b", ()))
    with pytest.raises(UserError, match="a 2 times"):
        Cohort("nifti", tmp_path, cases, {}, read_first)


def test_check_counts_every_case_of_equal_names(tmp_path):
    for number, site in enumerate(("siteA", "siteB")):
        volume = np.arange(120).reshape(SHAPE) + 1000 * number
        save(tmp_path / site / "sub-01" / "flair.nii.gz", volume.astype(np.int16))
    assert check(tmp_path).patients == 2


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("MRN_12345678", "MRN_12345678"),
        ("MRN_87654321", "MRN_87654321"),
        ("MRN_19960230", "MRN_19960230"),
        ("MRN_20200101", "MRN_20200101"),
        ("patient-id_19991231", "patient-id_19991231"),
        ("site1_MRN_19800101", "site1_MRN_19800101"),
        ("site1/MRN_19800101", "site1/MRN_19800101"),
        ("siteA/MRN_19800101", "siteA/MRN_19800101"),
        ("site1/patient_19800101", "site1/patient_19800101"),
        ("site1/P7_19800101", "site1/P7"),
        ("center-2_patient-id_19800101", "center-2_patient-id_19800101"),
        ("P7_scan_19960909", "P7_scan"),
        ("P7_anon_19960909", "P7_anon"),
        ("anon_19960909", "anon_19960909"),
        ("P7_19960909", "P7"),
        ("P7-1996-09-09", "P7"),
        ("P7_09.09.1996", "P7"),
        ("P7_12-31-1996", "P7"),
        ("P7_9Sep1996", "P7"),
        ("P7_1996-Sep-09", "P7"),
        ("P7_19960909_103000", "P7"),
        ("P7_1996-09-09T10-30-00", "P7"),
        ("DOE_1996-09-09", "DOE"),
        ("study_1996-09-09", "study_1996-09-09"),
        ("MRN_19960909_1030", "MRN_19960909_1030"),
        ("BIO_1996-01", "BIO_1996-01"),
        ("P7_45-13-1996", "P7_45-13-1996"),
        ("P7_Mayo_1996", "P7_Mayo_1996"),
        ("P7_visit2", "P7"),
        ("DOE_19960909", "DOE"),
        ("TCGA_CS_4941_19960909", "TCGA_CS_4941"),
    ],
)
def test_eight_digits_are_a_date_only_if_they_are_one(name, patient):
    assert patient_of(name)[0] == patient


@pytest.mark.parametrize(
    "visits",
    [
        ("09.09.1996", "31.12.1997"),
        ("09-09-1996", "12-31-1997"),
        ("20190101_1030", "20190101_1100"),
        ("preRT", "post-RT"),
        ("baseline_1", "recurrence"),
        ("BL", "FU"),
        ("3 months", "12mo"),
        ("follow_up_1", "FU_6months"),
        ("pre-treatment", "postsurgery2"),
        ("pre", "post"),
    ],
)
def test_visits_of_one_person_are_of_one_person_however_they_are_named(tmp_path, visits):
    for visit in visits:
        image(tmp_path / "nested" / "P1" / visit / "flair.nii.gz")
        image(tmp_path / "flat" / f"P1_{visit}" / "flair.nii.gz")
    for layout in ("nested", "flat"):
        assert {person for _, person in ids(tmp_path / layout)} == {"P1"}


@pytest.mark.parametrize("declared", [False, True])
def test_check_names_the_cases_of_one_person_until_the_cohort_says_otherwise(tmp_path, declared):
    for name in ("DOE_20200101", "DOE_20210101", "P1/baseline", "P1/week-12", "MRN_20200101", "MRN_19991231"):
        image(tmp_path / name / "flair.nii.gz")
    (tmp_path / "cohort.yaml").write_text("each_case_is_a_person: true\n" if declared else "")
    report = check(tmp_path)
    shown = [remark for remark in report.remarks if "of one person" in remark]
    assert report.patients == (6 if declared else 4)
    assert len(shown) == (0 if declared else 1)
    assert declared or "DOE (DOE_20200101, DOE_20210101); P1 (P1_baseline, P1_week-12)" in shown[0]


@pytest.mark.parametrize("declared", [False, True])
def test_check_names_persons_who_may_be_scans_of_one_until_the_cohort_says_otherwise(tmp_path, declared):
    for name in ("P1/scan1", "P1/scan2", "P2/scan1", "P3_MR1", "P3_MR2", "P4_visit1", "P4_visit2", "glioma_001"):
        image(tmp_path / name / "flair.nii.gz")
    (tmp_path / "cohort.yaml").write_text("each_case_is_a_person: true\n" if declared else "")
    shown = [remark for remark in check(tmp_path).remarks if "of different persons" in remark]
    words = (
        "cases of different persons: P1_scan1, P1_scan2; P3_MR1, P3_MR2; if they are scans of one person, "
        "write `visits: ['_MR1', '_MR2', '_scan1', '_scan2']` into cohort.yaml"
    )
    assert [remark[: len(words)] for remark in shown] == ([] if declared else [words])


@pytest.mark.parametrize(
    ("names", "doubtful"),
    [
        (("P7_1", "P7_2", "P8_1"), "P7_1, P7_2"),
        (("P7/1", "P7/2", "P8/1"), "P7_1, P7_2"),
        (("P7_V01", "P7_V02"), "P7_V01, P7_V02"),
        (("MRN_1", "MRN_2"), None),
        (("site1_1", "site1_2", "site1_3", "site1_4", "site1_5", "site2_1", "site2_2", "site2_3", "site2_4"), None),
        (("BraTS20_Training_001", "BraTS20_Training_002"), None),
    ],
)
def test_scans_that_numbers_tell_apart_are_doubtful_persons(tmp_path, names, doubtful):
    for name in names:
        image(tmp_path / name / "flair.nii.gz")
    shown = doubtful_persons(open_cohort(tmp_path))
    assert [each.split(";")[0] for each in shown] == (
        [f"cases of different persons: {doubtful}"] if doubtful is not None else []
    )
    assert len({patient for _, patient in ids(tmp_path)}) == len(names)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("anna_t1", "berta_flair"), "anna_t1, berta_flair"),
        (("t1", "anna_flair", "Anna_t2"), None),
        (("anna_t1", "anna_new_flair", "anna_seg"), None),
        (("coreg_t1", "orig_flair", "resampled_t2"), None),
        (("301_ax_t1", "402_sag_flair"), None),
        (("mprage_t1", "tse_flair", "case_t2"), None),
    ],
)
def test_images_of_one_case_that_begin_with_different_names_are_doubtful(tmp_path, names, shown):
    for folder in ("c1", "c2"):
        for name in names:
            (mask if name.endswith("seg") else image)(tmp_path / folder / f"{name}.nii.gz")
    doubts = doubtful_persons(open_cohort(tmp_path))
    assert [each.split("; if")[0] for each in doubts] == (
        [] if shown is None else [f"cases with images of different names: c1 ({shown}); c2 ({shown})"]
    )
    assert set(doubts) <= set(check(tmp_path).remarks)


@pytest.mark.parametrize("visits", ["['_1', '_2']", "['_[0-9]']"])
@pytest.mark.parametrize("between", ["_", "/"])
def test_a_cohort_declares_the_ends_of_names_that_are_visits(tmp_path, visits, between):
    for name in ("P7_1", "P7_2", "P8_1", "P9"):
        image(tmp_path / name.replace("_", between) / "flair.nii.gz")
    (tmp_path / "cohort.yaml").write_text(f"visits: {visits}\n")
    assert sorted(patient for _, patient in ids(tmp_path)) == ["P7", "P7", "P8", "P9"]
    assert doubtful_persons(open_cohort(tmp_path)) == []


def test_visits_of_persons_who_are_each_one_case_are_a_contradiction(tmp_path):
    image(tmp_path / "P7_1" / "flair.nii.gz")
    (tmp_path / "cohort.yaml").write_text("visits: ['_1']\neach_case_is_a_person: true\n")
    with pytest.raises(UserError, match="each_case_is_a_person and visits must not both be given"):
        open_cohort(tmp_path)


@pytest.mark.parametrize("declared", [False, True])
def test_check_names_studies_of_one_patient_id(tmp_path, declared):
    for study in ("1.2.3", "1.2.4"):
        write_series(tmp_path / study, np.full((3, 6, 8), 7, np.uint16), study=study, patient="ANON")
    (tmp_path / "cohort.yaml").write_text("each_case_is_a_person: true\n" if declared else "")
    report = check(tmp_path)
    assert report.patients == (2 if declared else 1)
    assert any("ANON (1.2.3, 1.2.4)" in remark for remark in report.remarks) is not declared


@pytest.mark.parametrize(("case", "patient"), [("", "a"), ("a", " ")])
def test_an_empty_name_is_refused(case, patient):
    with pytest.raises(UserError, match="must have a name"):
        CaseFiles(case, patient, ())


def test_a_row_without_a_patient_is_refused_by_the_reader_and_reported_by_the_check(tmp_path, lgg):
    table = tmp_path / "table.csv"
    table.write_text("Patient,Age\nTCGA_CS_4941,50\n,60\n")
    with pytest.raises(UserError, match="1 empty"):
        read_clinical(table)
    cohort = tmp_path / "kaggle_3m"
    cohort.mkdir()
    for folder in (folder for folder in lgg.iterdir() if folder.is_dir()):
        (cohort / folder.name).symlink_to(folder)
    (cohort / "data.csv").write_text(
        (lgg / "data.csv").read_text() + "," * (lgg / "data.csv").read_text().split("\n")[0].count(",") + "\n"
    )
    assert any("should name its patient" in problem.rule for problem in check(cohort).problems)


def test_check_says_when_a_value_of_the_table_is_none(tmp_path):
    image(tmp_path / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t45,5\n")
    (problem,) = [each for each in check(tmp_path).problems if each.file == "participants.tsv"]
    assert (problem.severity, "age_years must be a number" in problem.rule) == ("warning", True)


class TestRoles:
    """Which file is what."""

    def test_a_brain_mask_is_no_tumor(self, tmp_path):
        of_parts = ("csf_seg", "wm_mask", "white_matter_mask", "hippocampus_labels", "aseg", "aparc+aseg", "valid_mask")
        of_others = (
            "hdbet_mask",
            "synthstrip_mask",
            "skull_strip_mask",
            "icv_mask",
            "label-CSF_probseg",
            "vessel_mask",
        )
        for name in ("brain_mask", "brainmask", "mask_brain", "bet_mask", "skull-mask", *of_parts, *of_others):
            image(tmp_path / name / "one" / "flair.nii.gz")
            mask(tmp_path / name / "one" / f"one_{name}.nii.gz")
            _, case = read_first(tmp_path / name)
            assert case.mask is None, name
            assert case.channels == ("flair",)

    @pytest.mark.parametrize("name", ["lesion", "tumor", "Tumour", "GT", "ground_truth", "truth", "ROI", "brain_tumor"])
    def test_a_mask_under_another_name_is_never_a_channel_of_the_image(self, tmp_path, name):
        image(tmp_path / "one" / "flair.nii.gz")
        mask(tmp_path / "one" / f"one_{name}.nii.gz")
        _, case = read_first(tmp_path)
        assert case.channels == ("flair",)
        assert case.mask.all()

    @pytest.mark.parametrize("name", ["necrosis", "WT", "OT", "seg_t1ce", "mask2", "prediction", "PTV"])
    def test_labels_under_a_name_that_says_nothing_are_refused_as_a_channel(self, tmp_path, name):
        save(tmp_path / "one" / "flair.nii.gz", np.arange(120).reshape(SHAPE).astype(np.int16))
        save(tmp_path / "one" / f"one_{name}.nii.gz", np.resize(np.array([0, 0, 0, 2], np.uint8), SHAPE))
        with pytest.raises(UserError, match=r"holds labels: is it a mask\?; got \[0, 2\].*cohort\.yaml"):
            read_first(tmp_path)

    def test_labels_that_the_cohort_calls_an_image_are_a_channel(self, tmp_path):
        save(tmp_path / "one" / "flair.nii.gz", np.arange(120).reshape(SHAPE).astype(np.int16))
        for name in ("prior", "seg"):
            save(tmp_path / "one" / f"one_{name}.nii.gz", np.resize(np.array([0, 0, 0, 1], np.uint8), SHAPE))
        (tmp_path / "cohort.yaml").write_text("images: [flair.nii.gz, '*_prior.nii.gz']\n")
        _, case = read_first(tmp_path)
        assert case.channels == ("flair", "prior")
        assert case.mask.any()

    def test_a_numbered_channel_may_hold_labels(self, tmp_path):
        save(tmp_path / "one_0000.nii.gz", np.arange(120).reshape(SHAPE).astype(np.int16))
        save(tmp_path / "one_0001.nii.gz", np.resize(np.array([0, 1], np.uint8), SHAPE))
        _, case = read_first(tmp_path)
        assert case.channels == ("channel0", "channel1")

    def test_a_brain_mask_beside_a_mask_of_the_tumor_is_left_out(self, tmp_path):
        image(tmp_path / "a.nii.gz")
        mask(tmp_path / "a_seg.nii.gz")
        save(tmp_path / "a_brain_mask.nii.gz", np.zeros(SHAPE, np.uint8))
        cohort, case = read_first(tmp_path)
        assert [each.id for each in cohort.cases] == ["a"]
        assert case.mask.all()

    def test_two_masks_are_refused_until_the_cohort_says_which_is_which(self, tmp_path):
        image(tmp_path / "one" / "flair.nii.gz")
        mask(tmp_path / "one" / "one_mask.nii.gz")
        save(tmp_path / "one" / "one_seg.nii.gz", np.resize(np.array([0, 2], np.uint8), SHAPE))
        with pytest.raises(UserError, match=r"cohort\.yaml"):
            read_first(tmp_path)
        (tmp_path / "cohort.yaml").write_text("masks: ['*_seg.nii.gz']\nlabels: {1: core, 2: edema}\n")
        cohort, case = read_first(tmp_path)
        assert cohort.labels == {1: "core", 2: "edema"}
        assert set(np.unique(case.mask)) == {0, 2}

    def test_declared_endings_group_the_files_of_one_folder(self, tmp_path):
        for case in ("a", "b"):
            image(tmp_path / f"{case}_flair.nii.gz")
            image(tmp_path / f"{case}_t1.nii.gz")
            mask(tmp_path / f"{case}_lesion.nii.gz")
        (tmp_path / "cohort.yaml").write_text("images: ['*_flair.nii.gz', '*_t1.nii.gz']\nmasks: ['*_lesion.nii.gz']\n")
        cohort, case = read_first(tmp_path)
        assert [each.id for each in cohort.cases] == ["a", "b"]
        assert case.channels == ("flair", "t1")
        assert case.mask.all()

    def test_a_declaration_is_never_passed_over(self, tmp_path):
        write_brats(tmp_path / "set")
        (tmp_path / "set" / "cohort.yaml").write_text("labels: {1: core, 2: edema, 4: enhancing}\n")
        assert read_first(tmp_path / "set")[0].labels == {1: "core", 2: "edema", 4: "enhancing"}
        (tmp_path / "tiff").mkdir()
        (tmp_path / "tiff" / "a_1.tif").touch()
        (tmp_path / "tiff" / "cohort.yaml").write_text("labels: {1: core}\n")
        with pytest.raises(UserError, match=r"cohort\.yaml names images or masks must hold NIfTI files"):
            open_cohort(tmp_path / "tiff")

    @pytest.mark.parametrize("text", ["mask: ['*']", "labels: {0: air}", "labels: [", "masks: 3"])
    def test_a_declaration_that_means_nothing_is_refused(self, tmp_path, text):
        image(tmp_path / "one" / "flair.nii.gz")
        (tmp_path / "cohort.yaml").write_text(text)
        with pytest.raises(UserError, match=r"cohort\.yaml"):
            read_first(tmp_path)

    def test_check_shows_which_file_is_what(self, tmp_path):
        image(tmp_path / "one" / "flair.nii.gz")
        nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), LPS), tmp_path / "one" / "one_seg.nii.gz")
        shown = check(tmp_path).to_dict()["files"]
        assert shown == {"case": "one", "images": ["flair.nii.gz"], "masks": ["one_seg.nii.gz"]}


def test_a_case_with_the_channels_of_the_others_in_another_order_is_prepared_in_theirs(tmp_path):
    for case, names in (("p1", ("T1", "flair")), ("p2", ("FLAIR", "t1")), ("p3", ("T1", "flair"))):
        for name in names:
            image(tmp_path / "raw" / case / f"{name}.nii.gz", 1 if name.lower() == "t1" else 2)
    assert [open_cohort(tmp_path / "raw").read(case).channels[0] for case in ("p1", "p2")] == ["t1", "flair"]
    prepared = prepare(open_cohort(tmp_path / "raw"), tmp_path / "out", (), map_cases=map)
    assert [record.source_channels for record in prepared.records] == [("t1", "flair")] * 3
    assert all(np.asarray(case.image)[0, 0, 0].tolist() == [1, 2] for case in prepared.cases(["p1", "p2", "p3"]))
    assert len(list((tmp_path / "out" / "cases").iterdir())) == 3


def test_preparing_names_the_case_that_cannot_be_read(tmp_path, tiny):
    for case in ("p1", "p2"):
        image(tmp_path / "set" / case / "flair.nii.gz")
    image(tmp_path / "set" / "p2" / "flair2.nii.gz")
    with pytest.raises(UserError, match="case p2: 2 images of the case are flair"):
        prepare(open_cohort(tmp_path / "set"), tmp_path / "out", tiny.preprocess)


@pytest.mark.parametrize("ending", ["seg", "mask", "flair_seg"])
def test_one_sequence_and_a_mask_for_each_case_in_one_folder_are_a_case(tmp_path, ending):
    for case in ("p1", "site-2_sub-07"):
        image(tmp_path / f"{case}_flair.nii.gz")
        mask(tmp_path / f"{case}_{ending}.nii.gz")
    cohort = open_cohort(tmp_path)
    named = [f"{case}_flair" if ending == "flair_seg" else case for case in ("p1", "site-2_sub-07")]
    assert [case.id for case in cohort.cases] == named
    assert all(cohort.read(case.id).mask.all() for case in cohort.cases)
    assert ending == "flair_seg" or cohort.read("p1").channels == ("flair",)


def test_check_names_a_case_that_lacks_a_sequence_of_the_others(tmp_path):
    for case in ("p1", "p2", "p3"):
        for name in ("t1", "flair"):
            save(tmp_path / case / f"{name}.nii.gz", np.random.default_rng(0).integers(1, 9, SHAPE).astype(np.int16))
    (tmp_path / "p2" / "t1.nii.gz").unlink()
    found = [(problem.file, problem.value) for problem in check(tmp_path).problems if "same channels" in problem.rule]
    assert found == [("p2", "flair, and most have flair, t1")]
    report = check(tmp_path, skip_incomplete=True)
    assert report.patients == 2
    assert report.remarks == ("cases left out, since they lack a sequence: p2 (no t1)",)
    (tmp_path / "cohort.yaml").write_text("skip_incomplete: true\n")
    assert [case.id for case in open_cohort(tmp_path).cases] == ["p1", "p3"]


def test_archives_among_the_cases_are_said(tmp_path):
    image(tmp_path / "p1" / "flair.nii.gz")
    (tmp_path / "p2.zip").write_bytes(b"PK")
    assert any("packed" in remark and "p2.zip" in remark for remark in check(tmp_path).remarks)


@pytest.mark.parametrize("below", ["", "sub-01/ses-pre", "sub-01/ses-pre/anat"])
def test_visits_of_bids_before_and_after_surgery_are_not_taken_for_sequences(tmp_path, below):
    for visit in ("ses-pre", "ses-post"):
        for suffix in ("T1w", "FLAIR"):
            image(tmp_path / "sub-01" / visit / "anat" / f"sub-01_{visit}_{suffix}.nii.gz")
        image(tmp_path / "sub-01" / visit / "dwi" / f"sub-01_{visit}_dwi.nii.gz")
    cohort = open_cohort(tmp_path / below)
    assert {case.patient for case in cohort.cases} == {"sub-01"}
    assert [case.id for case in cohort.cases] == ["sub-01_ses-post", "sub-01_ses-pre"][1 if below else 0 :]
    assert {cohort.read(case.id).channels for case in cohort.cases} == {("flair", "t1w")}


def test_visits_in_one_folder_of_bids_names_are_apart(tmp_path):
    for visit in ("ses-pre", "ses-post"):
        for suffix in ("T1w", "FLAIR"):
            image(tmp_path / f"sub-01_{visit}_{suffix}.nii.gz")
    assert ids(tmp_path) == [("sub-01_ses-post", "sub-01"), ("sub-01_ses-pre", "sub-01")]
