"""A registered version through MLflow's own doors: nothing of ours is called."""

import json

import numpy as np
import pytest

from bundles import describe
from glioflow import bundle
from glioflow.bundle.prediction import Predictor
from glioflow.data.case import Case
from glioflow.models import build_network
from glioflow.tracking import Tracking

STUDY = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3)).astype(np.uint8)


@pytest.fixture
def registered(tracking: Tracking, tiny, tmp_path):
    """Return a version and the folder of its bundle."""
    folder = tmp_path / "anything"
    bundle.save(folder, describe(tiny), build_network(tiny.model, in_channels=3, num_outputs=1).state_dict())
    run_id = tracking.start("tiny", "a run", tags={})
    tracking.finish(run_id)
    made = tracking.register("glioma", run_id, folder, tags={}, documents={"card.md": "# it"}, example=STUDY[:1])
    tracking.set_alias("glioma", "champion", 1)
    return made, folder


@pytest.fixture
def loaded(registered, tracking, monkeypatch):
    """Return the champion as MLflow loads it, unpickling forbidden."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"cloudpickle.{name}", None, raising=False)
    mlflow.set_tracking_uri(tracking.uri)
    try:
        yield mlflow.pyfunc.load_model("models:/glioma@champion")
    finally:
        mlflow.set_tracking_uri(None)


def test_mlflow_answers_what_the_bundle_answers(registered, loaded):
    case = Case("x", "x", STUDY, None, ("pre", "flair", "post"), (1, 2, 3))
    expected = Predictor.load(registered[1]).predict(case)
    answer = loaded.predict(STUDY)
    np.testing.assert_array_equal(answer["mask"], expected.segmentation.labels)
    assert answer["tumor"]["slices"] == expected.tumor["slices"]
    assert answer["features"]["volume"]["volume_px"] == expected.features.volume["volume_px"]
    assert "not for clinical use" in answer["notice"]
    assert loaded.predict(STUDY, params={"spacing_mm": [5.0, 1.0, 1.0]})["features"]["volume"]["volume_mm3"] == (
        pytest.approx(5 * answer["features"]["volume"]["volume_px"])
    )


def test_mlflow_knows_what_a_study_is_and_refuses_others(registered, loaded, tracking):
    from mlflow.exceptions import MlflowException

    (tensor,) = loaded.metadata.get_input_schema().inputs
    assert (tensor.type, tensor.shape) == (np.dtype(np.uint8), (-1, -1, -1, 3))
    assert loaded.metadata.metadata["channels"] == ["pre", "flair", "post"]
    example = loaded.metadata.load_input_example(str(tracking.download(registered[0].source)))
    assert example.shape == (1, 48, 48, 3)
    with pytest.raises(MlflowException, match="float32 does not match"):
        loaded.predict(STUDY.astype(np.float32))
    with pytest.raises(MlflowException):
        loaded.predict(STUDY[..., :2])


def test_a_versions_files_hold_no_pickle_and_pin_what_they_need(registered, tracking):
    folder = tracking.download(registered[0].source)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt", ".bin"))]
    assert {"MLmodel", "model_code.py", "requirements.txt", "card.md", "weights.safetensors", "model.json"} <= names
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in requirements)
    assert {"glioflow", "torch", "safetensors", "mlflow"} <= {line.split("==")[0] for line in requirements}
    assert tracking.document(registered[0], "card.md") == "# it"


def test_mlflow_refuses_a_bundle_that_was_changed(registered, tracking):
    import mlflow

    path = tracking.download(registered[0].source)
    weights = path / "artifacts" / "bundle" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match="was changed since the bundle was written"):
        mlflow.pyfunc.load_model(str(path))


def test_a_study_goes_through_mlflows_scoring_server_as_json(loaded):
    from mlflow.pyfunc.scoring_server import invocations

    body = json.dumps({"inputs": STUDY.tolist(), "params": {"clinical": '{"age_years": 40}'}})
    response = invocations(body, "application/json", loaded, loaded.metadata.get_input_schema())
    assert response.status == 200
    answer = json.loads(response.response)["predictions"]
    np.testing.assert_array_equal(answer["mask"], loaded.predict(STUDY)["mask"])
