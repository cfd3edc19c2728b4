"""What people have from the first release goes on with this one: runs, searches, models, bundles, deployments.

Nothing of the platform is imported here: what is tested is the command line and the names that others wrote down.
COMPATIBILITY_SOURCE=FOLDER tries another source tree's package folder in the place of this one's.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import old_home
import pytest
import requests
import yaml
from old_home import MODEL, ROOT, SEARCH, TRIALS, OldHome, Release

SERVE = Path(sys.executable).with_name("serve")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> OldHome:
    """Return what the first release left behind, made once."""
    if made := os.environ.get("FIRST_RELEASE_HOME"):
        return OldHome.open(Path(made).absolute())
    try:
        return old_home.make(tmp_path_factory.mktemp("first-release"))
    except old_home.MissingHistoryError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def old(first_release: OldHome, monkeypatch: pytest.MonkeyPatch) -> OldHome:
    """Return it as it was left, whatever other tests did to it."""
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # a kept connection reads the removed database
    first_release.restore()
    return first_release


@pytest.fixture
def now(old: OldHome) -> Iterator[Release]:
    """Return this release, at work in the old home."""
    yield Release(os.environ.get("COMPATIBILITY_SOURCE") or str(ROOT / "platform"), old.home)
    old_home.wait_until(lambda: not old_home.processes_in(old.home), "processes were left behind")


def client(old: OldHome) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{old.home / 'mlflow.db'}")


def steps(old: OldHome, run_id: str, metric: str) -> list[int]:
    return [entry.step for entry in client(old).get_metric_history(run_id, metric)]


def trial_runs(old: OldHome, search: str) -> dict[str, Any]:
    mlflow = client(old)
    experiment = mlflow.get_experiment_by_name("first")
    found = mlflow.search_runs([experiment.experiment_id], f"tags.search = '{search}'")
    return {run.data.tags["trial_id"]: run for run in found if "trial_id" in run.data.tags}


def agrees(after: Any, before: Any, where: str = "") -> None:
    """Assert that all of an old answer is in a new one, which may say more."""
    if isinstance(before, dict):
        assert before.keys() <= after.keys(), where
        for key, value in before.items():
            agrees(after[key], value, f"{where}.{key}")
    elif where.endswith(".warnings"):
        assert set(before) <= set(after), where
    elif isinstance(before, list):
        assert len(after) == len(before), where
        for number, value in enumerate(before):
            agrees(after[number], value, f"{where}[{number}]")
    elif isinstance(before, float):
        assert after == pytest.approx(before, rel=1e-6), where
    else:
        assert after == before, where


# Runs


def as_they_were(metrics: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is measured in another way since: distances within slices, where only one mask has tumor."""
    return {name: value for name, value in metrics.items() if "hd95" not in name}


def test_an_interrupted_training_goes_on_and_ends_as_one_that_was_not_interrupted(old: OldHome, now: Release) -> None:
    run_id, whole = old.facts["interrupted"], old.facts["finished"]
    before = steps(old, run_id, "train/loss")
    assert before in ([0], [0, 1])
    done = now.answer("train", old.experiment, "--data", old.cohort, "--resume", run_id)
    assert done["run_id"] == run_id
    agrees(*(as_they_were(each["metrics"]) for each in (done, whole)))
    assert set(steps(old, run_id, "train/loss")) == {0, 1, 2}
    assert steps(old, run_id, "train/loss").count(0) == 1, "it began anew"
    assert client(old).get_run(run_id).info.status == "FINISHED"
    assert now.answer("register", run_id, "--name", "resumed") == {"name": "resumed", "version": 1}


def test_a_finished_training_comes_out_the_same_when_it_is_run_again(old: OldHome, now: Release) -> None:
    done = now.answer("reproduce", old.facts["exact"]["run_id"])
    assert done["reproduces"] == old.facts["exact"]["run_id"]
    assert done["compared"] > 20
    results = [each["name"] for each in done["differences"] if each["what"] in ("metric", "weights")]
    assert [name for name in results if "hd95" not in name] == []  # distances within slices are measured otherwise


def test_a_killed_search_goes_on_with_its_open_trial_and_to_more_trials(old: OldHome, now: Release) -> None:
    first = trial_runs(old, SEARCH)
    assert set(first) == {"0", "1"}
    words = ("search", old.experiment, "--data", old.cohort, *TRIALS)
    done = now.answer(*words, "--resume", SEARCH, "--trials", "3")
    assert (done["name"], done["num_trials"]) == (SEARCH, 3)
    # Of the open trial, an epoch that ended in the moment of the kill has its checkpoint and never reached the study.
    assert old_home.trials(old.home) in ([("COMPLETE", 6), ("COMPLETE", num), ("COMPLETE", 6)] for num in (5, 6))
    after = trial_runs(old, SEARCH)
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert {key: run.info.run_id for key, run in after.items() if key in first} == {
        key: run.info.run_id for key, run in first.items()
    }
    assert after["0"].info.end_time == first["0"].info.end_time, "a finished trial was run again"
    assert steps(old, after["1"].info.run_id, "val/dice").count(0) == 1, "the open trial began anew"
    assert set(steps(old, after["1"].info.run_id, "val/dice")) == set(range(6))
    for run in first.values():
        chosen = {key: value for key, value in run.data.tags.items() if key.startswith("param.")}
        assert chosen
        assert chosen.items() <= after[run.data.tags["trial_id"]].data.tags.items()


def test_a_new_search_begins_with_the_best_configuration_of_the_old_one(old: OldHome, now: Release) -> None:
    best = trial_runs(old, SEARCH)["0"]
    assert best.info.status == "FINISHED"
    words = ("-o", "search.name=second", "-o", "search.warm_start=1", "-o", "training.epochs=1")
    done = now.answer("search", old.experiment, "--data", old.cohort, "--trials", "1", *words)
    assert done["num_trials"] == 1
    assert done["best"]["params"] == {
        key: json.loads(best.data.tags[f"param.{key}"]) for key in ("training.learning_rate", "training.optimizer")
    }


def test_gc_leaves_what_unfinished_runs_and_versions_need(old: OldHome, now: Release) -> None:
    interrupted, finished = old.facts["interrupted"], old.facts["finished"]["run_id"]
    trials = {key: run.info.run_id for key, run in trial_runs(old, SEARCH).items()}
    checkpoints = [
        *old.home.glob(f"train/{interrupted}/**/checkpoint.pt"),
        *old.home.glob(f"runs/{trials['1']}/checkpoint/*"),
    ]
    assert len(checkpoints) >= 2
    logged = [path for kind in ("artifacts", "prepared") for path in old.home.glob(f"{kind}/**/*") if path.is_file()]
    needed = [*checkpoints, *logged, old.home / "searches" / SEARCH / "optuna.db"]
    answer = now.answer("gc", "--dry-run")["removed"]
    removed = now.answer("gc")["removed"]
    assert [each["path"] for each in removed] == [each["path"] for each in answer]
    assert {str(old.home / "train" / finished), str(old.home / "runs" / finished)} <= {e["path"] for e in removed}
    assert [path for path in needed if not path.exists()] == []


# Models


def test_versions_aliases_and_decisions_are_listed_as_they_were(old: OldHome, now: Release) -> None:
    answer = now.answer("models")
    agrees(answer, old.facts["models"])
    assert [(row["version"], row["aliases"]) for row in answer["models"]] == [(2, ["challenger"]), (1, ["champion"])]


def test_a_version_from_then_is_promoted_and_the_first_use_of_its_test_patients_counts(
    old: OldHome, now: Release
) -> None:
    assert uses(old.facts["promoted"]) == 0
    second = now.answer("promote", MODEL)
    assert (second["decision"], second["version"], second["previous"]) == ("promoted", 2, 1), second["reasons"]
    assert second["test"] == old.facts["promoted"]["test"]
    assert (second["times_test_used"], uses(second)) == (1, 1)
    assert now.answer("rollback", MODEL) == {"name": MODEL, "version": 1, "previous": 2}
    stage = ("--survival", old.facts["survival"]["run_id"])
    assert now.answer("register", old.facts["finished"]["run_id"], "--name", MODEL, *stage)["version"] == 3
    third = now.answer("promote", MODEL, "--data", old.cohort)
    assert (third["decision"], third["previous"], uses(third)) == ("promoted", 1, 2), third["reasons"]
    rows = {row["version"]: row for row in now.answer("models", MODEL)["models"]}
    assert [each.split()[0] for each in rows[1]["decisions"]] == ["rolled-back", "promoted"]


def uses(verdict: dict[str, Any]) -> int:
    (found,) = [each for each in verdict["reasons"] if each["rule"] == "times that these test patients judged before"]
    return int(found["value"])


@pytest.mark.parametrize("model", [MODEL, f"models:/{MODEL}@challenger", "the run", "the exported bundle"])
def test_a_model_answers_what_it_answered_then(model: str, old: OldHome, now: Release, tmp_path: Path) -> None:
    named = {"the run": old.facts["finished"]["run_id"], "the exported bundle": old.exported}.get(model, model)
    (study,) = now.answer("predict", named, old.study, "--out", tmp_path / "out")["studies"]
    answer, before = json.loads(Path(study["answer"]).read_text()), dict(old.facts["answer"])
    for own in ("model", "timing_ms"):
        before.pop(own)
    if model == "the run":  # a stage is put in when a version is registered
        before.pop("survival")
        before.pop("volume_interval", None)
    agrees(answer, before)


def test_an_export_holds_the_files_that_it_held(old: OldHome, now: Release, tmp_path: Path) -> None:
    out = Path(now.answer("export", f"{MODEL}@champion", tmp_path / "exported")["path"])
    assert {path.name for path in old.exported.iterdir()} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "model.json").read_text())["format"] == 1
    for name in ("weights.safetensors", "survival.json", "model.json"):
        assert (out / name).read_bytes() == (old.exported / name).read_bytes(), name
    again = Path(now.answer("export", old.exported, tmp_path / "again.zip")["path"])
    assert again.is_file()


def test_a_bundle_on_disk_is_judged_on_a_cohort_that_was_prepared_then(old: OldHome, now: Release) -> None:
    judged = now.answer("evaluate", old.exported, old.folder / "prepared")
    test = {row["id"]: row["dice"] for row in judged["per_patient"]}
    split = old_home.split_of(old.facts["finished"]["run_id"], old.home)
    mean = sum(test[case] for case in split["test"]) / len(split["test"])
    assert mean == pytest.approx(old.facts["finished"]["metrics"]["test/dice_mean"], rel=1e-6)


LOAD = """
import json, sys
import mlflow, numpy, tifffile
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
answer = model.predict(numpy.stack([tifffile.imread(path) for path in sys.argv[3:]]))
voxels = int((answer["mask"] > 0).sum())
print(json.dumps({"voxels": voxels, "slices": answer["tumor"]["slices"], "features": answer["features"]["volume"]}))
"""


def test_mlflow_alone_loads_the_champion_and_it_answers_what_it_answered_then(old: OldHome, now: Release) -> None:
    store = f"sqlite:///{old.home / 'mlflow.db'}"
    answer = json.loads(now.python("-c", LOAD, store, f"models:/{MODEL}@champion", *old.slices))
    before = old.facts["answer"]
    assert answer["voxels"] == before["features"]["volume"]["volume_px"] > 0
    assert answer["slices"] == before["tumor"]["slices"]
    agrees(answer["features"], before["features"]["volume"])


# Deployments and experiment files


BUILD = """
import importlib, json, sys, typing
from ray.serve import Application
module, name = sys.argv[1].split(":")
builder = getattr(importlib.import_module(module), name)
if isinstance(builder, Application):
    print("Application")
else:  # as Serve does with an application's args
    (kind,) = [found for key, found in typing.get_type_hints(builder).items() if key != "return"]
    print(type(builder(kind.model_validate(json.loads(sys.argv[2])))).__name__)
"""


def test_a_configuration_with_args_for_the_builder_still_builds(now: Release) -> None:
    limits = {"upload_bytes": 10**7, "slices": 200, "queued": 8}
    args = {"name": MODEL, "limits": limits, "trial": {"shadow": 0.5}, "token_sha256": "0" * 64, "max_replicas": 2}
    assert now.python("-c", BUILD, "glioflow.serving.gateway:build", json.dumps(args)) == "Application"
    assert now.python("-c", BUILD, "glioflow.serving.gateway:app") == "Application"


def test_the_configuration_that_was_deployed_names_what_is_there(old: OldHome, now: Release, tmp_path: Path) -> None:
    (wanted,) = yaml.safe_load((old.source / "deploy" / "serve.yaml").read_text())["applications"]
    now.python(SERVE, "build", wanted["import_path"], "-o", tmp_path / "built.yaml")
    (built,) = yaml.safe_load((tmp_path / "built.yaml").read_text())["applications"]
    deployments = {each["name"]: each for each in built["deployments"]}
    for each in wanted["deployments"]:
        assert each.keys() <= deployments[each["name"]].keys(), each["name"]


def test_the_endpoint_as_it_was_deployed_answers_what_the_champion_answered_then(
    old: OldHome, now: Release, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wanted = yaml.safe_load((old.source / "deploy" / "serve.yaml").read_text())
    wanted["http_options"]["port"] = port
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(wanted))
    url = f"http://127.0.0.1:{port}"
    files = [("files", (path.name, path.read_bytes())) for path in old.slices]
    process = now.start(SERVE, "run", tmp_path / "serve.yaml")
    try:
        old_home.wait_until(lambda: is_ready(url), "the endpoint was never ready", process)
        answer = requests.post(f"{url}/v1/predict", files=files, timeout=300).json()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    assert (answer["model"]["name"], answer["model"]["version"]) == (MODEL, 1)
    before = old.facts["answer"]
    assert answer["mask"]["shape"] == before["mask"]["shape"]
    assert before["features"]["volume"].keys() <= answer["features"]["volume"].keys()
    # The endpoint may run the network in another engine than `predict`, which rounds otherwise.
    volume = before["features"]["volume"]["volume_px"]
    assert answer["features"]["volume"]["volume_px"] == pytest.approx(volume, rel=0.1)
    assert answer["survival"]["probability"] == pytest.approx(before["survival"]["probability"], rel=0.1)


def is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_every_experiment_file_of_then_is_an_experiment_now(old: OldHome, now: Release) -> None:
    files = sorted((old.source / "experiments").rglob("*.yaml"))
    assert len(files) == 14
    nothing = old.folder / "nothing"
    for file in files:  # once a file is read and found good, the cohort is looked for
        process = now.start("-m", "glioflow", "train", file, "--data", nothing)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 2, f"{file}: {errors}"
        assert str(nothing) in errors, f"{file}: {errors}"
