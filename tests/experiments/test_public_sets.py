"""Each public set in its tiny copy, as a stranger uses it: train with its preset, evaluate, predict, audit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glioflow as gf
from glioflow.config import Experiment
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.mask_file import read_mask
from glioflow.data.splits import make_split
from glioflow.data.synthetic.layouts import EXAMPLES, synthesize_layout
from glioflow.data.targets import TargetSettings
from glioflow.label_schemes import SCHEMES
from glioflow.planning.facts import measure_cohort
from glioflow.planning.rules import plan_target
from glioflow.runs.launch import open_cohort_for
from glioflow.runs.plan import Plan
from glioflow.runs.source import list_source
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker

# Sets whose labels a person must say.
ASKED = ("brats-2024-ped", "rhuh-gbm", "lumiere")


def tiny_for(scheme: str) -> Experiment:
    """Return an experiment of one step for the preset of a scheme."""
    return Experiment.model_validate(
        {
            "name": "tiny",
            "preprocess": [{"step": "percentile"}, {"step": "resize", "size": 32}],
            "target": {"preset": scheme},
            "split": {"method": "counts", "counts": [3, 1, 1]},
            "model": {"architecture": "buda-unet", "options": {"features": [4, 8]}},
            "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "precision": "fp32"},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_set_is_trained_on_evaluated_predicted_and_audited(name: str, tmp_path: Path, tracking: Any) -> None:
    scheme, cohort, new = EXAMPLES[name].scheme, tmp_path / "cohort", tmp_path / "new"
    synthesize_layout(name, cohort, patients=5)
    synthesize_layout(name, new, patients=1, seed=9)
    if name in ASKED:
        (cohort / "cohort.yaml").write_text(f"scheme: {scheme}")
    assert gf.check(cohort).ok
    experiment = tiny_for(scheme)
    prepared = open_cohort_for(experiment.preprocess, list_source(experiment, cohort), experiment.target)
    plan = Plan(
        experiment=experiment,
        prepared=prepared.path,
        split=make_split(prepared.records, experiment.split),
        run_id="none",
        tracking_uri="none",
        folder=tmp_path / "run",
        created="2026-01-01T00:00:00+00:00",
    )
    train_plan(plan, Worker(lambda *_: None))
    evaluated = gf.evaluate(str(plan.bundle), cohort)
    assert len(evaluated.per_patient) == len(prepared.records)
    written = gf.predict_studies(str(plan.bundle), [new], tmp_path / "answers").studies  # no scheme is needed for it
    assert len(written) == 1
    files = [file for file in new.rglob("*") if file.is_file()]
    assert np.array_equal(gf.load(str(plan.bundle)).predict(files).mask, read_mask(Path(written[0]["mask"]))[0])
    mask, spacing = read_mask(Path(written[0]["mask"]))
    assert spacing == (None if name == "figshare" else pytest.approx((4, 4, 4)))
    assert set(np.unique(mask)) <= {0, *SCHEMES[scheme].labels}
    assert gf.audit_experiment(experiment, cohort, train=False).leaks == []
    planned = {c.key.removeprefix("target."): c.value for c in plan_target(measure_cohort(open_cohort(cohort)))}
    assert TargetSettings.model_validate(planned) == experiment.target
