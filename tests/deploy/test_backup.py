"""A backup of the tracking server, restored into an empty one, holds every run, file and version."""

import os
import subprocess
from pathlib import Path

import pytest

from glioflow.tracking import Tracking
from servers import ROOT, mlflow_server, postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def script(name: str, folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "mlflow" / name, folder], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_restored_server_has_what_the_first_one_had(tmp_path: Path, home: Path, database: str) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        before, after = ({"MLFLOW_HOME": str(tmp_path / name)} for name in ("before", "after"))
        if database == "postgresql":
            for settings in (before, after):
                settings["MLFLOW_BACKEND_STORE_URI"] = stack.enter_context(postgres())
        with mlflow_server(tmp_path / "before", before) as url:
            tracking = Tracking(url)
            run_id = tracking.start("some", "run", tags={"kept": "yes"})
            tracking.log_metrics(run_id, {"val/dice": 0.5})
            tracking.log_text(run_id, "notes.txt", "kept as it was")
            tracking.finish(run_id)
            done = script("backup.sh", tmp_path / "backup", before)  # while the server goes on
            assert done.returncode == 0, done.stderr
        again = script("backup.sh", tmp_path / "backup", before)
        assert again.returncode == 2
        assert "exists" in again.stderr

        done = script("restore.sh", tmp_path / "backup", after)
        assert done.returncode == 0, done.stderr
        with mlflow_server(tmp_path / "after", after) as url:
            tracking = Tracking(url)
            run = tracking.run(run_id)
            assert run.data.metrics["val/dice"] == 0.5
            assert run.data.tags["kept"] == "yes"
            assert tracking.download(f"runs:/{run_id}/notes.txt").read_text() == "kept as it was"
        refused = script("restore.sh", tmp_path / "backup", after)
        assert refused.returncode == 2
        assert "empty home" in refused.stderr
