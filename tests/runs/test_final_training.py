"""A final training: the validation patients are learned from, and nothing is chosen on anyone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bundles import changed
from glioflow import bundle
from glioflow.runs.plan import Plan
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker

FIXED = {"postprocess": {"threshold": 0.4, "choose": False}}


def trained(experiment: Any, prepared: Any, split: dict[str, list[str]], folder: Path) -> bundle.Bundle:
    settings = {"prepared": prepared.path, "run_id": "r", "tracking_uri": "", "created": "2026-01-01T00:00:00+00:00"}
    plan = Plan.model_validate({"experiment": experiment, "split": split, "folder": folder, **settings})
    train_plan(plan, Worker(lambda *_: None))
    return bundle.load(plan.bundle)


def test_it_learns_from_the_validation_patients_as_if_they_trained(tiny: Any, prepared: Any, tmp_path: Path) -> None:
    ids = [record.id for record in prepared.records]
    training = {**tiny.training.model_dump(mode="json"), "keep": "last"}
    final = changed(tiny, training={**training, "final": True}, **FIXED)
    plain = changed(tiny, training=training, **FIXED)
    one = trained(final, prepared, {"train": ids[:3], "val": ids[3:5], "test": ids[5:]}, tmp_path / "final")
    other = trained(plain, prepared, {"train": ids[:5], "val": ids[5:6], "test": ids[6:]}, tmp_path / "plain")
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
    description = one.description
    assert description.origin.fitted_on["weights"] == "train and val"
    assert "postprocess" not in description.origin.fitted_on
    assert description.postprocess.threshold == 0.4
    assert not description.metrics  # a score on patients that it learned from would be none


@pytest.mark.parametrize("choice", [{"keep": "best"}, {"patience": 3}])
def test_it_refuses_to_choose_on_those_it_learns_from(tiny: Any, choice: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"training\.final .* nothing may be chosen"):
        changed(tiny, training={"final": True, "keep": "last", **choice}, **FIXED)
