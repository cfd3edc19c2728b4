"""What every run begins with: its lineage on record, and what cannot work refused before it starts."""

import subprocess

import pytest
import yaml

from bundles import changed
from glioflow import cluster
from glioflow.config import load_experiment
from glioflow.data.splits import Split, make_split
from glioflow.errors import UserError
from glioflow.runs import launch
from glioflow.runs.launch import Setting, check_resources, opening_of, to_yaml
from glioflow.runs.plan import plan_of
from glioflow.runs.search.run import _open_search
from glioflow.runs.search.trial import TrialPlan, open_trial
from glioflow.runs.search.tuner import Place
from glioflow.runs.train.run import _check_resumable
from glioflow.tracking import lineage
from glioflow.tracking.run import begin_run


@pytest.fixture
def setting(tiny, prepared, tracking):
    return Setting(tiny, prepared, make_split(prepared.records, tiny.split), tracking)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a small package in the place of ours."""
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "module.py").write_text("x = 1\n")
    monkeypatch.setattr(lineage, "PACKAGE", folder)
    lineage.source_state.cache_clear()
    yield folder
    lineage.source_state.cache_clear()


def git(folder, *words):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_the_source_digest_changes_with_any_file_and_its_name(package):
    first = lineage.source_digest()
    assert first == lineage.source_digest()
    (package / "module.py").write_text("x = 2\n")
    second = lineage.source_digest()
    (package / "module.py").rename(package / "other.py")
    assert len({first, second, lineage.source_digest()}) == 3


def test_without_a_repository_the_source_digest_stands_alone(package, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(package.parent.parent))
    state = lineage.source_state()
    assert state.tags == {"glioflow.source": lineage.source_digest()}
    assert state.diff == ""


def test_commit_and_what_was_not_committed_are_on_record(package):
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "first")
    clean = lineage.source_state()
    assert len(clean.tags["mlflow.source.git.commit"]) == 40
    assert (clean.tags["glioflow.dirty"], clean.diff) == ("false", "")
    lineage.source_state.cache_clear()
    (package / "module.py").write_text("x = 2\n")
    dirty = lineage.source_state()
    assert dirty.tags["glioflow.dirty"] == "true"
    assert "+x = 2" in dirty.diff


def test_without_git_a_run_still_starts(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert set(lineage.source_state().tags) == {"glioflow.source"}


def test_a_run_records_experiment_split_cohort_and_code(setting, tracking, tmp_path):
    run_id = begin_run(tracking, opening_of(setting, "train", "a training", tags={"more": "x"}))
    run = tracking.run(run_id)
    tags = run.data.tags
    assert tags["glioflow.kind"] == "train"
    assert tags["glioflow.cohort"] == setting.cohort.manifest.fingerprint
    assert tags["glioflow.cohort_source"] == setting.cohort.manifest.source_fingerprint
    assert (tags["glioflow.split"], tags["glioflow.test"]) == (setting.split.digest, setting.split.test_digest)
    assert tags["glioflow.source"] == lineage.source_digest()
    assert tags["more"] == "x"
    assert run.data.params["model.architecture"] == "buda-unet"
    assert not any(key.startswith(("search.", "gate.")) for key in run.data.params)
    said = tracking.read_json(run_id, "cohort.json")
    split = Split.model_validate(tracking.read_json(run_id, "split.json"))
    assert split == setting.split
    assert said == {"path": str(setting.cohort.path), "fingerprint": setting.cohort.manifest.fingerprint}
    recorded = tmp_path / "recorded.yaml"
    recorded.write_text(tracking.download(f"runs:/{run_id}/experiment.yaml").read_text())
    assert load_experiment(recorded) == setting.experiment


def test_a_child_can_be_run_again_and_leaves_the_environment_to_its_parent(setting, tracking):
    parent = begin_run(tracking, opening_of(setting, "search", "a search"))
    child = begin_run(tracking, opening_of(setting, "trial", "a trial", parent=parent))
    assert tracking.has_artifact(child, "split.json")
    assert tracking.has_artifact(parent, "environment.txt")
    assert not tracking.has_artifact(child, "environment.txt")
    assert [found.info.run_id for found in tracking.children("tiny", parent)] == [child]


@pytest.mark.parametrize("recorded", ["as given", "as older versions wrote it"])
def test_a_run_resumes_with_its_own_experiment_only(tiny, prepared, tracking, recorded):
    experiment = changed(tiny, model={"architecture": "unet"})
    setting = Setting(experiment, prepared, make_split(prepared.records, tiny.split), tracking)
    run_id = begin_run(tracking, opening_of(setting, "train", "tiny"))
    assert tracking.run(run_id).data.params["model.encoder"] == "resnet18"
    if recorded != "as given":
        tracking.log_text(run_id, "experiment.yaml", to_yaml(experiment.resolved))
    tracking.finish(run_id, "KILLED")
    other = Setting(changed(experiment, model={"architecture": "fpn"}), prepared, setting.split, tracking)
    with pytest.raises(UserError, match="--resume"):
        _check_resumable(other, run_id)
    _check_resumable(setting, run_id)


def test_an_experiment_is_written_whole_and_plain(tiny):
    said = yaml.safe_load(to_yaml(tiny))
    assert said["training"]["seed"] == 0
    assert list(said)[:2] == ["name", "description"]


@pytest.mark.parametrize(
    ("training", "have", "said"),
    [
        ({"num_workers": 3, "cpus_per_worker": 2}, {"CPU": 4.0, "GPU": 0.0}, "needs 6 CPUs .*a cluster of 4"),
        ({"gpus_per_worker": 1}, {"CPU": 4.0, "GPU": 0.0}, "needs 1 GPUs .*a cluster of 0"),
    ],
)
def test_what_the_cluster_can_never_hold_is_refused_with_the_numbers(tiny, monkeypatch, training, have, said):
    monkeypatch.setattr(cluster, "resources", lambda: have)
    with pytest.raises(UserError, match=said):
        check_resources(changed(tiny, training=training))
    check_resources(changed(tiny, training={"cpus_per_worker": 4}))


def test_several_nodes_need_a_tracking_server(tiny, prepared, tracking, monkeypatch):
    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(cluster, "resources", lambda: {"CPU": 8.0, "GPU": 0.0, "nodes": 2.0})
    with pytest.raises(UserError, match="on more than one node MLFLOW_TRACKING_URI must name a server"):
        launch.open_setting(tiny, prepared.path)


def test_a_split_that_leaks_starts_nothing(tiny, prepared, tracking, monkeypatch, tmp_path):
    from glioflow.data.splits import Split

    ids = [record.id for record in prepared.records]
    split = Split(train=tuple(ids[:5]), val=(ids[5],), test=(ids[0],))
    (tmp_path / "split.json").write_text(split.model_dump_json())
    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(cluster, "resources", lambda: {"CPU": 8.0, "GPU": 0.0, "nodes": 1.0})
    leaking = changed(tiny, split={"method": "file", "file": str(tmp_path / "split.json")})
    with pytest.raises(UserError, match="one part of the split"):
        launch.open_setting(leaking, prepared.path)
    assert tracking.client.get_experiment_by_name("tiny") is None


def test_a_search_never_goes_on_in_a_run_of_somebody_elses_search_of_the_same_name(setting, tracking, home):
    place = Place("one", home / "searches" / "one")
    with _open_search(setting, place, [], resumed=False) as theirs:
        trial_plan = TrialPlan(plan=plan_of(setting, ""), parent=theirs.run_id, search="one", prepared={})
        their_trial = open_trial(tracking, trial_plan, trial_plan.plan, "0", {})
    with _open_search(setting, place, [], resumed=False) as mine:
        place.note_run(mine.run_id)
        own_plan = trial_plan.model_copy(update={"parent": mine.run_id})
        assert open_trial(tracking, own_plan, own_plan.plan, "0", {}) != their_trial
    tracking.start("tiny", "a third person's", tags={"search": "one", "kind": "search"})
    with _open_search(setting, place, [], resumed=True) as again:
        assert again.run_id == mine.run_id != theirs.run_id
