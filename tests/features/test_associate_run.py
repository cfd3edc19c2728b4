"""The association as a run: what is measured, logged and shown."""

import json

import numpy as np
import pytest

from glioflow.errors import UserError
from glioflow.features import measure_mask
from glioflow.reports.association_figure import association_figure
from glioflow.runs.analysis.associate import associate_cohort
from glioflow.runs.crossval.run import OUT_OF_FOLD


def with_clusters(tmp_path, prepared):
    path = tmp_path / "clinical.csv"
    patients = [record.patient for record in prepared.records]
    path.write_text("Patient,RNASeqCluster\n" + "".join(f"{p},{1 + k % 2}\n" for k, p in enumerate(patients)))
    return path


def test_manual_masks_are_measured_tested_and_logged_with_figure_and_page(tmp_path, prepared, tracking):
    done = associate_cohort(prepared.path, with_clusters(tmp_path, prepared))
    assert [test.num_patients for test in done.association.tests] == [len(prepared.records)] * 3
    assert tracking.read_json(done.run_id, "association.json") == json.loads(done.association.model_dump_json())
    assert tracking.download(f"runs:/{done.run_id}/association.png").read_bytes().startswith(b"\x89PNG")
    tags = tracking.run(done.run_id).data.tags
    assert tags["glioflow.cohort"] == prepared.manifest.fingerprint
    assert {"glioflow.source", "glioflow.clinical", "command"} <= tags.keys()
    page = tracking.download(f"runs:/{done.run_id}/association.html").read_text()
    assert "&lt; .0002" in page
    assert "manual masks" in page
    area = next(one for one in done.association.aucs if one.published)
    assert f"{area.auc:.3f}" in page


def test_a_runs_out_of_fold_masks_can_be_taken_instead(tmp_path, prepared, tracking):
    run_id = tracking.start("some", "crossval", tags={})
    volume = measure_mask(np.pad(np.ones((2, 3, 4), bool), 2)).volume
    rows = [{"id": r.id, "features": {**volume, "bevr": 0.1 * (1 + k)}} for k, r in enumerate(prepared.records)]
    tracking.log_json(run_id, OUT_OF_FOLD, rows)
    done = associate_cohort(prepared.path, with_clusters(tmp_path, prepared), masks=run_id, feature_names=["bevr"])
    assert run_id in done.masks
    ((table, *_),) = [test.table for test in done.association.tests]
    assert sum(table) == 4  # at or below the median of eight
    with pytest.raises(UserError, match="of kind association"):
        associate_cohort(prepared.path, with_clusters(tmp_path, prepared), masks=done.run_id)


def test_the_figure_is_drawn_without_anything_published():
    test = {"feature": "mf", "cluster": "sex", "p_bonferroni": 0.5, "significant": False}
    auc = {"score": "mf", "cluster": "sex", "label": "f", "num_positive": 1, "auc": 0.5, "low": None, "high": None}
    assert association_figure([test], [auc | {"published": {}}]).startswith(b"\x89PNG")
