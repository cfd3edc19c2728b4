"""A run against a real MLflow server, started as mlflow/start.sh starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from glioflow.tracking import RunWriter, Tracking

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **os.environ,
        "MLFLOW_HOME": str(tmp_path / "server"),
        "MLFLOW_PORT": str(port),
        "MLFLOW_BIN": str(Path(sys.executable).parent / "mlflow"),
    }
    process = subprocess.Popen([str(ROOT / "mlflow" / "start.sh")], env=env, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if requests.get(f"{url}/health", timeout=2).ok:
                    break
            except requests.RequestException:
                pass
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def test_runs_metrics_and_artifacts_go_through_a_server(server: str, tmp_path: Path) -> None:
    tracking = Tracking(server)
    run_id = tracking.start("served", "first", tags={"kind": "test"})
    tracking.log_params(run_id, {"model": {"architecture": "unet"}})
    writer = RunWriter(server, run_id, tmp_path / "spool.jsonl")
    for step in range(3):
        writer.write({"val/dice": step / 10}, step=step)
    writer.close()
    tracking.log_json(run_id, "split.json", {"train": ["a"]})
    tracking.finish(run_id)
    again = Tracking(server)
    assert again.metric_history(run_id, "val/dice") == [0.0, 0.1, 0.2]
    assert again.read_json(run_id, "split.json") == {"train": ["a"]}
    assert again.run(run_id).data.params == {"model.architecture": "unet"}
