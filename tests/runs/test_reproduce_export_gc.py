"""What runs leave behind: told again, taken away as files, cleared up."""

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from bundles import changed, describe
from glioflow import bundle
from glioflow.bundle.prediction import Predictor
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.splits import deal, make_split
from glioflow.errors import UserError
from glioflow.models import build_network
from glioflow.progress import quiet
from glioflow.runs.crossval import fold as crossval
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.plan import Plan, plan_of
from glioflow.runs.registry import reproduce as reproducing
from glioflow.runs.registry.cleanup import collect
from glioflow.runs.registry.export import export
from glioflow.runs.registry.register import register
from glioflow.runs.registry.reproduce import reproduce
from glioflow.runs.search.report import PARETO_FRONT
from glioflow.runs.search.searcher import NUMBER
from glioflow.runs.search.trial import TrialPlan, run_trial
from glioflow.runs.train import test_patients as training
from glioflow.runs.train.trained_bundle import send_bundle
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker
from glioflow.tracking import BUNDLE, RunWriter, Tracking
from glioflow.tracking.lease import LEASE, LEASED_BY, lease_tags
from glioflow.tracking.run import begin_run
from glioflow.tracking.spool import run_folder


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "bundle"
    bundle.save(folder, describe(tiny), build_network(tiny.model, in_channels=3, num_outputs=1).state_dict())
    return folder


@pytest.fixture
def start(tracking, tiny, prepared, made):
    """Return a function that logs a run of some kind and end, with working files and, where finished, its bundle."""

    def start(kind="train", status="FINISHED", *, parent=None, dice=None, folder=made, **tags):
        setting = Setting(tiny, prepared, make_split(prepared.records, tiny.split), tracking)
        run_id = begin_run(tracking, opening_of(setting, kind, kind, parent=parent, tags=tags))
        if kind != "search":
            run_folder(run_id).mkdir(parents=True)
            (run_folder(run_id) / "checkpoint").write_bytes(b"x" * 1000)
        if dice is not None:
            tracking.log_metrics(run_id, {"val/dice_mean": dice})
        if status == "FINISHED" and kind != "search":
            tracking.log_folder(run_id, folder, folder=BUNDLE)
        if status != "RUNNING":
            tracking.finish(run_id, status)
        return run_id

    return start


# Export


def test_a_training_that_was_killed_before_its_test_is_resumed_and_not_registered(start, tracking, made):
    run_id = start(status="KILLED")
    with pytest.raises(UserError, match="cannot be downloaded"):
        register(run_id, name="glioma")
    tracking.log_folder(run_id, made, folder=BUNDLE)
    with pytest.raises(UserError, match=rf"only a finished run can be registered.*KILLED.*resume.*{run_id}"):
        register(run_id, name="glioma")
    tracking.finish(run_id)
    assert register(run_id, name="glioma").version == 1


def test_a_training_that_was_killed_after_its_test_is_registered(start, tracking, made):
    run_id = start(status="KILLED")
    tracking.log_metrics(run_id, {"test/dice_mean": 0.5})
    tracking.log_folder(run_id, made, folder=BUNDLE)
    assert register(run_id, name="glioma").version == 1


def test_an_export_is_a_whole_bundle_with_card_and_checksums_that_needs_no_mlflow(start, tracking, tmp_path):
    made = register(start(), name="glioma")
    out = export("glioma/1", tmp_path / "some" / "where")
    assert out == tmp_path / "some" / "where"
    assert {path.name for path in out.iterdir()} == {
        *("model.json", "weights.safetensors", "card.md", "card.html", "SHA256SUMS")
    }
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=False).returncode == 0
    assert "glioma version 1" in (out / "card.md").read_text()
    assert Predictor.load(out).description == Predictor.load(tracking.bundle_of(made)).description


def test_a_zip_holds_the_same_files_as_the_folder(start, tmp_path):
    run_id = start()
    folder, packed = export(run_id, tmp_path / "bundle"), export(run_id, tmp_path / "bundle.zip")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle_folder.iterdir()}
        for bundle_folder in (folder, tmp_path / "unpacked" / "bundle")
    ]
    assert digests[0] == digests[1]
    Predictor.load(tmp_path / "unpacked" / "bundle")


@pytest.mark.parametrize("name", ["there", "there.zip"])
def test_an_export_overwrites_nothing(start, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir() if name == "there" else folder.write_text("mine")
    with pytest.raises(UserError, match="export never overwrites"):
        export(start(), folder)


def test_a_broken_bundle_is_not_exported_and_nothing_is_left(start, made, tmp_path):
    broken = shutil.copytree(made, tmp_path / "broken")
    (broken / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"weights\.safetensors is missing or was changed"):
        export(str(broken), tmp_path / "out" / "bundle.zip")
    assert not (tmp_path / "out").exists()


# gc


def gone(removed):
    return {Path(each.path).name if "/runs/" in each.path else Path(each.path).parent.name for each in removed}


def test_only_what_ended_for_good_is_removed(start, tracking):
    search = start("search", search="one")
    kept = {
        start("train", "RUNNING"),
        start("train", "FAILED"),
        start("train", "KILLED"),
    }
    open_search = start("search", "KILLED", search="two")
    kept |= {start("trial", "FAILED", parent=open_search), start("trial", "KILLED", parent=open_search)}
    waiting = start()
    (run_folder(waiting) / "spool.jsonl").write_text("[]\n")
    removed = {
        start(),
        start("trial", "KILLED", parent=search),
        start("trial", "FAILED", parent=search),
        start("trial", "KILLED", parent=open_search, **{"glioflow.pruned": "true"}),
        start("reproduction", "FAILED"),
    }
    deleted = start()
    tracking.client.delete_run(deleted)
    stranger = run_folder("0" * 32)
    stranger.mkdir()
    collected = collect(dry_run=True)
    assert {Path(each.path).name for each in collected} == removed | {deleted}
    assert all(each.bytes == 1000 and each.why for each in collected)
    assert all(run_folder(run_id).exists() for run_id in removed)
    assert collect() == collected
    assert not any(run_folder(run_id).exists() for run_id in removed | {deleted})
    assert all(run_folder(run_id).exists() for run_id in kept | {waiting})
    assert stranger.exists()
    assert collect() == []


def test_tunes_files_of_a_finished_search_go_and_those_of_one_to_go_on_with_stay(start, home):
    for name, status in (("done", "FINISHED"), ("interrupted", "KILLED"), ("elsewhere", None)):
        (home / "searches" / name / "tune").mkdir(parents=True)
        (home / "searches" / name / "optuna.db").write_text("study")
        if status:
            start("search", status, search=name)
    assert [Path(each.path) for each in collect()] == [home / "searches" / "done" / "tune"]
    assert (home / "searches" / "done" / "optuna.db").exists()
    assert (home / "searches" / "interrupted" / "tune").exists()
    assert (home / "searches" / "elsewhere" / "tune").exists()


def test_of_a_finished_search_the_best_trials_and_the_registered_ones_keep_their_bundles(start, tracking):
    search = start("search", search="one")
    trials = [start("trial", parent=search, dice=dice) for dice in (0.1, 0.9, 0.2, 0.8, 0.3)]
    register(trials[0], name="glioma")
    other = start("search", "KILLED", search="two")
    unfinished = start("trial", parent=other, dice=0.0)
    shutil.rmtree(run_folder("x").parent)
    removed = collect(keep=2)
    assert {each.path.split("/")[-3] for each in removed} == {trials[2], trials[4]}
    assert all(each.bytes > 100_000 for each in removed)
    for run_id in (trials[0], trials[1], trials[3], unfinished):
        assert tracking.has_artifact(run_id, BUNDLE)
    Predictor.load(tracking.bundle_of(tracking.version("glioma", number=1)))


def test_trials_on_the_pareto_front_of_a_search_keep_their_bundles(start, tracking, tmp_path):
    search = start("search", search="one")
    best, small, worse = (start("trial", parent=search, dice=dice) for dice in (0.9, 0.6, 0.7))
    (tmp_path / PARETO_FRONT).write_text(json.dumps([{"trial": 0, "run_id": best}, {"trial": 1, "run_id": small}]))
    tracking.client.log_artifact(search, tmp_path / PARETO_FRONT)
    shutil.rmtree(run_folder("x").parent)
    assert {each.path.split("/")[-3] for each in collect(keep=1)} == {worse}
    assert tracking.has_artifact(small, BUNDLE)


def test_a_search_whose_artifacts_cannot_be_listed_keeps_them_and_stops_nothing_else(start, tracking, monkeypatch):
    away, there = start("search", search="away"), start("search", search="there")
    trials = {search: [start("trial", parent=search, dice=dice) for dice in (0.9, 0.1)] for search in (away, there)}
    shutil.rmtree(run_folder("x").parent)
    listed = Tracking.has_artifact

    def has_artifact(self, run_id, name):
        if run_id in (away, *trials[away]):
            raise OSError("no route to the bucket")
        return listed(self, run_id, name)

    monkeypatch.setattr(Tracking, "has_artifact", has_artifact)
    reports = []
    removed = collect(keep=1, say=lambda text, *_: reports.append(text))
    assert {each.path.split("/")[-3] for each in removed} == {trials[there][1]}
    assert any("no route to the bucket" in text for text in reports)


def test_a_prepared_cohort_goes_when_no_run_recorded_it_and_it_is_not_just_made(start, prepared, home):
    used, unused = (home / "prepared" / name for name in ("used", "unused"))
    for folder in (used, unused):
        shutil.copytree(prepared.path, folder)
    manifest = unused / "manifest.json"
    manifest.write_text(manifest.read_text().replace(prepared.manifest.fingerprint, "f" * 32))
    start("search", "KILLED")
    assert collect() == []
    os.utime(manifest, (0, 0))
    os.utime(used / "manifest.json", (0, 0))
    assert [Path(each.path) for each in collect()] == [unused]
    assert used.exists()


def test_the_cohorts_that_a_running_search_has_yet_to_use_stay(start, tracking, prepared, home):
    from glioflow.runs.search.prepared_variants import VARIANTS

    shutil.copytree(prepared.path, home / "prepared" / "variant")
    fingerprint = prepared.manifest.fingerprint
    run_id = tracking.start("tiny", "s", tags={"glioflow.kind": "search", VARIANTS: f"another {fingerprint}"})
    assert not collect(age_s=0)
    tracking.client.delete_run(run_id)
    assert [Path(each.path).name for each in collect(age_s=0)] == ["variant"]


def test_what_tune_left_of_a_search_goes_once_nobody_runs_it(start, home):
    from glioflow.cluster.lease import holding

    folder = home / "searches" / "s"
    (folder / "tune-20261127-100000-000000" / "trial").mkdir(parents=True)
    start("search", "RUNNING", search="s")
    with holding(folder, "search s"):
        assert not collect(age_s=0)
    assert [Path(each.path).name for each in collect(age_s=0)] == ["tune-20261127-100000-000000"]
    assert folder.is_dir()


def test_a_run_whose_bundle_is_not_in_mlflow_keeps_its_files(start, tracking, made, home):
    def wiped(folder):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    lost, torn, rotten, whole = start(), start(), start(), start()
    wiped(artifacts_of(tracking, lost) / BUNDLE)
    (artifacts_of(tracking, torn) / BUNDLE / "weights.safetensors").write_bytes(b"half")
    weights = artifacts_of(tracking, rotten) / BUNDLE / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")  # of the same size
    for run_id in (lost, torn, rotten, whole):
        shutil.copytree(made, run_folder(run_id) / "bundle")
        (home / "train" / run_id).mkdir(parents=True)
        (home / "train" / run_id / "checkpoint.pt").write_bytes(b"x")
    reports = []
    removed = collect(say=lambda text, *_: reports.append(text))
    assert {Path(each.path).name for each in removed} == {whole}
    for run_id in (lost, torn, rotten):
        assert Predictor.load(run_folder(run_id) / "bundle")
        assert (home / "train" / run_id / "checkpoint.pt").exists()
        assert any(run_id in text and "not in MLflow" in text for text in reports)


def test_the_sum_is_told_before_anything_is_removed(start):
    run_id, seen = start(), []
    collect(say=lambda text, *_: seen.append((text, run_folder(run_id).exists())))
    assert ("1 item of 0.0 MB is removed", True) in seen


def artifacts_of(tracking, run_id):
    return Path(tracking.run(run_id).info.artifact_uri.removeprefix("file://"))


def begun_here(home, run_id, name="one"):
    """Make what the search's own home keeps of it."""
    (home / "searches" / name / "tune").mkdir(parents=True, exist_ok=True)
    (home / "searches" / name / "run_id").write_text(run_id)


@pytest.fixture
def shared(tracking, monkeypatch):
    """Give the tests' store to everybody, as a server is."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    monkeypatch.setattr(Tracking, "embedded", False)


@pytest.mark.usefixtures("shared")
def test_of_a_shared_store_only_this_homes_searches_are_trimmed(start, tracking, home):
    mine, theirs, old = (start("search", search="one") for _ in range(3))
    begun_here(home, mine)
    trials = {
        search: [start("trial", parent=search, dice=dice) for dice in (0.9, 0.1)] for search in (mine, theirs, old)
    }
    shutil.rmtree(home / "runs")
    removed = collect(keep=1)
    assert {each.path.split("/")[-3] for each in removed if each.path.endswith("bundle")} == {trials[mine][1]}
    assert [each.path for each in removed if each.path.endswith("tune")] == [str(home / "searches" / "one" / "tune")]
    for search in (theirs, old):
        assert all(tracking.has_artifact(run_id, BUNDLE) for run_id in trials[search])
    assert collect(keep=1) == []


@pytest.mark.usefixtures("shared")
def test_tunes_files_stay_where_another_search_of_the_name_is_finished(start, home):
    mine = start("search", "KILLED", search="one")
    start("search", search="one")
    begun_here(home, mine)
    assert collect() == []
    assert (home / "searches" / "one" / "tune").is_dir()


@pytest.mark.usefixtures("shared")
def test_a_run_that_somebody_logged_below_this_homes_search_keeps_its_artifacts(start, tracking, home):
    search = start("search", search="one")
    begun_here(home, search)
    start("trial", parent=search, dice=0.9)
    theirs = tracking.start("their own", "a look at the trials", tags={}, parent=search)
    tracking.log_text(theirs, f"{BUNDLE}/notes.txt", "mine")
    tracking.finish(theirs)
    collect(keep=1)
    assert tracking.has_artifact(theirs, BUNDLE)


def test_of_a_shared_store_only_this_homes_abandoned_runs_are_closed(start, tracking, home, shared, monkeypatch):
    mine, theirs, old = (start(status="RUNNING") for _ in range(3))
    for run_id, by in ((mine, lease_tags()[LEASED_BY]), (theirs, "/their/home (0123456789ab)"), (old, "")):
        tracking.set_tags(run_id, {LEASE: "1", **({LEASED_BY: by} if by else {})})
    shutil.copytree(home, home.with_name("moved"))
    monkeypatch.setenv("GLIOFLOW_HOME", str(home.with_name("moved")))
    collect()
    assert [tracking.run(run_id).info.status for run_id in (mine, theirs, old)] == ["KILLED", "RUNNING", "RUNNING"]


@pytest.mark.parametrize("by_run", [True, False])
def test_a_version_of_any_name_keeps_the_bundle_of_its_trial(start, tracking, home, by_run):
    search = start("search", search="one")
    _best, worse = (start("trial", parent=search, dice=dice) for dice in (0.9, 0.1))
    source = f"{tracking.run(worse).info.artifact_uri}/bundle"
    tracking.client.create_registered_model("Team A classifier")
    known = worse if by_run else None
    tracking.client.create_model_version("Team A classifier", source, known, await_creation_for=0)
    shutil.rmtree(home / "runs")
    assert collect(keep=1) == []
    assert tracking.has_artifact(worse, BUNDLE)


def test_a_cohort_that_another_store_uses_stays(start, prepared, home, tmp_path, monkeypatch):
    cohort = home / "prepared" / "shared"
    shutil.copytree(prepared.path, cohort)
    start()
    os.utime(cohort / "manifest.json", (0, 0))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    reports = []
    assert collect(age_s=0, say=lambda text, *_: reports.append(text)) == []
    assert cohort.is_dir()
    assert any("another store" in text for text in reports)
    shutil.rmtree(home / "runs")
    assert collect(age_s=0) == [], "its runs are over, and still recorded"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for run in Tracking().every_run():
        Tracking().client.delete_run(run.info.run_id)
    assert [Path(each.path) for each in collect(age_s=0)] == [cohort]


def test_cohorts_stay_while_the_home_holds_work_of_a_store_that_left_no_note(start, prepared, home):
    cohort = home / "prepared" / "theirs"
    shutil.copytree(prepared.path, cohort)
    os.utime(cohort / "manifest.json", (0, 0))
    run_folder("0" * 32).mkdir(parents=True)  # by an earlier version, in another store
    assert collect() == []
    run_folder("0" * 32).rmdir()
    assert [Path(each.path) for each in collect()] == [cohort]


# Reproduce


@pytest.fixture
def here(monkeypatch):
    """Train in this process: what Ray adds is tested on Ray."""

    def fit(plan, say=quiet):
        writer = RunWriter(plan.tracking_uri, plan.run_id, plan.spool)
        metrics = train_plan(plan, Worker(lambda epoch, metrics, _: writer.write(metrics, step=epoch)))
        send_bundle(plan, writer)
        return metrics

    monkeypatch.setattr(reproducing, "fit_on_train", fit)
    monkeypatch.setattr(reproducing.cluster, "connect", lambda: None)
    monkeypatch.setattr(reproducing, "check_resources", lambda experiment: None)
    scores = training.TestScores({"test/dice_mean": 0.5})
    monkeypatch.setattr(reproducing, "score_test_patients", lambda plan: scores)
    return fit


@pytest.fixture
def steady(tiny, request):
    """Return an experiment that gives the same numbers each time, with other settings of training where given."""
    more = {"deterministic": True, **getattr(request, "param", {})}
    return changed(tiny, training={**tiny.training.model_dump(mode="json"), **more})


@pytest.fixture
def trained(tracking, steady, prepared, here):
    """Return a finished deterministic training."""
    split = make_split(prepared.records, steady.split)
    run_id = begin_run(tracking, opening_of(Setting(steady, prepared, split, tracking), "train", "first"))
    settings = {"experiment": steady, "prepared": prepared.path, "split": split, "run_id": run_id}
    plan = Plan(**settings, tracking_uri=tracking.uri, folder=run_folder(run_id), created="2026-01-01T00:00:00+00:00")
    tracking.log_metrics(run_id, {**here(plan), "test/dice_mean": 0.5})
    tracking.finish(run_id)
    return run_id


def test_a_deterministic_run_comes_out_the_same_to_the_last_digit(trained, tracking):
    done = reproduce(trained)
    assert (done.identical, done.differences, done.environment) == (True, [], [])
    assert done.compared > 20
    again = tracking.run(done.run_id)
    assert again.info.status == "FINISHED"
    assert again.data.tags["glioflow.reproduces"] == trained
    assert again.data.tags["glioflow.identical"] == "true"


@pytest.mark.parametrize("steady", [{"batch_size": "auto"}], indirect=True)
def test_a_batch_size_that_was_found_is_taken_again_whatever_would_fit_now(trained, tracking, monkeypatch):
    monkeypatch.setattr("glioflow.training.fitting.find_batch_size", lambda *_, **__: pytest.fail("it was tried again"))
    done = reproduce(trained)
    assert done.identical
    found = tracking.run(trained).data.metrics["train/batch_size"]
    assert tracking.run(done.run_id).data.params["training.batch_size"] == str(int(found))


def test_a_fold_comes_out_the_same_to_the_last_digit(tracking, steady, prepared, here, monkeypatch):
    score = training._score_in_task
    monkeypatch.setattr(reproducing, "score_test_patients", lambda plan: score(plan.model_dump_json()))
    setting = Setting(steady, prepared, make_split(prepared.records, steady.split), tracking)
    parts = deal(prepared.records, 3, seed=0)
    parent = begin_run(tracking, opening_of(setting, "crossval", "tiny-3-fold"))
    plan = crossval.plan_fold(setting, parent, 1, crossval.fold_split(parts, 1))
    crossval.run_fold(plan)
    done = reproduce(plan.run_id)
    assert (done.identical, done.differences) == (True, [])
    assert tracking.run(done.run_id).data.metrics["test/dice_mean"] >= 0
    assert tracking.read_json(done.run_id, "split.json")["test"] == sorted(parts[1])
    names = sorted(run.info.run_name for run in tracking.every_run())
    assert names == ["fold-01 tiny", "fold-01 tiny-again", "tiny-3-fold"]


def test_a_trial_comes_out_the_same_with_the_parameters_it_was_given(tracking, steady, prepared, here, monkeypatch):
    reports = []
    monkeypatch.setattr("ray.tune.report", lambda metrics, checkpoint=None: reports.append(metrics))
    monkeypatch.setattr("ray.tune.get_checkpoint", lambda: None)
    monkeypatch.setattr("ray.tune.get_context", lambda: SimpleNamespace(get_trial_id=lambda: "x"))
    setting = Setting(steady, prepared, make_split(prepared.records, steady.split), tracking)
    parent = begin_run(tracking, opening_of(setting, "search", "s", tags={"search": "s"}))
    plan = TrialPlan(plan=plan_of(setting, ""), parent=parent, search="s", prepared={})
    run_trial({"training.learning_rate": 0.0123, NUMBER: 7}, plan.model_dump_json())
    (run,) = tracking.children("tiny", parent)
    assert (run.info.run_name, run.info.status, reports[-1]["finished"]) == ("trial-007 s", "FINISHED", True)
    done = reproduce(run.info.run_id)
    assert (done.identical, done.differences) == (True, [])
    assert tracking.run(done.run_id).data.params["training.learning_rate"] == "0.0123"


def test_numbers_that_differ_are_named_with_what_differs_around_them(trained, tracking, monkeypatch):
    tracking.log_metrics(trained, {"val/dice_mean": 0.123}, step=1)
    tracking.set_tags(trained, {"glioflow.source": "another"})
    tracking.log_text(trained, "environment.txt", "# another machine\ntorch==1.0\n")
    done = reproduce(trained)
    assert not done.identical
    named = {(each["what"], each["name"]): each for each in done.differences}
    assert named["metric", "val/dice_mean"]["before"] == 0.123
    assert named["code", "glioflow.source"]["before"] == "another"
    assert named["environment", "torch"]["before"] == "1.0"
    assert named["environment", "machine"]["before"] == "another machine"
    assert not any(what == "weights" for what, _ in named)


def test_what_cannot_be_reproduced_says_why(trained, start, tiny, lgg, tmp_path):
    for run_id, expected in (
        (start("search"), "only a run that trained one network can be reproduced"),
        (start("train", "KILLED"), "only a finished run can be reproduced"),
        ("0" * 32, "no run has the id 0000"),
    ):
        with pytest.raises(UserError, match=expected):
            reproduce(run_id)
    raw = shutil.copytree(lgg, tmp_path / "kaggle_3m")
    shutil.rmtree(next(path for path in sorted(raw.iterdir()) if path.is_dir()))
    other = prepare(open_cohort(raw), tmp_path / "other", tiny.preprocess)
    with pytest.raises(UserError, match=r"the one that the run recorded.*; give that one with data=DIR"):
        reproduce(trained, other.path)
    assert [run for run in Tracking().every_run() if run.data.tags["glioflow.kind"] == "reproduction"] == []
