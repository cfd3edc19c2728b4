"""Studies to answers on disk, as `glioflow predict` writes them."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from bundles import changed, describe
from data.dicom_series import write_series
from glioflow import bundle
from glioflow.api.answer_folder import predict_studies
from glioflow.cli import app
from glioflow.errors import UserError
from glioflow.models import build_network


def quiet(*_):
    pass


@pytest.fixture
def model(tiny, tmp_path):
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    bundle.save(tmp_path / "model", describe(tiny), network.state_dict())
    return str(tmp_path / "model")


def test_a_folder_of_many_studies_is_answered_study_by_study(model, lgg, tmp_path):
    cases = sorted(path.name for path in lgg.iterdir() if path.is_dir())
    reports = []
    done = predict_studies(model, [lgg], tmp_path / "out", say=lambda *args: reports.append(args[1])).studies
    assert [each["id"] for each in done] == cases
    assert reports[-1] == 1
    for case in cases:
        answer = json.loads((tmp_path / "out" / case / "answer.json").read_text())
        masks = sorted((tmp_path / "out" / case).rglob("*_mask.tif"))
        assert len(masks) == len(answer["study"]["slices"])
        assert tifffile.imread(masks[0]).shape == (48, 48)


def test_what_people_read_about_answers_is_a_short_table(model, lgg, tmp_path, capsys):
    runner = CliRunner().invoke(app, ["predict", model, str(lgg), "--out", str(tmp_path / "out")])
    assert runner.exit_code == 0, runner.output
    shown = runner.output + capsys.readouterr().out
    assert "tumor in slices" in shown
    assert "{" not in shown
    assert all(path.name in shown for path in lgg.iterdir() if path.is_dir())


def test_every_label_of_a_dicom_study_is_a_segment_of_what_is_written(tiny, tmp_path):
    import highdicom
    import torch

    experiment = changed(tiny, target={"kind": "multiclass", "labels": [1, 2, 4]}, loss={"name": "cross_entropy"})
    network = build_network(experiment.model, in_channels=1, num_outputs=4)
    with torch.no_grad():
        list(network.parameters())[-1].copy_(torch.tensor([0.0, 0, 0, 90]))  # label 4 everywhere
    description = describe(experiment, channels=("flair",), network_channels=("flair",))
    bundle.save(tmp_path / "model", description, network.state_dict())
    write_series(tmp_path / "study", np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.uint16))
    done = predict_studies(str(tmp_path / "model"), [tmp_path / "study"], tmp_path / "out", say=quiet).studies
    written = highdicom.seg.segread(done[0]["mask"])
    names = [written.get_segment_description(number).segment_label for number in written.segment_numbers]
    assert names == ["label_1", "label_2", "label_4"]
    assert (written.get_volume(combine_segments=True).array == 3).all()


@pytest.fixture
def volumes(tiny, tmp_path):
    """Give a model for one modality, and two studies of the same name at two sites."""
    network = build_network(tiny.model, in_channels=1, num_outputs=1)
    description = describe(tiny, channels=("image",), network_channels=("image",))
    bundle.save(tmp_path / "flair", description, network.state_dict())
    studies = [tmp_path / site / "scan" for site in ("siteA", "siteB")]
    for number, study in enumerate(studies):
        study.mkdir(parents=True)
        image = np.random.default_rng(number).uniform(0, 255, (20, 16, 3 + number)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), study / "scan.nii.gz")
    return str(tmp_path / "flair"), studies


def depth_of(mask):
    return nibabel.load(mask).shape[2]


def test_studies_of_the_same_name_get_answers_of_their_own(volumes, tmp_path):
    model, studies = volumes
    done = predict_studies(model, [*studies, studies[0]], tmp_path / "out", say=quiet).studies
    assert [each["id"] for each in done] == ["siteA_scan", "siteB_scan"], "and a study given twice is answered once"
    assert [depth_of(each["mask"]) for each in done] == [3, 4]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["siteA_scan", "siteB_scan"]


def test_failed_studies_of_the_same_name_are_told_apart(volumes, tmp_path):
    model, studies = volumes
    for study in studies:
        (study / "scan.nii.gz").write_bytes(b"no volume")
    done = predict_studies(model, studies, tmp_path / "out", say=quiet)
    assert [each["study"] for each in done.failed] == ["siteA_scan", "siteB_scan"]


def test_names_that_differ_by_case_alone_are_told_apart_or_refused_before_any_work(volumes, tmp_path):
    model, (first, second) = volumes
    done = predict_studies(model, [first, second.rename(second.with_name("SCAN"))], tmp_path / "out", say=quiet).studies
    assert len({each["id"].lower() for each in done}) == 2
    alike = [shutil.copy(first / "scan.nii.gz", tmp_path / name) for name in ("X.nii.gz", "x.nii.gz")]
    with pytest.raises(UserError, match="names that differ by more than case"):
        predict_studies("nowhere", alike, tmp_path / "none", say=quiet)
    assert not (tmp_path / "none").exists()


def test_an_answer_that_a_killed_process_left_half_written_is_written_anew(volumes, tmp_path):
    model, (first, _) = volumes
    (done,) = predict_studies(model, [first], tmp_path / "out", say=quiet).studies
    Path(done["answer"]).unlink()
    Path(done["mask"]).with_name(".scan_mask.nii.gz.x1y2").write_text("half")
    (again,) = predict_studies(model, [first], tmp_path / "out", overwrite=True, say=quiet).studies
    assert again["mask"] == done["mask"]
    assert Path(again["answer"]).is_file()


def test_files_of_the_same_name_get_answers_of_their_own(volumes, tmp_path):
    model, studies = volumes
    files = [next(study.iterdir()) for study in studies]
    done = predict_studies(model, files, tmp_path / "out", say=quiet).studies
    assert len({each["mask"] for each in done}) == 2
    assert [depth_of(each["mask"]) for each in done] == [3, 4]


def test_an_answer_is_replaced_only_where_that_is_asked_for(volumes, tmp_path):
    model, (first, second) = volumes
    (before,) = predict_studies(model, [first], tmp_path / "out", say=quiet).studies
    (tmp_path / "out" / "scan" / "my notes.txt").write_text("mine")
    with pytest.raises(
        UserError, match="already holds an answer; give overwrite=True"
    ):  # before any model is looked for
        predict_studies("nowhere", [second], tmp_path / "out", say=quiet)
    assert depth_of(before["mask"]) == 3
    (after,) = predict_studies(model, [second], tmp_path / "out", overwrite=True, say=quiet).studies
    assert (after["mask"], depth_of(after["mask"])) == (before["mask"], 4)
    assert (tmp_path / "out" / "scan" / "my notes.txt").read_text() == "mine"


def test_an_answer_in_another_format_leaves_no_mask_of_the_earlier_one(model, volumes, lgg, tmp_path):
    flair, (volume, _) = volumes
    slices = shutil.copytree(next(path for path in sorted(lgg.iterdir()) if path.is_dir()), tmp_path / "lgg" / "scan")
    for number, file in enumerate(sorted(slices.iterdir())):
        file.rename(slices / f"scan_{number // 2}{'_mask' * ('mask' in file.name)}.tif")
    alone = shutil.copy(slices / "scan_0.tif", tmp_path / "lgg" / "scan.tif")
    out = tmp_path / "out"
    for network, study in ((flair, volume), (model, slices), (model, alone), (flair, volume)):
        (done,) = predict_studies(network, [study], out, overwrite=True, say=quiet).studies
        (out / "scan" / "scan_reviewed_mask.tif").write_text("mine")
        kept = {path.name for path in (out / "scan").iterdir()}
        assert kept == {"answer.json", "scan_reviewed_mask.tif", Path(done["mask"]).name}


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_answer_is_written_where_studies_lie(volumes, lgg, tmp_path, overwrite):
    cohort, case = tmp_path / "cohort", next(path for path in sorted(lgg.iterdir()) if path.is_dir())
    shutil.copytree(case, cohort / case.name)
    (cohort / "scan").mkdir()
    (cohort / "scan" / "scan_t1.nii.gz").write_bytes(b"somebody's")
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    for study in (cohort / case.name, volumes[1][0]):  # its own folder, and that of another study of the name
        with pytest.raises(UserError, match="must be new or hold an earlier answer, but it holds other files"):
            predict_studies("nowhere", [study], cohort, overwrite=overwrite, say=quiet)
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before


@pytest.mark.parametrize("below", [".", "answers"])
def test_no_answer_is_written_among_the_files_of_what_is_read(lgg, tmp_path, below):
    case = shutil.copytree(next(path for path in sorted(lgg.iterdir()) if path.is_dir()), tmp_path / "case")
    with pytest.raises(UserError, match="out must not be in the study's folder"):
        predict_studies("nowhere", [case], case / below, say=quiet)
    assert all(path.is_file() for path in case.iterdir())


def test_slices_are_replaced_as_volumes_are(model, lgg, tmp_path):
    case = next(path for path in sorted(lgg.iterdir()) if path.is_dir())
    for overwrite in (False, True):
        (done,) = predict_studies(model, [case], tmp_path / "out", overwrite=overwrite, say=quiet).studies
    with pytest.raises(UserError, match="overwrite=True"):
        predict_studies(model, [case], tmp_path / "out", say=quiet)
    assert len(list((tmp_path / "out" / case.name).rglob("*_mask.tif"))) > 1
    assert json.loads(Path(done["answer"]).read_text())["study"]["id"] == case.name


def test_a_study_that_cannot_be_read_does_not_stop_the_others(volumes, tmp_path, capsys):
    model, studies = volumes
    broken = tmp_path / "broken_flair.nii.gz"
    broken.write_bytes(b"no volume")
    (tmp_path / "empty").mkdir()
    done = predict_studies(model, [broken, *studies, tmp_path / "empty"], tmp_path / "out", say=quiet)
    assert [each["id"] for each in done.studies] == ["siteA_scan", "siteB_scan"]
    assert {each["study"].rpartition("/")[2]: bool(each["error"]) for each in done.failed} == {
        "empty": True,
        "broken_flair": True,
    }
    with pytest.raises(UserError, match="broken_flair"):  # a lone one is read before any model is looked for
        predict_studies("nowhere", [broken], tmp_path / "out", say=quiet)
    words = ["predict", model, str(broken), str(studies[0]), "--out", str(tmp_path / "other"), "--json"]
    with pytest.raises(SystemExit) as end:
        app(words, standalone_mode=False)
    out, err = capsys.readouterr()
    assert end.value.code == 1
    answered = json.loads(out.splitlines()[-1])
    assert ([each["id"] for each in answered["studies"]], len(answered["failed"])) == (["scan"], 1)
    assert "broken_flair" in err
    assert err.splitlines()[-1] == "failed: 1 of 2 studies have no answer"


def zipped(studies):
    for study in studies:
        shutil.make_archive(str(study), "zip", study.parent, "scan")
    return [study.with_suffix(".zip") for study in studies]


def test_a_file_where_an_answer_would_lie_is_refused_before_any_work(volumes, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan").write_text("mine")
    with pytest.raises(UserError, match=r"out must name a folder, not a file; got .*scan"):
        predict_studies("nowhere", [volumes[1][0]], tmp_path / "out", overwrite=True, say=quiet)
    assert (tmp_path / "out" / "scan").read_text() == "mine"


def test_zips_of_studies_of_the_same_name_get_answers_of_their_own(volumes, tmp_path):
    model, studies = volumes
    done = predict_studies(model, zipped(studies), tmp_path / "out", say=quiet)
    assert ([each["id"] for each in done.studies], done.failed) == (["siteA_scan", "siteB_scan"], [])
    assert [depth_of(each["mask"]) for each in done.studies] == [3, 4]


def test_a_zip_of_a_study_that_has_an_answer_is_refused_before_any_work(volumes, tmp_path):
    model, studies = volumes
    first, second = zipped(studies)
    predict_studies(model, [first], tmp_path / "out", say=quiet)
    with pytest.raises(UserError, match="already holds an answer; give overwrite=True"):
        predict_studies("nowhere", [second], tmp_path / "out", say=quiet)
    (after,) = predict_studies(model, [second], tmp_path / "out", overwrite=True, say=quiet).studies
    assert depth_of(after["mask"]) == 4


def test_a_zip_of_dicom_takes_the_choice_of_a_channel_and_gets_a_segmentation(tiny, tmp_path):
    network = build_network(tiny.model, in_channels=1, num_outputs=1)
    description = describe(tiny, channels=("flair",), network_channels=("flair",))
    bundle.save(tmp_path / "model", description, network.state_dict())
    for number, text in enumerate(("AX FLAIR", "COR FLAIR"), start=1):
        volume = np.full((4, 16, 16), number, np.uint16)
        write_series(tmp_path / "study" / str(number), volume, description=text, number=number)
    archive = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "study"))
    with pytest.raises(UserError, match="2 series of the study are flair"):
        predict_studies(str(tmp_path / "model"), [archive], tmp_path / "out", say=quiet)
    reported = ["flair=COR FLAIR"]
    (done,) = predict_studies(
        str(tmp_path / "model"), [archive], tmp_path / "out", channels=reported, say=quiet
    ).studies
    assert done["mask"].endswith("_mask.dcm")
