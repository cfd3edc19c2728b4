"""What a waiting process shows of work in other processes."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from glioflow import progress
from glioflow.cli import demo_chain
from glioflow.config import Experiment
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.reports.numbers import duration
from glioflow.runs import progress as module
from glioflow.runs.launch import open_cohort_for
from glioflow.runs.plan import Plan
from glioflow.runs.progress import PROGRESS, ProgressFile, followed, note_epoch, shown
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_NOTE_S", "_LINE_S"):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(module, "_LOOK_S", 0.01)


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parts: list[float] = []

    def __call__(self, text: str, part: float | None = None) -> None:
        self.lines += [text] if text else []
        self.parts += [] if part is None else [part]

    def wait_for(self, part: float) -> None:
        deadline = time.monotonic() + 30
        while not self.parts or self.parts[-1] < part - 1e-9:
            assert time.monotonic() < deadline, self.parts
            time.sleep(0.01)


def test_a_cohort_that_a_run_prepares_is_counted_in_lines_which_leave_the_bar_to_what_follows(
    lgg: Path, tiny: Experiment, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0)
    monkeypatch.setattr(progress, "LINE_S", 0)
    heard = Heard()
    open_cohort_for(tiny.preprocess, lgg, tiny.target, say=heard)
    assert heard.lines == [f"case {number} of 8" for number in range(1, 9)]
    assert heard.parts == []


def test_the_demo_says_that_it_writes_its_cohort(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, waits = Heard(), threading.Event()

    def say(text: str, part: float | None = None) -> None:
        heard(text, part)
        if text.startswith("waiting"):
            waits.set()

    monkeypatch.setattr(progress, "WAIT_S", 0.01)
    monkeypatch.setattr(demo_chain, "synthesize_lgg", lambda *_, **__: waits.wait(30))
    demo_chain._synthetic(say)
    assert heard.lines[1] == "waiting for the cohort to be written (0 s so far)"


def test_the_part_is_the_mean_of_all_workers_and_lines_name_those_at_work(tmp_path: Path) -> None:
    files = {"fold 1": tmp_path / "a.json", "fold 2": tmp_path / "b.json"}
    heard = Heard()
    with shown(files, heard):
        ProgressFile(files["fold 1"]).note("epoch 1 of 2", 0.5)
        heard.wait_for(0.25)
        ProgressFile(files["fold 2"]).section("test", 0.8, 1)("case 1 of 2", 0.5)
        heard.wait_for(0.7)
        ProgressFile(files["fold 1"]).note("done", 1)
        heard.wait_for(0.95)
        ProgressFile(files["fold 2"]).note("done", 1)
        heard.wait_for(1.0)  # what is done is no line
    assert heard.parts == sorted(heard.parts)
    assert heard.lines[0] == "fold 1: epoch 1 of 2"
    assert "fold 2: test, case 1 of 2" in heard.lines[-1]
    assert "fold 1" not in heard.lines[-1]
    assert "left" in heard.lines[-1]
    assert list(tmp_path.iterdir()) == []


def test_until_a_worker_begins_lines_say_that_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WAIT_S", 0.01)
    path, heard = tmp_path / PROGRESS, Heard()
    with shown({"": path}, heard):
        deadline = time.monotonic() + 30
        while len(heard.lines) < 2:
            assert time.monotonic() < deadline, "nothing was said"
            time.sleep(0.01)
        ProgressFile(path).note("epoch 1 of 2", 0.5)
        heard.wait_for(0.5)
    assert all(line.startswith("waiting for a worker to start (") for line in heard.lines[:2])
    assert heard.lines[-1] == "epoch 1 of 2"


def test_what_an_interrupted_run_noted_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / PROGRESS
    ProgressFile(path).note("epoch 9 of 9", 0.9)
    heard = Heard()
    with shown({"": path}, heard):
        ProgressFile(path).note("epoch 1 of 9", 0.1)
        heard.wait_for(0.1)
    assert heard.lines == ["epoch 1 of 9"]


def test_a_worker_that_cannot_note_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ProgressFile(tmp_path / "file" / PROGRESS).note("epoch 1", 0.1)


def test_a_training_notes_every_step_and_every_validation_case(
    prepared: PreparedCohort, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glioflow.data.splits import make_split

    noted: list[dict[str, Any]] = []
    monkeypatch.setattr(module.atomic, "write_text", lambda path, text: noted.append(json.loads(text)))
    plan = Plan(
        experiment=tiny,
        prepared=prepared.path,
        split=make_split(prepared.records, tiny.split),
        run_id="r",
        tracking_uri="",
        folder=tmp_path,
        created="2026-01-01T00:00:00+00:00",
    )
    train_plan(plan, Worker(lambda epoch, metrics, write_checkpoint: None))
    texts = [note["text"] for note in noted if "text" in note]
    assert texts[:4] == [
        "epoch 1 of 2, step 1 of 2",
        "epoch 1 of 2, step 2 of 2",
        "epoch 1 of 2, validation case 1 of 2",
        "epoch 1 of 2, validation case 2 of 2",
    ]
    assert texts[-1] == "choosing threshold and clean-up"
    parts = [note["part"] for note in noted if "text" in note]
    assert parts == sorted(parts)


def test_durations_are_told_in_the_unit_that_fits() -> None:
    assert [duration(s) for s in (5.2, 119, 121, 3600, 7300)] == ["5 s", "119 s", "2 min", "60 min", "2.0 h"]


def test_epochs_are_told_once_as_they_are_noted_and_the_last_ones_at_the_end(tmp_path: Path) -> None:
    path, heard = tmp_path / "run" / PROGRESS, Heard()
    note_epoch(path, 8, 0.9)  # of an interrupted run
    with followed(path, 4, heard):
        note_epoch(path, 0, 0.25)
        heard.wait_for(0.25)
        note_epoch(path, 1, None)  # not validated in full
        note_epoch(path, 2, 0.5)
        note_epoch(path, 3, 0.125)
    assert heard.lines == [f"epoch {n} of 4: val/dice {dice}" for n, dice in ((1, "0.250"), (3, "0.500"), (4, "0.125"))]
    assert heard.parts == [0.25, 0.75, 1.0]
    assert list(path.parent.iterdir()) == []
