import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.layouts import LAYOUTS
from glioflow.data.formats.study import open_source, read_study
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.data.preprocessing.geometry_steps import ResizePlane
from glioflow.data.synthetic.layouts import EXAMPLES, synthesize_layout
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation.decoding import decode
from glioflow.evaluation.postprocessing import PostprocessSettings
from glioflow.label_schemes import SCHEMES

BRATS = ("flair", "t1", "t1ce", "t2")
# Set: what check calls it, patients, cases, labels of its masks; where its labels must be said, by which line.
EXPECTED = {
    "brats-2013": ("BraTS 2013 or 2015", 2, 2, "brats-2013", ""),
    "brats-2013-smir": ("BraTS 2013", 2, 2, "brats-2013", ""),
    "brats-2018": ("Brats18", 2, 2, "brats-2021", ""),
    "brats-2023-gli": ("BraTS-GLI", 2, 2, "brats-2023", ""),
    "brats-2023-ssa": ("BraTS-SSA", 2, 2, "brats-2023", ""),
    "brats-2023-men": ("BraTS-MEN", 2, 2, "brats-2023", ""),
    "brats-2023-met": ("BraTS-MET", 2, 2, "brats-2023", ""),
    "brats-2024-gli": ("BraTS-GLI, after treatment", 1, 2, "brats-2024-gli", ""),
    "brats-2024-ped": ("BraTS-PED", 2, 2, "brats-2024-ped", "scheme: brats-2024-ped"),
    "brats-men-rt": ("BraTS-MEN-RT", 2, 2, "brats-men-rt", ""),
    "decathlon": ("nnU-Net or the Decathlon (dataset.json)", 2, 2, "decathlon", ""),
    "ucsf-pdgm": ("UCSF-PDGM", 2, 2, "brats-2021", ""),
    "upenn-gbm": ("UPENN-GBM", 2, 3, "brats-2021", ""),
    "brats-tcga": ("BraTS-TCGA", 2, 2, "brats-2021", ""),
    "rembrandt": ("REMBRANDT", 2, 2, "brats-2021", ""),
    "ucsf-alptdg": ("UCSF-ALPTDG", 1, 2, "brats-2024-gli", ""),
    "ucsd-ptgbm": ("UCSD-PTGBM", 1, 2, "brats-2024-gli", ""),
    "mu-glioma-post": ("MU-Glioma-Post", 1, 2, "brats-2024-gli", ""),
    "rhuh-gbm": ("RHUH-GBM", 1, 2, "brats-2023", "scheme: brats-2023"),
    "lumiere": ("LUMIERE", 1, 2, "brats-2023", "labels: {1: a, 2: b, 3: c}"),
    "egd": ("EGD", 2, 2, "tumor", ""),
    "utsw-glioma": ("UTSW-Glioma", 2, 2, "brats-2021", ""),
    "figshare": ("Figshare's slices", 2, 3, "tumor", ""),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Copies of the sets, made when they are first asked for."""
    root = tmp_path_factory.mktemp("sets")

    def make(name):
        if not (root / name).exists():
            synthesize_layout(name, root / name)
            if line := EXPECTED[name][4]:
                (root / name / "cohort.yaml").write_text(line)
        return root / name

    return make


def test_every_set_that_can_be_drawn_is_tested():
    assert EXPECTED.keys() == EXAMPLES.keys()
    assert {layout.key for layout in LAYOUTS} - {expected[0] for expected in EXPECTED.values()} == {
        "UPENN-GBM, not skull-stripped",
        "UTSW-Glioma, registered with ANTs",
        "BraTS 2013, drawn by a program",
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_a_set_is_read_as_it_was_published(made, name):
    layout, patients, cases, scheme, _ = EXPECTED[name]
    cohort = open_cohort(made(name))
    assert cohort.layout == layout
    assert (len({case.patient for case in cohort.cases}), len(cohort.cases)) == (patients, cases)
    assert cohort.labels.keys() == SCHEMES[scheme].labels.keys()
    case = cohort.read(cohort.cases[0].id)
    assert set(np.unique(case.mask)) == {0, *SCHEMES[scheme].labels}
    assert case.spacing_mm == (None if name == "figshare" else pytest.approx((4, 4, 4)))
    if name not in ("decathlon", "brats-men-rt", "figshare"):
        assert case.channels == BRATS


@pytest.mark.parametrize("name", ["upenn-gbm", "egd", "brats-2013"])
def test_check_says_which_set_it_recognized_and_finds_nothing_wrong(made, name):
    report = check(made(name))
    assert report.layout == EXPECTED[name][0]
    assert report.remarks[0] == f"recognized as {report.layout}"
    assert report.ok, report.problems


@pytest.mark.parametrize("name", ["lumiere", "upenn-gbm"])
def test_a_set_is_checked_under_a_relative_path_too(made, monkeypatch, name):
    monkeypatch.chdir(made(name).parent)
    report = check(Path(name))
    assert report.ok, report.problems


@pytest.mark.parametrize("name", ["rhuh-gbm", "lumiere"])
def test_labels_that_no_source_tells_are_asked_for(made, name, tmp_path):
    copy = shutil.copytree(made(name), tmp_path / name)
    (copy / "cohort.yaml").unlink()
    with pytest.raises(UserError, match=r"cohort\.yaml"):
        open_cohort(copy)


def test_masks_of_several_kinds_are_not_mixed_and_the_kind_is_said(made, tmp_path):
    copy = shutil.copytree(made("upenn-gbm"), tmp_path / "upenn")
    (copy / "images_segm" / "UPENN-GBM-00002_11_segm.nii.gz").unlink()
    cohort = open_cohort(copy)
    assert sum("_segm" in file.name for case in cohort.cases for file in case.files) == 2
    assert not any("automated" in file.name for case in cohort.cases for file in case.files)
    assert "corrected (2 cases), of 3 cases; not used: automated (3 cases)" in cohort.notes[0]
    (copy / "cohort.yaml").write_text("mask_source: automated")
    assert "automated (3 cases), of 3 cases" in open_cohort(copy).notes[0]
    (copy / "cohort.yaml").write_text("mask_source: any")
    assert "automated (1 case), corrected (2 cases)" in open_cohort(copy).notes[0]
    (copy / "cohort.yaml").write_text("mask_source: correct")
    with pytest.raises(UserError, match="corrected"):
        open_cohort(copy)


def test_a_set_that_has_masks_of_another_kind_alone_is_refused_until_a_person_chooses_them(made, tmp_path):
    copy = shutil.copytree(made("brats-tcga"), tmp_path / "tcga")
    for file in copy.rglob("*ManuallyCorrected*"):
        file.unlink()
    with pytest.raises(UserError, match=r"kind corrected.*automated \(2 cases\).*`mask_source: automated`"):
        open_cohort(copy)
    assert len(open_source(copy, masks=False).cases) == 2
    (copy / "cohort.yaml").write_text("mask_source: automated")
    assert "masks: automated (2 cases), of 2 cases" in open_cohort(copy).notes


def test_of_utsw_glioma_one_kind_of_images_is_read_with_the_masks_whose_labels_are_known(made, tmp_path):
    copy = shutil.copytree(made("utsw-glioma"), tmp_path / "utsw")
    for case in (copy / "UTSW-Glioma").iterdir():
        for name in ("flair", "t1", "t1ce", "t2"):
            shutil.copy(case / f"brain_{name}.nii.gz", case / f"brain_{name.replace('flair', 'fl')}_ants.nii.gz")
        shutil.copy(case / "brain_t1.nii.gz", case / "tumorseg_manual_correction.nii.gz")
    report = check(copy)
    assert report.ok, report.problems
    assert (report.layout, report.files["images"][0]) == ("UTSW-Glioma", "brain_flair.nii.gz")
    masks, unread = report.remarks[1:3]
    assert masks.startswith("masks: automated (2 cases), of 2 cases; not used: corrected (2 cases)")
    assert "brain_fl_ants.nii.gz" in unread
    for file in copy.rglob("brain_*.nii.gz"):
        if "_ants" not in file.name:
            file.unlink()
    (copy / "cohort.yaml").write_text("mask_source: corrected")
    cohort = open_cohort(copy)
    assert cohort.layout == "UTSW-Glioma, registered with ANTs"
    assert cohort.read("BT0001").channels == BRATS
    assert cohort.cases[0].files[-1].name == "rtumorseg_manual_correction.nii.gz"


def test_drawn_cases_of_brats_2013_beside_those_of_persons_are_left_out_and_said(made, tmp_path):
    copy = shutil.copytree(made("brats-2013-smir"), tmp_path / "smir")
    drawn = shutil.copytree(copy / "BRATS-2" / "Image_Data", copy / "BRATS-2" / "Synthetic_Data")
    for mask in drawn.rglob("*OT*.mha"):
        mask.rename(mask.with_name("VSD.Gray_matter_of_neuraxis_5more.XX.O.OT.870.mha"))
    cohort = open_cohort(copy)
    assert (cohort.layout, [case.id for case in cohort.cases]) == ("BraTS 2013", ["HG_0001", "LG_0001"])
    assert not any("Synthetic_Data" in file.parts for case in cohort.cases for file in case.files)
    assert any(note.startswith("volumes that are not read") and "6 more" in note for note in cohort.notes)
    with pytest.raises(
        UserError, match=r"cohort\.yaml must say what the labels of BraTS 2013, drawn by a program mean"
    ):
        open_cohort(drawn)


def test_labels_of_another_set_are_refused_by_check_with_what_to_do(made, tmp_path):
    copy = shutil.copytree(made("brats-2023-met"), tmp_path / "set")
    (copy / "cohort.yaml").write_text("scheme: brats-2021")
    problem = check(copy).problems[0]
    assert (problem.value, problem.rule.partition("; ")[2][:22]) == ("[0, 1, 2, 3]", "write `scheme: NAME` i")


@pytest.mark.parametrize(
    ("content", "shown"),
    [(b"", "no bytes"), (b"version https://git-lfs.github.com/spec", "version https://git-lfs"), (b"\xff", "other")],
)
def test_what_is_in_a_file_that_is_no_image_is_shown(made, tmp_path, content, shown):
    copy = shutil.copytree(made("egd"), tmp_path / "egd")
    (copy / "EGD-0001" / "T1.nii.gz").write_bytes(content)
    (problem,) = check(copy).problems
    assert shown in problem.value


def test_two_sets_in_one_folder_are_refused(made, tmp_path):
    shutil.copytree(made("upenn-gbm"), tmp_path / "upenn")
    shutil.copytree(made("brats-2018"), tmp_path / "brats")
    with pytest.raises(UserError, match="one data set; got UPENN-GBM and BraTS"):
        open_cohort(tmp_path)
    shutil.copytree(made("egd"), tmp_path / "brats", dirs_exist_ok=True)
    with pytest.raises(UserError, match="one data set"):
        open_cohort(tmp_path)


@pytest.mark.parametrize("name", ["ucsd-ptgbm", "brats-2018"])
def test_volumes_that_no_case_has_are_counted(made, tmp_path, name):
    copy = shutil.copytree(made(name), tmp_path / "set")
    folder = open_cohort(copy).cases[0].files[0].parent
    for extra in ("ADC", "DTI_FA", "x", "y", "z"):
        shutil.copy(next(folder.glob("*.nii.gz")), folder / f"{folder.name}_{extra}.nii.gz")
    notes = open_cohort(copy).notes
    assert re.search(r"not read, since no case has them: \S+_ADC\.nii\.gz, .* and \d more", notes[-1])


def test_a_mask_beside_a_case_that_no_image_has_is_not_a_case_and_is_said(made, tmp_path):
    copy = shutil.copytree(made("brats-2018"), tmp_path / "set")
    mask = next(copy.rglob("*_seg.nii.gz"))
    shutil.copy(mask, mask.with_name(mask.name.replace("_seg", "_pred_seg")))
    cohort = open_cohort(copy)
    assert len(cohort.cases) == 2
    assert "_pred_seg.nii.gz" in cohort.notes[-1]


def test_visits_are_one_patient(made):
    cohort = open_cohort(made("upenn-gbm"))
    assert [(case.id, case.patient) for case in cohort.cases[:2]] == [
        ("UPENN-GBM-00002_11", "UPENN-GBM-00002"),
        ("UPENN-GBM-00002_21", "UPENN-GBM-00002"),
    ]
    assert open_cohort(made("brats-tcga")).cases[0].institution == "02"


@pytest.mark.parametrize("name", ["upenn-gbm", "brats-tcga", "egd", "utsw-glioma", "brats-2013", "brats-men-rt"])
def test_a_new_study_of_the_set_is_read_alone(made, name):
    images = [file for file in open_cohort(made(name)).cases[0].files if EXPECTED[name][0]]
    named = read_study(images[: len(EXAMPLES[name].names)])
    assert named.channels == tuple(sequence for sequence in BRATS if sequence in EXAMPLES[name].names)


def test_a_case_that_lacks_a_sequence_is_named(made, tmp_path):
    copy = shutil.copytree(made("egd"), tmp_path / "egd")
    (copy / "EGD-0002" / "T1GD.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case EGD-0002 has no t1ce.*skip_incomplete: true"):
        open_cohort(copy)


@pytest.mark.parametrize("name", ["egd", "brats-2018", "nifti"])
def test_a_missing_sequence_is_read_as_0_where_a_person_says_so_and_named(made, tmp_path, name):
    copy = shutil.copytree(made("egd" if name == "nifti" else name), tmp_path / "set")
    if name == "nifti":
        for folder in list(copy.glob("EGD-*")):
            folder.rename(copy / folder.name.replace("EGD-", "p"))
    whole = open_cohort(copy)
    full = whole.read(whole.cases[1].id)
    next(file for file in whole.cases[1].files if re.search("t1(ce|gd)", file.name, re.IGNORECASE)).unlink()
    (copy / "cohort.yaml").write_text("fill_missing: true")
    cohort = open_cohort(copy)
    case = cohort.read(cohort.cases[1].id)
    post = full.channels.index("t1gd" if name == "nifti" else "t1ce")
    assert case.channels == full.channels == cohort.read(cohort.cases[0].id).channels
    assert not case.image[..., post].any()
    assert np.array_equal(np.delete(case.image, post, -1), np.delete(full.image, post, -1))
    assert np.array_equal(case.mask, full.mask)
    assert any(f"{case.id} (no t1" in note for note in cohort.notes)
    assert case.warnings == (f"{case.channels[post]} missing: read as 0",)
    assert check(copy).ok
    (copy / "cohort.yaml").write_text("fill_missing: true\nskip_incomplete: true")
    with pytest.raises(UserError, match="not both"):
        open_cohort(copy)


@pytest.mark.parametrize("name", ["egd", "brats-2018"])
def test_incomplete_cases_are_left_out_where_a_person_says_so_and_named(made, tmp_path, name):
    copy = shutil.copytree(made(name), tmp_path / name)
    gone = open_cohort(copy).cases[1]
    gone.files[2].unlink()
    with pytest.raises(UserError, match="skip_incomplete"):
        open_cohort(copy)
    assert check(copy, skip_incomplete=True).remarks[-1].endswith(f"{gone.id} (no t1ce)")
    (copy / "cohort.yaml").write_text("skip_incomplete: true")
    assert [case.id for case in open_cohort(copy).cases] == [open_cohort(made(name)).cases[0].id]
    report = check(copy)
    assert report.ok, report.problems
    assert f"cases left out, since they lack a sequence: {gone.id} (no t1ce)" in report.remarks


def test_a_packed_file_that_was_unpacked_into_a_folder_of_its_name_is_read(made, tmp_path):
    copy = shutil.copytree(made("brats-2018"), tmp_path / "kaggle")
    for file in list(copy.rglob("*.nii.gz")):
        inner = file.with_name("inner")
        file.rename(inner)
        file.mkdir()
        inner.rename(file / "00000057_brain.nii.gz")
    theirs, ours = open_cohort(copy), open_cohort(made("brats-2018"))
    assert [case.id for case in theirs.cases] == [case.id for case in ours.cases]
    one, other = theirs.read(ours.cases[0].id), ours.read(ours.cases[0].id)
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BraTS2021_Training_Data.tar", "unpack"),
        ("content/data/volume_41_slice_80.h5", "HDF5"),
        ("brainTumorDataPublic_1766/3.mat", "MATLAB"),
        ("cvind.mat", "MATLAB"),
        ("imagesTr/case_0000.bmp", "PNG, without loss"),
        ("brain_tumor/images/2300.png", "lost their patients"),
        ("p1/aseg.mgz", "NIfTI, without loss"),
        ("glioma/Te-gl_0010.jpg", "stored without loss"),
    ],
)
def test_what_cannot_be_read_as_it_is_says_so(tmp_path, name, message):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        open_cohort(tmp_path)


def test_what_lies_around_is_listed_once_and_is_no_case(made, tmp_path):
    copy = shutil.copytree(made("egd"), tmp_path / "egd")
    for name in ("__MACOSX/EGD-0001/._T1.nii.gz", "EGD-0001/._FLAIR.nii.gz", "EGD-0002/Thumbs.db", ".DS_Store"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(b"junk")
    report = check(copy)
    assert report.ok, report.problems
    assert report.patients == 2
    (left_out,) = [remark for remark in report.remarks if "left out" in remark]
    assert all(name in left_out for name in ("__MACOSX", "._FLAIR.nii.gz", "Thumbs.db", ".DS_Store"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data.replace(b"ElementDataFile = LOCAL", b"ElementDataFile = /etc/hosts"), "another file"),
        (lambda data: data.replace(b"DimSize = 32 32 12", b"DimSize = 32000 32000 12"), "voxels"),
        (lambda data: data[:-400], "completely"),
        (lambda data: data[:40], "header"),
    ],
)
def test_a_damaged_or_hostile_metaimage_is_refused(made, tmp_path, damage, message):
    copy = shutil.copytree(made("brats-2013"), tmp_path / "set")
    file = next(copy.rglob("*MR_T1.*.mha"))
    file.write_bytes(damage(file.read_bytes()))
    cohort = open_cohort(copy)
    with pytest.raises(UserError, match=message):
        [cohort.read(case.id) for case in cohort.cases]


# One set of each scheme.
@pytest.mark.parametrize("name", {expected[3]: name for name, expected in EXPECTED.items()}.values())
def test_a_set_is_prepared_for_the_preset_of_its_labels(made, name, tmp_path):
    scheme = EXPECTED[name][3]
    target = TargetSettings.model_validate({"preset": scheme})
    prepared = find_or_prepare(made(name), (ResizePlane(size=32),), home=tmp_path, target=target)
    case = prepared.cases([prepared.records[0].id])[0]
    probabilities = np.moveaxis(target.encode(np.asarray(case.mask)), 0, -1)
    answered = decode(target, PostprocessSettings(), probabilities)
    if scheme == "brats-2013":  # necrosis comes back as non-enhancing tumor
        assert np.array_equal(answered.labels, np.where(case.mask == 1, 3, case.mask))
    else:
        assert np.array_equal(answered.labels, case.mask)
    truth = target.split(np.asarray(case.mask))
    assert all(np.array_equal(answered.parts[part], truth[part]) for part in truth)


def test_a_problem_of_a_set_without_folders_of_cases_names_the_case(made, tmp_path):
    root = shutil.copytree(made("decathlon"), tmp_path / "own")
    case = open_cohort(root).cases[0]
    mask = nibabel.load(case.files[1])
    nibabel.save(nibabel.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), case.files[1])
    (problem,) = check(root).problems
    assert (problem.file, problem.value) == (case.id, "an empty mask")


@pytest.mark.parametrize("name", ["brats-tcga", "mu-glioma-post", "brats-2013"])
def test_check_tells_the_mask_of_a_set_from_its_images(made, name):
    files = check(made(name)).files
    assert (len(files["images"]), len(files["masks"])) == (4, 1)


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected[4]])
def test_nobody_is_asked_for_labels_of_masks_that_are_not_looked_at(made, name, tmp_path):
    copy = shutil.copytree(made(name), tmp_path / name)
    (copy / "cohort.yaml").unlink()
    cohort = open_source(copy, masks=False)
    assert [cohort.read(case.id).mask for case in cohort.cases] == [None, None]
    synthesize_layout(name, tmp_path / "one", patients=1)
    assert read_study(list((tmp_path / "one").rglob("*.nii.gz")), masks=False).mask is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_so_many_persons_are_drawn_as_asked_for(name, tmp_path):
    assert synthesize_layout(name, tmp_path / "set", patients=3, size=16) == (3, 3 * EXAMPLES[name].slices)
    if line := EXPECTED[name][4]:
        (tmp_path / "set" / "cohort.yaml").write_text(line)
    assert len({case.patient for case in open_cohort(tmp_path / "set").cases}) == 3


def test_the_table_of_the_documentation_has_every_set_with_the_preset_of_its_labels():
    page = (Path(__file__).parents[2] / "docs" / "data-sets.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    presets = {name: row[-1] for row in rows if len(row) == 5 for name in re.findall("`([^`]+)`", row[0])}
    assert presets.keys() == {*EXAMPLES, "lgg", "brats"}
    for name, (_, _, _, scheme, expected) in EXPECTED.items():
        assert f"`{scheme}`" in presets[name] or (expected and "`scheme`" in presets[name]), name
        assert ("`scheme`" in presets[name]) == bool(expected), name
