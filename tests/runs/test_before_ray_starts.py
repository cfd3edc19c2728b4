"""What is known of a run before Ray starts: nothing starts for a cohort, a step, a file or a home that cannot do."""

import os
import shutil

import pytest

import glioflow as gf
from bundles import changed
from glioflow import cluster
from glioflow.cluster.remote_home import check_home
from glioflow.config import override
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.splits import make_split
from glioflow.errors import UserError
from glioflow.runs import launch
from glioflow.runs.analysis.audit import audit_experiment
from glioflow.runs.crossval.run import crossval
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.search.run import search
from glioflow.runs.search.tuner import SearchFolder
from glioflow.runs.train.run import train
from glioflow.tracking.run import begin_run

VERBS = {"train": train, "crossval": crossval, "search": search}
RATE = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def searched(tiny):
    return override(tiny, {"search": {"name": "s", "space": RATE}})


@pytest.fixture
def begin(searched, prepared, tracking, home):
    """Return a function that leaves an interrupted run of a verb behind, and returns what `resume` takes."""

    def run(verb, experiment):
        setting = Setting(experiment, prepared, make_split(prepared.entries(), experiment.split), tracking)
        tags = {"glioflow.folds": "3", "glioflow.held_out": "false"}
        run_id = begin_run(tracking, opening_of(setting, verb, "begun", tags=tags))
        tracking.finish(run_id, "KILLED")
        if verb != "search":
            return run_id
        folder = SearchFolder("s", home / "searches" / "s")
        folder.note_run(run_id)
        return "s"

    return run


def add_patient(cohort):
    last = sorted(path for path in cohort.iterdir() if path.is_dir())[-1]
    new = shutil.copytree(last, cohort / "TCGA_ZZ_9999_20000101")
    for path in new.iterdir():
        path.rename(path.with_name(path.name.replace(last.name, new.name)))


def remove_patient(cohort):
    shutil.rmtree(sorted(path for path in cohort.iterdir() if path.is_dir())[0])


def change_image(cohort):
    images = sorted(path for path in cohort.rglob("*.tif") if "_mask" not in path.name)
    images[0].write_bytes(images[1].read_bytes())


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add_patient, r"the cohort: 1 case added \(TCGA_ZZ_9999_20000101\)"),
        (remove_patient, r"the cohort: 1 case gone \(TCGA_"),
        (change_image, "the cohort: other files"),
    ],
)
def test_a_changed_cohort_is_named_before_ray_starts(begin, searched, lgg, tmp_path, verb, change, expected):
    resume = begin(verb, searched)
    cohort = shutil.copytree(lgg, tmp_path / "kaggle_3m")
    change(cohort)
    with pytest.raises(UserError, match=f"this has changed: {expected}"):
        VERBS[verb](searched, cohort, resume=resume)


def test_other_lists_of_a_split_are_named_before_ray_starts(begin, searched, prepared, lgg, tmp_path):
    file = tmp_path / "split.json"
    lists = make_split(prepared.entries(), searched.split)
    experiment = override(searched, {"split": {"method": "file", "file": str(file)}})
    file.write_text(lists.model_dump_json())
    resume = begin("train", experiment)
    file.write_text(lists.model_copy(update={"val": lists.test, "test": lists.val}).model_dump_json())
    with pytest.raises(UserError, match=r"this has changed: the lists in .*split\.json"):
        train(experiment, lgg, resume=resume)


@pytest.mark.parametrize("verb", VERBS)
def test_other_weights_in_the_file_of_the_same_name_are_named_before_ray_starts(begin, searched, lgg, tmp_path, verb):
    file = tmp_path / "start.safetensors"
    file.write_bytes(b"the first")
    experiment = override(searched, {"training.start": str(file)})
    resume = begin(verb, experiment)
    file.write_bytes(b"another")
    with pytest.raises(UserError, match=r"this has changed: the file of training\.start"):
        VERBS[verb](experiment, lgg, resume=resume)


@pytest.mark.parametrize("key", ["training.start", "model.weights", "model"])
def test_a_weights_file_in_a_search_space_is_missed_and_followed_before_ray_starts(begin, searched, lgg, tmp_path, key):
    file = tmp_path / "a.safetensors"
    value = {"architecture": "unet", "weights": str(file)} if key == "model" else str(file)
    space = {key: {"kind": "choice", "values": [value]}}
    experiment = override(searched, {"search.space": space})
    with pytest.raises(UserError, match=r"search\.space: the weights file .*a\.safetensors does not exist"):
        search(experiment, lgg)
    file.write_bytes(b"the first")
    resume = begin("search", experiment)
    file.write_bytes(b"another")
    named = "training.start" if key == "training.start" else "model.weights"
    with pytest.raises(UserError, match=rf"this has changed: the file of {named} in search\.space"):
        search(experiment, lgg, resume=resume)


def test_other_folds_and_a_finished_training_are_named_before_ray_starts(begin, searched, lgg, tracking, tmp_path):
    with pytest.raises(UserError, match=r"began with other glioflow\.folds"):
        crossval(searched, lgg, folds=4, resume=begin("crossval", searched))
    with pytest.raises(UserError, match="at least 3 folds; got 2"):
        crossval(override(searched, {"split": {"method": "counts", "counts": [4, 2, 2], "folds": 2}}), lgg)
    run_id = begin("train", searched)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.json").write_text("{}")
    tracking.log_folder(run_id, tmp_path / "bundle", folder="bundle")
    tracking.log_metrics(run_id, {"test/dice_mean": 0.5})
    with pytest.raises(UserError, match="the id of an unfinished run"):
        train(searched, lgg, resume=run_id)


# Steps that no case of the LGG cohort allows, and what their one line says.
STEPS = {
    "unknown channel 't2'": {"step": "channels", "keep": ["t2"]},
    r"nowhere\.nii does not exist.*beside the files": {"step": "brain_mask", "file": "nowhere.nii"},
    "keeps the slices 900 to 999, and the case has none": {"step": "slice_range", "first": 900, "last": 999},
    r"'clahe' needs images in \[0, 1\]": {"step": "clahe"},
}


@pytest.mark.parametrize("expected", STEPS)
@pytest.mark.parametrize("verb", [*VERBS.values(), audit_experiment])
@pytest.mark.usefixtures("tracking")
def test_a_step_that_no_case_allows_is_refused_before_ray_starts(searched, lgg, home, verb, expected):
    with pytest.raises(UserError, match=expected):
        verb(override(searched, {"preprocess": [STEPS[expected]]}), lgg)
    assert not (home / "prepared").exists()


@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize("verb", VERBS.values())
@pytest.mark.usefixtures("tracking")
def test_a_split_of_cases_who_may_be_one_person_begins_with_a_warning(searched, lgg, tmp_path, verb, is_raw):
    cohort = shutil.copytree(lgg, tmp_path / "kaggle_3m")
    for number, folder in enumerate(sorted(path for path in cohort.iterdir() if path.is_dir())):
        new = f"P{number // 2}_{number % 2 + 1}"
        for path in folder.iterdir():
            path.rename(path.with_name(path.name.replace(folder.name, new)))
        folder.rename(cohort / new)
    if not is_raw:
        cohort = prepare(open_cohort(cohort), tmp_path / "prepared", searched.preprocess).path
    lines = []
    with pytest.raises(pytest.fail.Exception, match="Ray was started"):
        verb(searched, cohort, say=lines.append)
    assert any(
        line.startswith("warning: cases of different persons: P0_1, P0_2; ")
        and "`visits: ['_1', '_2']`" in line
        and line.endswith("of the original cohort, and prepare it again") is not is_raw
        for line in lines
    )


@pytest.mark.usefixtures("tracking")
def test_a_searched_step_or_a_table_that_cannot_do_is_refused_before_ray_starts(searched, lgg, prepared):
    chains = {"small": [{"step": "unit"}], "t2": [{"step": "unit"}, {"step": "channels", "keep": ["t2"]}]}
    space = {"preprocess": {"kind": "choice", "values": ["small", "t2"]}}
    variants = override(searched, {"search": {"name": "s", "space": space, "preprocess": chains}})
    with pytest.raises(UserError, match="unknown channel 't2'"):
        search(variants, lgg)
    with pytest.raises(UserError, match=r"needs a raw cohort; got .*which is prepared"):
        search(variants, prepared.path)
    tables = {"objectives": ["dice", "c_index"], "folds": 2, "clinical": "nowhere.csv", "name": "s", "space": RATE}
    with pytest.raises(UserError, match=r"search\.clinical must name a file; got nowhere\.csv"):
        search(override(searched, {"search": tables}), lgg)


@pytest.mark.usefixtures("tracking")
def test_a_cohort_prepared_in_another_way_is_refused_before_ray_starts(tiny, prepared):
    with pytest.raises(UserError, match="only with the preprocessing it was made with"):
        train(changed(tiny, preprocess=[{"step": "unit"}]), prepared.path)


@pytest.mark.parametrize("name", ["prepared", "artifacts", "runs", "train", "searches", "stores", "secrets"])
@pytest.mark.parametrize("kind", ["a file", "a link to nowhere", "a link to itself"])
@pytest.mark.usefixtures("tracking")
def test_a_folder_of_the_home_that_is_none_is_named_before_ray_starts(tiny, lgg, home, name, kind):
    folder = home / name
    if kind == "a file":
        folder.touch()
    else:
        folder.symlink_to("nowhere" if kind == "a link to nowhere" else name)
    with pytest.raises(UserError, match=f"{name}.* in GLIOFLOW_HOME"):
        launch.open_setting(tiny, lgg)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("name", ["prepared", "runs", "train"])
@pytest.mark.usefixtures("tracking")
def test_a_folder_of_the_home_that_is_closed_is_named_before_ray_starts(tiny, lgg, home, name):
    (home / name).mkdir(mode=0o555)
    with pytest.raises(UserError, match="cannot be written to"):
        launch.open_setting(tiny, lgg)


@pytest.mark.usefixtures("tracking")
def test_the_folders_of_runs_need_to_be_open_for_runs_alone(home, monkeypatch):
    def closed(folder, name):
        if folder.name in ("runs", "train"):
            raise UserError(f"{name} cannot be written to")

    (home / "runs").mkdir()
    monkeypatch.setattr("glioflow.atomic.check_folder", closed)  # root writes everywhere
    gf.list_models()
    with pytest.raises(UserError, match="cannot be written to"):
        check_home()


@pytest.mark.parametrize(
    ("address", "elsewhere"),
    [
        ("", False),
        ("auto", False),
        ("127.0.0.1:6379", False),
        ("ray://localhost:10001", False),
        ("10.1.2.3:6379", True),
        ("ray://head.example.org:10001", True),
    ],
)
def test_only_a_cluster_elsewhere_may_have_weights_that_are_not_here(tiny, monkeypatch, address, elsewhere):
    monkeypatch.setenv("RAY_ADDRESS", address)
    experiment = changed(tiny, training={"start": "nowhere.pth"})
    if elsewhere:
        launch.check_weights(experiment, 3)
    else:
        with pytest.raises(UserError, match=r"nowhere\.pth does not exist"):
            launch.check_weights(experiment, 3)
