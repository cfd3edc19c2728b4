"""Runs and versions against real MLflow servers, started as mlflow/start.sh does: SQLite, PostgreSQL, S3, log-in."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from bundles import TINY, describe
from glioflow import bundle
from glioflow.bundle.prediction import Predictor
from glioflow.models import build_network
from glioflow.promotion import decisions
from glioflow.tracking import RunWriter, Tracking
from glioflow.tracking.datasets import Dataset
from servers import bucket, free_port, mlflow_server, postgres

ROOT = Path(__file__).parents[2]
PASSWORD = "a long enough password"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


Start = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts a server with these variables and gives its URL; it ends with the test."""
    with ExitStack() as stack:

        def start(*, log_in: bool = False, database: bool = False, s3: bool = False, direct: bool = False) -> str:
            settings = {"MLFLOW_BACKEND_STORE_URI": stack.enter_context(postgres())} if database else {}
            settings |= stack.enter_context(bucket()) if s3 or direct else {}
            if direct:  # whoever comes through the server needs no key
                for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_S3_ENDPOINT_URL"):
                    monkeypatch.setenv(key, settings[key])
                settings["MLFLOW_ARTIFACTS_DIRECT"] = "1"
            if log_in:
                settings["MLFLOW_AUTH_ADMIN_PASSWORD"] = PASSWORD
                monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
                monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
            return stack.enter_context(mlflow_server(tmp_path / "server", settings))

        yield start


@pytest.mark.parametrize("options", [{}, {"database": True}, {"s3": True, "log_in": True}], ids=["sqlite", "pg", "s3"])
def test_runs_artifacts_and_versions_go_through_a_server(
    start: Start, tiny: Any, tmp_path: Path, options: dict[str, bool]
) -> None:
    server = start(**options)
    tracking = Tracking(server)
    run_id = tracking.start("served", "first", tags={"kind": "test"})
    tracking.log_params(run_id, {"model": {"architecture": "unet"}})
    tracking.log_dataset(run_id, Dataset("c", "f" * 32, "/c", "training", {"cases": 8}))
    writer = RunWriter(server, run_id, tmp_path / "spool.jsonl")
    for step in range(3):
        writer.write({"val/dice": step / 10}, step=step)
    writer.close()
    tracking.log_json(run_id, "split.json", {"train": ["a"]})
    folder = tmp_path / "made"
    bundle.save(folder, describe(tiny), build_network(tiny.model, in_channels=3, num_outputs=1).state_dict())
    tracking.log_folder(run_id, folder, folder="bundle")
    tracking.finish(run_id)
    made = tracking.register("glioma", run_id, folder, tags={}, documents={"card.md": "# card"})
    tracking.set_alias("glioma", "champion", made.version)

    again = Tracking(server)
    assert again.metric_history(run_id, "val/dice") == [0.0, 0.1, 0.2]
    assert again.read_json(run_id, "split.json") == {"train": ["a"]}
    assert again.run(run_id).data.params == {"model.architecture": "unet"}
    assert [run.info.run_id for run in again.every_run()] == [run_id]
    champion = again.version("glioma")
    assert again.document(champion, "card.md") == "# card"
    Predictor.load(again.bundle_of(champion))
    assert again.artifact_size(run_id, "bundle") == sum(path.stat().st_size for path in folder.iterdir())
    again.delete_artifact(run_id, "bundle")
    assert not again.has_artifact(run_id, "bundle")
    Predictor.load(again.bundle_of(champion))


def test_without_the_password_nobody_reads_anything(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(log_in=True)
    assert requests.post(f"{server}/api/2.0/mlflow/experiments/search", json={}, timeout=10).status_code == 401
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another password")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI must name a store that accepts the login") as error:
        Tracking(server)
    assert "another password" not in str(error.value)


def glioflow(*words: str) -> dict[str, Any]:
    call = [sys.executable, "-m", "glioflow", *words, "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write an experiment that trains in a second, the same each time."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "training": {**TINY["training"], "deterministic": True}}))
    return path


def test_artifacts_go_to_s3_without_the_server_where_it_serves_none(
    start: Start, lgg: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(direct=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    trained = glioflow("train", str(file), "--data", str(lgg))
    assert glioflow("register", trained["run_id"], "--name", "glioma") == {"name": "glioma", "version": 1}
    tracking = Tracking()
    assert tracking.run(trained["run_id"]).info.artifact_uri.startswith("s3://mlflow/here/")
    assert requests.get(f"{server}/api/2.0/mlflow-artifacts/artifacts", timeout=10).status_code == 503
    folder, version = tracking.find_bundle("glioma/1")
    assert version is not None
    assert version.source.startswith("s3://mlflow/here/")
    Predictor.load(folder)


def test_what_a_training_could_not_send_arrives_when_the_server_is_back(
    lgg: Path, home: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, epochs = free_port(), 30
    words = ["train", str(file), "--data", str(lgg), "-o", f"training.epochs={epochs}", "--json"]
    with mlflow_server(tmp_path / "server", {}, port=port) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        process = subprocess.Popen([sys.executable, "-m", "glioflow", *words], stderr=subprocess.PIPE, text=True)
        while not any("val/dice" in run.data.metrics for run in Tracking().every_run()):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.2)
    (spool,) = (home / "runs").glob("*/spool.jsonl") if wait_for(home, '"record":"end"', process) else ()
    run_id = spool.parent.name
    with mlflow_server(tmp_path / "server", {}, port=port):
        assert process.wait(300) == 0
        tracking = Tracking()
        run = tracking.run(run_id)
        assert run.info.status == "FINISHED"
        assert sorted(tracking.metric_steps(run_id, "val/dice")) == list(range(epochs))
        assert len(tracking.metric_history(run_id, "val/dice")) == epochs
        assert "test/dice_mean" in run.data.metrics
        names = [Path(entry.path).name for entry in tracking.client.list_artifacts(run_id, "images")]
        steps = {int(name.split("+step+")[1].split("+")[0]) for name in names}
        assert {0, epochs - 1} < steps
        assert tracking.download(f"runs:/{run_id}/report/index.html").stat().st_size > 1000
        Predictor.load(tracking.find_bundle(run_id)[0])
    assert not spool.exists()


def wait_for(home: Path, text: str, process: "subprocess.Popen[str]") -> bool:
    """Wait until some spool holds `text`."""
    for _ in range(3000):
        assert process.poll() is None, process.communicate()[1]
        if any(text in path.read_text() for path in (home / "runs").glob("*/spool.jsonl")):
            return True
        time.sleep(0.1)
    return False


def test_the_chain_runs_against_postgres_with_a_log_in_and_artifacts_on_s3(
    start: Start, lgg: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", start(database=True, s3=True, log_in=True))
    trained = glioflow("train", str(file), "--data", str(lgg))
    assert glioflow("register", trained["run_id"], "--name", "glioma") == {"name": "glioma", "version": 1}
    verdict = glioflow("promote", "glioma")
    assert verdict["decision"] in ("promoted", "rejected")
    (recorded,) = decisions(Tracking(), "glioma")
    assert recorded.model_dump(mode="json") == verdict
    exported = Path(glioflow("export", "glioma/1", str(tmp_path / "out"))["path"])
    assert (exported / "card.md").is_file()
    again = glioflow("reproduce", trained["run_id"])
    assert again["identical"], again["differences"]
    assert again["differences"] == []
    removed = glioflow("gc")["removed"]
    assert {Path(each["path"]).name for each in removed} == {trained["run_id"], again["run_id"]}
    Predictor.load(exported)
