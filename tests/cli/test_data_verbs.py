"""The verbs about cohorts as a person or a script calls them: what they answer, and how they end."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from bundles import changed
from commands import without_waits
from glioflow import cluster
from glioflow.cli import app
from glioflow.cluster.storage import data_source, prepared_home
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.errors import UserError
from glioflow.runs import launch
from servers import reached_bucket

STEPS = """
name: some
preprocess: [{step: unit}, {step: resize, size: 24}]
split: {method: counts, counts: [4, 2, 2]}
training: {epochs: 1}
"""


def data(*words):
    return CliRunner().invoke(app, ["data", *(str(word) for word in words)])


def run_verb(*words, code=0):
    """Call a verb with --json and return what it says."""
    done = data(*words, "--json")
    assert done.exit_code == code, done.output
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def mistake(*words):
    """Call a verb that must refuse, and return its one line."""
    done = data(*words, "--json")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert len(without_waits(done.stderr)) == 1
    return done.stderr


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def own(lgg, tmp_path):
    """A sound cohort of our own to damage, and an image of its first case."""
    root = shutil.copytree(lgg, tmp_path / "lgg")
    return root, sorted(root.glob("*/*_2.tif"))[0]


@pytest.fixture
def steps(experiment_file):
    return experiment_file(STEPS)


@pytest.mark.parametrize(("kind", "size"), [("lgg", 48), ("brats", 40)])
def test_a_synthetic_cohort_is_sound_and_counted(kind, size, tmp_path):
    made = run_verb("synthesize", kind, tmp_path / "out", "--patients", 2, "--seed", 1, "--size", size)
    assert set(made) == {"path", "patients", "slices"}
    found = run_verb("check", tmp_path / "out")
    assert (made["path"], made["patients"], made["slices"]) == (
        str(tmp_path / "out"),
        found["patients"],
        found["slices"],
    )
    assert "new or empty folder" in mistake("synthesize", kind, tmp_path / "out")


def test_a_check_of_a_sound_cohort_ends_well(lgg):
    found = run_verb("check", lgg)
    assert found.keys() >= {"format", "patients", "slices", "positive_slices", "problems", "files"}
    assert (found["format"], found["patients"]) == ("lgg", 8)
    assert 0 < found["positive_slices"] < found["slices"]
    assert all(problem["severity"] == "warning" for problem in found["problems"])


def test_a_check_of_a_damaged_cohort_names_the_file_and_exits_2(own):
    root, path = own
    path.write_bytes(path.read_bytes()[:400])
    problems = [problem for problem in run_verb("check", root, code=2)["problems"] if problem["severity"] == "error"]
    assert [set(problem) for problem in problems] == [{"severity", "file", "rule", "value"}]
    assert problems[0]["file"] == path.relative_to(root).as_posix()
    shown = data("check", root)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "error" in shown.stderr


def test_a_copy_of_flair_is_a_warning_and_no_more(own):
    root, path = own
    for file in path.parent.glob("*[0-9].tif"):
        pixels = tifffile.imread(file)
        pixels[..., 0] = pixels[..., 1]
        tifffile.imwrite(file, pixels, photometric="rgb")
    problems = run_verb("check", root)["problems"]
    assert ("warning", "pre is a copy of flair") in {(problem["severity"], problem["value"]) for problem in problems}


def test_a_cohort_is_prepared_once_and_skipped_the_second_time(lgg, steps, tmp_path):
    made = run_verb("prepare", lgg, tmp_path / "out", "--experiment", steps)
    assert set(made) == {"path", "fingerprint", "patients", "slices", "seconds"}
    cohort = PreparedCohort(tmp_path / "out")
    assert (made["path"], made["fingerprint"]) == (str(tmp_path / "out"), cohort.manifest.fingerprint)
    assert (made["patients"], made["slices"]) == (8, cohort.num_slices)
    before = files_in(tmp_path / "out")
    again = run_verb("prepare", lgg, tmp_path / "out", "--experiment", steps)
    assert {**again, "seconds": 0} == {**made, "seconds": 0}
    assert files_in(tmp_path / "out") == before


def test_a_cohort_is_not_prepared_over_another(lgg, steps, tmp_path):
    run_verb("prepare", lgg, tmp_path / "out", "--experiment", steps)
    before = files_in(tmp_path / "out")
    line = mistake("prepare", lgg, tmp_path / "out", "--experiment", steps, "-o", "preprocess=[{step: unit}]")
    assert "other sources or settings" in line
    assert str(tmp_path / "out") in line
    assert files_in(tmp_path / "out") == before


def test_a_cohort_in_which_every_folder_is_a_case_is_not_prepared_inside_itself(own, steps):
    root, _ = own
    line = mistake("prepare", root, root / "prepared", "--experiment", steps)
    assert f"{root / 'prepared'} lies in the raw cohort, whose files and folders are read as cases" in line
    assert run_verb("prepare", root, root / ".prepared", "--experiment", steps)["patients"] == 8
    assert run_verb("check", root)["patients"] == 8


def test_a_cohort_of_volumes_is_not_prepared_inside_itself_either(steps, tmp_path):
    root = tmp_path / "brats"
    run_verb("synthesize", "brats", root, "--patients", 2, "--size", 40)
    line = mistake("prepare", root, root / "prepared", "--experiment", steps)
    assert f"{root / 'prepared'} lies in the raw cohort, whose files and folders are read as cases" in line
    assert not (root / "prepared").exists()


def test_a_bad_case_leaves_no_prepared_cohort(own, steps, tmp_path):
    root, path = own
    path.write_bytes(b"II*\0")
    assert path.name in mistake("prepare", root, tmp_path / "out", "--experiment", steps)
    assert not (tmp_path / "out").exists()


def test_a_prepared_cohort_of_another_version_is_to_be_made_again(lgg, steps, tmp_path):
    run_verb("prepare", lgg, tmp_path / "out", "--experiment", steps)
    manifest = tmp_path / "out" / "manifest.json"
    reported = json.loads(manifest.read_text())
    # Fields that the other version knows and this one does not must not be what the message speaks of.
    manifest.write_text(json.dumps({**reported, "version": reported["version"] + 1, "novelty": 1}))
    line = mistake("prepare", lgg, tmp_path / "out", "--experiment", steps)
    assert f"version {reported['version'] + 1}, written by a newer GlioFlow" in line
    assert str(tmp_path / "out") in line
    assert "`glioflow data prepare`" in line
    manifest.write_text(json.dumps({"version": 1, "cases": []}))
    assert "an older GlioFlow" in mistake("prepare", lgg, tmp_path / "out", "--experiment", steps)


def test_a_description_is_written_where_it_is_asked_for(lgg, tmp_path):
    made = run_verb("describe", lgg, "--out", tmp_path / "report")
    assert set(made) == {"report", "patients", "slices", "positive_slices"}
    assert made["report"] == str(tmp_path / "report" / "index.html")
    assert "<html" in (tmp_path / "report" / "index.html").read_text()
    counted = run_verb("check", lgg)
    assert {key: made[key] for key in set(made) - {"report"}} == {key: counted[key] for key in set(made) - {"report"}}


def test_a_download_without_a_network_says_what_to_do_instead(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    line = mistake("download", "lgg", tmp_path / "out")
    assert "could not be downloaded from Kaggle" in line
    assert "in a browser, download the data set mateuszbuda/lgg-mri-segmentation" in line
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def bucket():
    with reached_bucket("verbs") as uri:
        yield uri


@pytest.fixture
def one_node(monkeypatch):
    """A cluster that nobody has to start."""
    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(cluster, "resources", lambda: {"CPU": 2.0, "GPU": 0.0, "nodes": 1.0})
    monkeypatch.setattr(launch, "check_resources", lambda *_: None)


@pytest.mark.usefixtures("one_node", "tracking")
def test_a_cohort_prepared_to_a_bucket_is_what_a_run_works_on(lgg, tiny, bucket, experiment_file, home, monkeypatch):
    file = experiment_file(launch.to_yaml(tiny))
    made = run_verb("prepare", lgg, f"{bucket}/lgg", "--experiment", file)
    assert made["path"] == f"{bucket}/lgg"
    shutil.rmtree(prepared_home())  # another machine
    reports = []
    given = launch.open_setting(tiny, f"{bucket}/lgg", say=lambda text, part=None: reports.append(text))
    assert f"cohort {bucket}/lgg" in reports
    assert given.cohort.path == prepared_home() / made["fingerprint"]
    assert np.isfinite(given.cohort.case(given.split.train[0]).image).all()
    named = launch.open_setting(changed(tiny, data={"source": f"{bucket}/lgg"}), None)
    assert named.cohort.manifest == given.cohort.manifest
    with pytest.raises(UserError, match="with the preprocessing it was made with"):
        launch.open_setting(changed(tiny, preprocess=[{"step": "unit"}]), f"{bucket}/lgg")
    with pytest.raises(UserError, match="s3://verbs/nothing"):
        launch.open_setting(tiny, f"{bucket}/nothing")


@pytest.mark.usefixtures("one_node", "tracking")
def test_every_verb_takes_a_uri_with_both_its_slashes(tmp_path, experiment_file, lgg):
    uri = f"file://{tmp_path}/nothing"
    file = experiment_file(STEPS)
    for words in (
        *([verb, str(file), "--data", uri] for verb in ("train", "crossval")),
        ["search", str(file), "--data", uri, "-o", "search.space={loss.name: {kind: choice, values: [bce, dice]}}"],
        ["train", str(file), "-o", f"data.source={uri}"],
        ["promote", "glioma", "--data", uri],
        ["associate", uri, "--clinical", str(lgg / "data.csv")],
        ["survival", "fit", uri, "--clinical", str(lgg / "data.csv"), "--masks", "manual"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2, (words, done.output, done.exception)
        assert uri in done.stderr, words
        assert "`glioflow data prepare SOURCE URI`" in done.stderr, words


@pytest.mark.parametrize("words", [["check"], ["describe", "--out", "o"], ["prepare", "o"]])
def test_what_reads_original_files_says_that_none_lie_at_a_uri(words):
    done = data(words[0], "s3://bucket/cohort", *words[1:])
    assert done.exit_code == 2
    assert "original files of a cohort, not a prepared cohort" in done.stderr
    assert "got s3://bucket/cohort" in done.stderr


def test_an_evaluation_takes_a_uri_too(tmp_path, lgg, tiny, experiment_file, monkeypatch):
    from glioflow.api import evaluation

    uri = f"file://{tmp_path}/shared"
    run_verb("prepare", lgg, uri, "--experiment", experiment_file(launch.to_yaml(tiny)))
    opened = []

    def stand_in(model, source, **options):
        opened.append(launch.open_cohort_for(tiny.preprocess, source, tiny.target))
        raise UserError("enough")

    monkeypatch.setattr(evaluation, "evaluate_model", stand_in)
    assert CliRunner().invoke(app, ["evaluate", "model", uri]).exit_code == 2
    assert len(opened[0].records) == 8


def test_a_uri_is_not_looked_for_on_disk():
    assert data_source("s3://bucket/cohort", "other") == "s3://bucket/cohort"
    assert data_source(None, "s3://bucket/cohort") == "s3://bucket/cohort"
