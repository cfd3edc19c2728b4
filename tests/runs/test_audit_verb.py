"""The audit as a run: what leaks fails it, what does not leak is measured under both splits."""

import json

import pytest

from commands import answer_of
from glioflow.config.experiment import override
from glioflow.runs.analysis import audit as runs_audit
from glioflow.runs.analysis import leakage_gap
from glioflow.runs.analysis.audit import audit_experiment


@pytest.fixture
def here(monkeypatch):
    """Run what would be Ray's tasks in this process."""
    monkeypatch.setattr(runs_audit, "connect_for", lambda *_: None)
    monkeypatch.setattr(leakage_gap, "with_gpus", lambda experiment: experiment)
    monkeypatch.setattr(leakage_gap.cluster, "map_parallel", lambda function, items, **_: map(function, items))


@pytest.mark.usefixtures("here")
def test_a_clean_experiment_is_trained_under_both_splits_and_logged(tiny, prepared, tracking):
    done = audit_experiment(tiny, prepared.path)
    answer = done.answer()
    assert answer["leaks"] == []
    assert 0 <= answer["patient_split_dice"] <= 1
    assert 0 <= answer["slice_split_dice"] <= 1
    assert set(answer["baselines"]) == {"all_empty", "flair_threshold", "nearest_slice"}
    assert answer["baselines"]["all_empty"] == {"slice_split_dice": 0, "patient_split_dice": 0}
    assert answer["death01_example"]["num_patients"] <= len(prepared.records)
    run = tracking.run(done.run_id)
    assert run.data.tags["glioflow.kind"] == "audit"
    assert run.data.metrics["audit/patient_split/network/dice"] == answer["patient_split_dice"]
    page = tracking.download(f"runs:/{done.run_id}/audit.html").read_text()
    assert f"{answer['slice_split_dice']:.3f}" in page
    assert "image/png;base64" in page


@pytest.mark.usefixtures("here")
def test_the_split_by_slice_lives_in_the_audit_alone(tiny, prepared, tracking):
    before = tracking.find_all(tiny.name)
    done = audit_experiment(tiny, prepared.path, train=False)
    assert done.gap is None
    assert [run.info.run_id for run in tracking.find_all(tiny.name)] == [done.run_id, *(r.info.run_id for r in before)]
    assert not tracking.has_artifact(done.run_id, "bundle")


def split_file(tmp_path, prepared, *, shared):
    ids = [record.id for record in prepared.records]
    split = {"train": ids[:4], "val": ids[4:6], "test": ids[6:] + (ids[:1] if shared else [])}
    path = tmp_path / "split.json"
    path.write_text(json.dumps(split))
    return path, ids[0]


def test_a_patient_who_trains_and_tests_fails_the_experiment_with_exit_code_2(tmp_path, prepared, home, tracking):
    path, twice = split_file(tmp_path, prepared, shared=True)
    text = "name: leaky\npreprocess:\n- {step: unit}\n- {step: resize, size: 32}\n"
    (tmp_path / "leaky.yaml").write_text(text + f"split: {{method: file, file: {path}}}\n")
    code, output = answer_of("audit", str(tmp_path / "leaky.yaml"), "--data", str(prepared.path))
    assert code == 2
    rules = {leak["rule"] for leak in output["leaks"]}
    assert rules == {"one patient in two parts of the split"}
    assert twice.rsplit("_", 1)[0] in output["leaks"][0]["value"]
    assert output["patient_split_dice"] is None


@pytest.mark.usefixtures("here", "tracking")
def test_an_outcome_among_the_inputs_fails_the_experiment(tiny, prepared):
    leaky = override(tiny, {"survival.clinical": ["age_years", "death01"]})
    done = audit_experiment(leaky, prepared.path)
    assert [leak.value for leak in done.leaks] == ["death01"]
    assert done.gap is None


@pytest.mark.usefixtures("here", "tracking")
def test_a_split_that_lists_a_case_nobody_has_is_a_mistake_and_no_leak(tiny, tmp_path, prepared):
    path, _ = split_file(tmp_path, prepared, shared=False)
    path.write_text(path.read_text().replace("TCGA", "XXXX", 1))
    with pytest.raises(ValueError, match="has no case 'XXXX"):
        audit_experiment(override(tiny, {"split.method": "file", "split.file": str(path)}), prepared.path, train=False)
