"""What is written to a disk that is really full: a clear end, nothing half-written, and the same command goes on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import TINY
from glioflow import bundle
from glioflow.cli.output import one_line_errors
from glioflow.config import Experiment
from glioflow.errors import DiskFull, RunFailed, UserError
from glioflow.tracking import Tracking

# A checkpoint of 8 MB, a bundle of 2; MLflow's database takes 1.
MODEL = {"architecture": "buda-unet", "options": {"features": [16, 16, 32, 64, 128]}}
Disk = Callable[[int], Path]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def glioflow(*words: object, code: int = 0) -> tuple[dict[str, Any], str]:
    call = [sys.executable, "-m", "glioflow", *map(str, words), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return (json.loads(done.stdout.splitlines()[-1]) if code == 0 else {}), done.stderr


def test_a_cohort_prepared_into_a_full_disk_ends_in_one_line_and_goes_on_once_there_is_space(
    disk: Disk, lgg: Path
) -> None:
    folder = disk(1)
    out = folder / "prepared"
    words = ("data", "prepare", lgg, out)
    _, errors = glioflow(*words, code=1)
    (line,) = [each for each in errors.splitlines() if not each.startswith("prepare: ")]
    assert line.startswith(f"failed: no space left in {out}")
    assert "of 1 MiB free" in line
    whole = [path.name for path in (out / "cases").iterdir()]
    assert not (out / "manifest.json").exists()
    assert not [name for name in whole if name.startswith(".")], "a half-written case stays"
    disk(40)
    made, _ = glioflow(*words)
    assert made["patients"] == 8
    assert {path.name for path in (out / "cases").iterdir()} > set(whole)


def test_a_trial_that_fills_the_disk_keeps_its_last_checkpoint_and_goes_on_from_it(
    disk: Disk, prepared: Any, tmp_path: Path
) -> None:
    from glioflow.data.splits import make_split
    from glioflow.runs.plan import Plan
    from glioflow.runs.search.trial import _keep
    from glioflow.runs.train.training import train_plan
    from glioflow.runs.train.worker import Worker

    home = disk(12)
    experiment = Experiment.model_validate({**TINY, "model": MODEL, "training": {**TINY["training"], "epochs": 3}})
    plan = Plan(
        experiment=experiment,
        prepared=prepared.path,
        split=make_split(prepared.records, experiment.split, folder=None),
        run_id="r",
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        folder=home / "r",
        created="2026-01-01T00:00:00+00:00",
    )
    checkpoint, epochs = plan.folder / "checkpoint", []

    def report(epoch: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        epochs.append(epoch)
        _keep(write, checkpoint)

    with pytest.raises(DiskFull, match=f"no space left in {home}"):
        train_plan(plan, Worker(report))
    assert epochs == [0, 1]
    assert not plan.bundle.exists()
    left = {path.name for path in plan.folder.iterdir()}
    assert left == {"checkpoint", plan.progress.name}, "a half-written checkpoint stays"
    disk(60)
    train_plan(plan, Worker(report, resume=checkpoint))
    assert epochs == [0, 1, 1, 2]
    assert bundle.read_description(plan.bundle).files


def test_a_training_that_fills_the_disk_ends_in_one_line_and_goes_on_once_there_is_space(
    ray: None, disk: Disk, lgg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from glioflow.runs.train.run import train

    home = disk(24)
    monkeypatch.setenv("GLIOFLOW_HOME", str(home))
    experiment = Experiment.model_validate({**TINY, "model": MODEL, "training": {**TINY["training"], "epochs": 4}})
    with pytest.raises(SystemExit) as ended, one_line_errors():
        train(experiment, lgg)
    assert ended.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"failed: no space left in {home}")
    assert "of 24 MiB free" in line
    tracking = Tracking()
    (run,) = tracking.find_all("tiny")
    assert run.info.status == "FAILED"
    assert not [folder for folder in home.glob("runs/*/bundle") if bundle.read_description(folder) is None]

    disk(200)
    trained = train(experiment, lgg, resume=run.info.run_id)
    assert trained.run_id == run.info.run_id
    assert tracking.run(run.info.run_id).info.status == "FINISHED"
    steps = [entry.step for entry in tracking.client.get_metric_history(run.info.run_id, "val/dice")]
    assert set(steps) == set(range(4))


def test_a_failure_while_nothing_can_be_written_is_a_full_disk_whatever_words_it_came_in(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = disk(1)
    monkeypatch.setenv("GLIOFLOW_HOME", str(home))
    with pytest.raises(OSError, match="No space left"):
        (home / "filler").write_bytes(bytes(2**21))
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise RunFailed("the worker died")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"failed: no space left in {home} (0.0 of 1 MiB free")
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise UserError("unknown loss 'dise'")
    assert capsys.readouterr().err == "error: unknown loss 'dise'\n"
