"""The published figures, from the real tables (only where a developer has them)."""

import os
from pathlib import Path

import pytest

from glioflow.survival import SurvivalSettings, read_clinical
from glioflow.survival.evaluation import evaluate_stage

pytestmark = pytest.mark.real


def find(name):
    root = os.environ.get("GLIOFLOW_DATA")
    found = next(iter(sorted(Path(root).rglob(name))), None) if root else None
    if found is None:
        pytest.skip(f"{name} is not under GLIOFLOW_DATA")
    return found


def test_age_alone_gives_the_published_figures_on_brats():
    table = read_clinical(find("brats2020_survival_info.csv"))
    table["os_event"] = 1.0  # as published, which counts the one censored patient as a death
    chosen = SurvivalSettings(
        task="brats_days", shape_features=(), folds=500, penalties=(1e-9,), num_permutations=0, num_bootstrap=100
    )
    found = evaluate_stage(table, chosen)
    assert found.num_patients == 119
    assert found.metrics["accuracy"].value == pytest.approx(0.445, abs=5e-4)
    assert found.metrics["mse_days2"].value == pytest.approx(99380, abs=1)
    assert found.metrics["median_se_days2"].value == pytest.approx(26451, abs=1)
    assert found.metrics["spearman"].value == pytest.approx(0.397, abs=5e-4)
    assert found.baselines["majority"]["accuracy"].value == pytest.approx(0.387, abs=5e-4)


def test_the_two_tables_of_lgg_say_what_their_notes_say():
    table = read_clinical(find("lgg_data.csv"), outcomes=find("lgg_outcomes.csv"))
    assert len(table) == 65
    assert table["os_event"].sum() == 14
    assert table["pfi_event"].sum() == 25
    assert table["death01"].sum() == 12
    assert table["age_years"].notna().all()
