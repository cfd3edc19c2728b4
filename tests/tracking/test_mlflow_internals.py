"""What GlioFlow uses of MLflow beneath its public interface is still needed: a test fails once MLflow offers it.

Then the function that it names goes from `tracking/mlflow_internals.py`.
"""

import inspect

import PIL.Image
from mlflow import MlflowClient, artifacts

from glioflow.tracking.mlflow_internals import has_picture


def public(holder):
    return {name for name, value in vars(holder).items() if inspect.isroutine(value) and not name.startswith("_")}


def test_mlflows_client_deletes_no_artifact():
    assert not {name for name in public(MlflowClient) | public(artifacts) if "delete" in name and "artifact" in name}


def test_mlflows_client_takes_the_address_of_no_run():
    arguments = inspect.signature(MlflowClient.log_artifact).parameters
    assert list(arguments) == ["self", "run_id", "local_path", "artifact_path"]


def test_mlflows_client_takes_no_time_limit_of_its_own():
    arguments = inspect.signature(MlflowClient).parameters
    assert not {name for name in arguments if "timeout" in name or "retries" in name}


def test_mlflow_itself_still_logs_a_picture_again_whenever_it_is_sent(tracking, tmp_path):
    """Where this fails, MLflow logs a picture of one key, step and time once."""
    run_id = tracking.start("tiny", "x", tags={})
    picture = PIL.Image.new("RGB", (40, 30), "red")
    for _ in range(2):
        tracking.client.log_image(run_id, picture, key="overlays/a", step=1, timestamp=1000)
    names = [entry.path for entry in tracking.client.list_artifacts(run_id, "images")]
    assert len(names) == 4
    assert has_picture(names, "overlays/a", 1), "MLflow names its files otherwise"
    assert not has_picture(names, "overlays/a", 11)
