"""A bundle as one of MLflow's logged models: what the Models tab shows of it, and versions that point to it."""

import json

import pytest

from bundles import describe
from glioflow import bundle
from glioflow.data.splits import make_split
from glioflow.models import build_network
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.registry.register import register
from glioflow.tracking.logged_models import delete_model, log_model, model_of
from glioflow.tracking.run import begin_run


@pytest.fixture
def run_id(tiny, prepared, tracking, tmp_path):
    """Return a finished run with a bundle, parameters, a data set and metrics."""
    made = tmp_path / "made"
    bundle.save(made, describe(tiny), build_network(tiny.model, in_channels=3, num_outputs=1).state_dict())
    setting = Setting(tiny, prepared, make_split(prepared.records, tiny.split), tracking)
    run_id = begin_run(tracking, opening_of(setting, "trial", "trial-001 s"))
    tracking.log_metrics(run_id, {"val/dice_mean": 0.7, "val/hd95_mean": 4.0, "train/loss": 0.1})
    tracking.log_folder(run_id, made, folder="bundle")
    tracking.finish(run_id)
    return run_id


def test_a_bundle_is_a_logged_model_with_its_parameters_and_its_metrics_on_its_data_set(tracking, run_id, prepared):
    model_id = log_model(tracking, run_id)
    run = tracking.run(run_id)
    (found,) = tracking.client.search_logged_models([run.info.experiment_id])
    assert (found.model_id, found.name, found.status) == (model_id, "trial-001-s", "READY")
    assert found.source_run_id == run_id
    assert found.params["model.architecture"] == "buda-unet"
    assert {metric.key: metric.value for metric in found.metrics} == {"val/dice_mean": 0.7, "val/hd95_mean": 4.0}
    assert {metric.dataset_digest for metric in found.metrics} == {prepared.manifest.fingerprint}
    assert model_of(run) == model_id, "the column Models of the run"
    assert found.tags["glioflow.bundle_of"] == f"runs:/{run_id}/bundle"


def test_it_is_made_once_and_the_run_keeps_each_metric_once(tracking, run_id):
    assert log_model(tracking, run_id) == log_model(tracking, run_id)
    assert len(tracking.client.search_logged_models([tracking.run(run_id).info.experiment_id])) == 1
    assert tracking.metric_history(run_id, "val/dice_mean") == [0.7]


def test_a_registered_version_points_to_its_model_and_the_runs_bundle_stays_valid(tracking, run_id):
    version = register(run_id, name="glioma")
    model_id = model_of(tracking.run(run_id))
    assert version.tags["glioflow.model"] == model_id
    linked = tracking.client.get_logged_model(model_id).tags["mlflow.modelVersions"]
    assert json.loads(linked) == [{"name": "glioma", "version": "1"}]
    assert tracking.find_bundle(f"runs:/{run_id}/bundle")[0].is_dir()
    assert tracking.find_bundle("glioma/1")[1].version == version.version


def test_a_model_whose_bundle_goes_goes_too(tracking, run_id):
    delete_model(tracking, run_id)
    log_model(tracking, run_id)
    delete_model(tracking, run_id)
    assert not tracking.client.search_logged_models([tracking.run(run_id).info.experiment_id])


def test_a_model_that_people_deleted_in_mlflow_is_made_again(tracking, run_id):
    first = log_model(tracking, run_id)
    tracking.client.delete_logged_model(first)
    register(run_id, name="glioma")
    second = model_of(tracking.run(run_id))
    assert second != first
    assert tracking.client.get_logged_model(second).status == "READY"
    assert log_model(tracking, run_id) == second
