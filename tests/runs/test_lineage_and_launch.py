"""What every run begins with: its lineage on record, and what cannot work refused before it starts."""

import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml

from bundles import changed
from glioflow import cluster
from glioflow.config import load_experiment, with_augmentation
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.splits import Split, make_split
from glioflow.errors import UserError
from glioflow.runs import launch
from glioflow.runs.crossval.fold import plan_fold, run_fold
from glioflow.runs.crossval.run import crossval
from glioflow.runs.launch import Setting, check_resources, opening_of, to_yaml
from glioflow.runs.plan import plan_of
from glioflow.runs.resuming import resumed_setting
from glioflow.runs.search.run import _open_search, search
from glioflow.runs.search.trial import TrialPlan, open_trial
from glioflow.runs.search.tuner import SearchFolder
from glioflow.runs.train.run import train
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


def test_a_run_says_what_was_chosen_for_its_settings_and_why(setting, tiny):
    parent = begin_run(setting.tracking, opening_of(setting, "crossval", "c"))
    automatic = {**tiny.training.model_dump(mode="json"), "batch_size": "auto", "epochs": 1}
    plan = plan_fold(replace(setting, experiment=changed(tiny, training=automatic)), parent, 0, setting.split)
    run_fold(plan)
    run = setting.tracking.run(plan.run_id)
    said = {key.removeprefix("glioflow.training."): text for key, text in run.data.tags.items() if ".training." in key}
    assert said.pop("data").startswith("disk: the CPU reads ")
    size = int(run.data.metrics["train/batch_size"])
    assert said.pop("batch_size").startswith(f"{size}: a batch is at most 5% of the cohort; ")
    assert said == {"compile": "false: asked for", "cuda_graphs": "false: no GPU"}


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
    written = tracking.read_json(run_id, "cohort.json")
    split = Split.model_validate(tracking.read_json(run_id, "split.json"))
    assert split == setting.split
    assert written == {"path": str(setting.cohort.path), "fingerprint": setting.cohort.manifest.fingerprint}
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


@pytest.mark.parametrize("verb", [train, crossval])
def test_a_run_that_cannot_go_on_is_refused_before_ray_starts(setting, tracking, lgg, monkeypatch, verb):
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("Ray was started"))
    kinds = {each: begin_run(tracking, opening_of(setting, each.__name__, "begun")) for each in (train, crossval)}
    other = changed(setting.experiment, model={"architecture": "unet"})
    with pytest.raises(UserError, match=r"resume.*model\.architecture is \"unet\", was \"buda-unet\""):
        verb(other, lgg, resume=kinds.pop(verb))
    with pytest.raises(UserError, match=r"resume must be the run id of an? "):
        verb(setting.experiment, lgg, resume=next(iter(kinds.values())))


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
    with pytest.raises(UserError, match=r"resume.*model\.architecture is \"fpn\", was \"unet\""):
        resumed_setting(other, run_id)
    assert resumed_setting(setting, run_id).experiment == experiment


def test_a_run_of_the_first_release_goes_on_with_the_augmentation_that_it_meant(tiny, prepared, tracking):
    setting = Setting(tiny, prepared, make_split(prepared.records, tiny.split), tracking)
    run_id = begin_run(tracking, opening_of(setting, "train", "tiny"))
    assert resumed_setting(setting, run_id).experiment.training.sampling.augmentation == "light"
    values = yaml.safe_load(to_yaml(tiny))
    for key in ("cuda_graphs", "data"):  # which the first release did not know
        del values["training"][key]
    tracking.log_text(run_id, "experiment.yaml", yaml.safe_dump(values))
    assert resumed_setting(setting, run_id).experiment.training.sampling.augmentation == "light-0.1"
    other = Setting(with_augmentation(tiny, "strong"), prepared, setting.split, tracking)
    with pytest.raises(UserError, match=r"augmentation is \"strong\", was \"light-0\.1\""):
        resumed_setting(other, run_id)


def test_a_run_does_not_go_on_after_the_cohort_changed(setting, tracking, lgg, tiny, tmp_path):
    run_id = begin_run(tracking, opening_of(setting, "train", "tiny"))
    raw = shutil.copytree(lgg, tmp_path / "kaggle_3m")
    gone = sorted(path for path in raw.iterdir() if path.is_dir())[0]
    shutil.rmtree(gone)
    smaller = prepare(open_cohort(raw), tmp_path / "smaller", tiny.preprocess)
    other = Setting(tiny, smaller, setting.split, tracking)
    with pytest.raises(UserError, match=rf"has changed: the cohort: 1 case gone \({gone.name}\); undo the changes"):
        resumed_setting(other, run_id)
    tracking.log_text(run_id, "split.json", Split(train=("a",), val=("b",), test=("c",)).model_dump_json())
    tracking.log_text(run_id, "cases.json", "{}")
    with pytest.raises(UserError, match=r"the cohort: .*7 cases added"):
        resumed_setting(other, run_id)


def test_a_run_keeps_its_split_and_tells_of_changed_lists(setting, tracking, prepared, tiny):
    ids = [record.id for record in prepared.records]
    recorded = Split(train=tuple(ids[2:6]), val=tuple(ids[:2]), test=tuple(ids[6:]))
    assert recorded != setting.split
    run_id = begin_run(tracking, opening_of(replace(setting, split=recorded), "train", "tiny"))
    assert resumed_setting(setting, run_id).split == recorded
    from_file = replace(setting, experiment=changed(tiny, split={"method": "file", "file": "lists.json"}))
    run_id = begin_run(tracking, opening_of(replace(from_file, split=recorded), "train", "tiny"))
    with pytest.raises(UserError, match=r"the lists in lists\.json"):
        resumed_setting(from_file, run_id)


def test_a_key_that_a_later_version_added_is_no_change_at_its_default(setting, tracking):
    run_id = begin_run(tracking, opening_of(setting, "train", "tiny"))
    written = yaml.safe_load(to_yaml(setting.experiment))
    del written["training"]["ema"], written["gate"]["margin"]
    written["training"]["learning_rate"] = f"{setting.experiment.training.learning_rate:.7f}"
    tracking.log_text(run_id, "experiment.yaml", yaml.safe_dump(written))
    resumed_setting(setting, run_id)


def test_an_experiment_is_written_whole_and_plain(tiny):
    settings = yaml.safe_load(to_yaml(tiny))
    assert settings["training"]["seed"] == 0
    assert list(settings)[:2] == ["name", "description"]


@pytest.mark.parametrize(
    ("training", "have", "expected"),
    [
        (
            {"num_workers": 2, "cpus_per_worker": 3, "batch_size": 4},
            {"CPU": 4.0, "GPU": 0.0},
            "needs 6 CPUs .*a cluster of 4",
        ),
        ({"gpus_per_worker": 1}, {"CPU": 4.0, "GPU": 0.0}, "needs 1 GPUs .*a cluster of 0"),
    ],
)
def test_what_the_cluster_can_never_hold_is_refused_with_the_numbers(tiny, monkeypatch, training, have, expected):
    monkeypatch.setattr(cluster, "resources", lambda: have)
    with pytest.raises(UserError, match=expected):
        check_resources(changed(tiny, training=training))
    check_resources(changed(tiny, training={"cpus_per_worker": 4}))


@pytest.mark.parametrize(
    ("workers", "batch", "expected"),
    [
        (3, 16, "of the 3 workers.*got 16; set it to 15$"),
        (4, 1, "of the 4 workers.*got 1; set it to 4$"),
        ([2, 4], 16, "of every number of workers from 2 to 4.*got 16; set it to 12 or give a smaller range"),
        ([2, 4], 3, "of every number of workers from 2 to 4.*set it to 12"),
        ([1, 3], 9, "of every number of workers from 1 to 3.*set it to 12"),
        ([1, 2], 5, "of every number of workers from 1 to 2.*set it to 4"),
    ],
)
def test_a_batch_that_the_workers_cannot_share_equally_is_refused_before_ray_starts(
    tiny, prepared, tracking, monkeypatch, workers, batch, expected
):
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match=expected):
        launch.open_setting(changed(tiny, training={"num_workers": workers, "batch_size": batch}), prepared.path)


def test_a_batch_that_every_number_of_workers_can_share_is_taken(tiny):
    for workers, batch in ((1, 7), (3, 15), ([2, 4], 24), ([1, 2], 2)):
        training = changed(tiny, training={"num_workers": workers, "batch_size": batch}).training
        launch.check_batch(training, training.batch_size)


@pytest.mark.parametrize(
    "searched",
    [{"kind": "choice", "values": [8, 9]}, {"kind": "int", "low": 8, "high": 16}],
)
def test_a_searched_batch_that_the_workers_cannot_share_is_refused_before_ray_starts(
    tiny, prepared, tracking, monkeypatch, searched
):
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("Ray was started"))
    space = {"space": {"training.batch_size": searched}}
    with pytest.raises(UserError, match=r"of the 2 workers.*got 9; set it to 8"):
        search(changed(tiny, training={"num_workers": 2}, search=space), prepared.path)


def test_workers_that_train_together_do_not_share_a_gpu(tiny):
    with pytest.raises(UserError, match=r"needs a GPU for each; got 0\.5"):
        changed(tiny, training={"num_workers": 2, "gpus_per_worker": 0.5})
    assert changed(tiny, training={"gpus_per_worker": 0.5}).training.gpus_per_worker == 0.5


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
    folder = SearchFolder("one", home / "searches" / "one")
    with _open_search(setting, folder, [], resumed=False) as theirs:
        trial_plan = TrialPlan(plan=plan_of(setting, ""), parent=theirs.run_id, search="one", prepared={})
        their_trial = open_trial(tracking, trial_plan, trial_plan.plan, "0", {})
    with _open_search(setting, folder, [], resumed=False) as mine:
        folder.note_run(mine.run_id)
        own_plan = trial_plan.model_copy(update={"parent": mine.run_id})
        assert open_trial(tracking, own_plan, own_plan.plan, "0", {}) != their_trial
    tracking.start("tiny", "a third person's", tags={"search": "one", "kind": "search"})
    with _open_search(setting, folder, [], resumed=True) as again:
        assert again.run_id == mine.run_id != theirs.run_id
