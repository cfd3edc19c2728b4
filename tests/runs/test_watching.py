"""Validation cases drawn over the epochs."""

import numpy as np
import pytest

from bundles import changed
from glioflow.data.splits import make_split
from glioflow.runs.plan import Plan
from glioflow.runs.train.overlays import OVERLAYS, Watch
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker


def test_a_watched_training_draws_its_first_and_last_epoch(tiny, prepared, tmp_path):
    experiment = changed(tiny, training={**tiny.training.model_dump(mode="json"), "steps_per_epoch": 1})
    split = make_split(prepared.records, experiment.split)
    settings = {"experiment": experiment, "prepared": prepared.path, "split": split, "run_id": "x", "tracking_uri": "x"}
    plan = Plan(**settings, folder=tmp_path, created="2026-01-01T00:00:00+00:00", watched=True)
    train_plan(plan, Worker(lambda *_: None))
    drawn = {path.relative_to(tmp_path / OVERLAYS).as_posix() for path in (tmp_path / OVERLAYS).rglob("*.png")}
    assert drawn == {f"{case_id}/epoch-{epoch:03}.png" for case_id in split.val for epoch in (1, 2)}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.rglob("*.png"))


@pytest.mark.parametrize(("epochs", "drawn"), [(1, [0]), (3, [0, 1, 2]), (100, [0, 14, 28, 42, 57, 71, 85, 99])])
def test_long_trainings_are_drawn_at_a_few_epochs_and_few_cases(prepared, tmp_path, epochs, drawn):
    watch = Watch(tmp_path, prepared.cases([record.id for record in prepared.records]), epochs=range(epochs))
    assert sorted(watch.epochs) == drawn
    assert len(watch.cases) == 3
    other = prepared.case(prepared.records[5].id)
    watch.see(other, np.ones(other.record.shape, bool))
    watch.drawing(0)()
    assert list(tmp_path.rglob("*.png")) == []
