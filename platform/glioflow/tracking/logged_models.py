"""Bundles as MLflow's logged models, so that its Models tab lists and compares them with parameters and metrics.

The files stay in the run's artifact `bundle`; the model refers to them.
"""

import json
from typing import Any

from glioflow.tracking.runs import Runs

# Tag of a logged model: location of its bundle.
BUNDLE_OF = "glioflow.bundle_of"
# Tag of a version: its logged model. MLflow records this only for models stored in its own locations.
MODEL = "glioflow.model"
_VERSIONS = "mlflow.modelVersions"
_TYPE = "segmentation"
_MAX_PARAM = 250
_ON_PATIENTS = ("val/", "test/", "oof/")


def log_model(tracking: Runs, run_id: str) -> str:
    """Return the id of the logged model of a run's bundle; create it if it does not exist or was deleted.

    It has the run's name, parameters, and metrics on the run's data set.
    """
    from mlflow.entities import LoggedModelOutput

    run = tracking.run(run_id)
    if (known := model_of(run)) is not None and _exists(tracking, known):
        return known
    model = tracking.client.create_logged_model(
        run.info.experiment_id,
        name=_name(run),
        source_run_id=run_id,
        tags={BUNDLE_OF: f"runs:/{run_id}/bundle"},
        params={key: value[:_MAX_PARAM] for key, value in run.data.params.items()},
        model_type=_TYPE,
    )
    model_id = str(model.model_id)
    tracking.log_batch(run_id, metrics=_metrics(tracking, run, model_id))
    tracking.client.finalize_logged_model(model_id, "READY")
    # Written last: it marks the model as complete.
    made_before = len(run.outputs.model_outputs) if run.outputs else 0
    tracking.client.log_outputs(run_id, [LoggedModelOutput(model_id, made_before)])
    return model_id


def link_version(tracking: Runs, model_id: str, name: str, version: str) -> None:
    """Make MLflow's page of a logged model show a registered version of it."""
    known = json.loads(tracking.client.get_logged_model(model_id).tags.get(_VERSIONS, "[]"))
    linked = [*known, {"name": name, "version": version}]
    tracking.client.set_logged_model_tags(model_id, {_VERSIONS: json.dumps(linked)})


def model_of(run: Any) -> str | None:
    """Return the id of the newest logged model of MLflow's `run`, or None."""
    outputs = run.outputs.model_outputs if run.outputs else []
    return str(max(outputs, key=lambda output: output.step).model_id) if outputs else None


def delete_model(tracking: Runs, run_id: str) -> None:
    """Remove the logged model of a run whose bundle is removed."""
    if (model_id := model_of(tracking.run(run_id))) is not None:
        tracking.client.delete_logged_model(model_id)


def _exists(tracking: Runs, model_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _name(run: Any) -> str:
    """Return a name with only characters that MLflow allows."""
    return "".join("-" if letter in "/:.%\"' " else letter for letter in run.info.run_name)


def _metrics(tracking: Runs, run: Any, model_id: str) -> list[Any]:
    """Return the run's metrics on patients as the model's, at their own time and step, so the run keeps each once."""
    from mlflow.entities import Metric

    run_id, inputs = run.info.run_id, run.inputs.dataset_inputs if run.inputs else []
    on = {"dataset_name": inputs[0].dataset.name, "dataset_digest": inputs[0].dataset.digest} if inputs else {}
    keys = [key for key in run.data.metrics if key.startswith(_ON_PATIENTS) and key.endswith("_mean")]
    last = [tracking.client.get_metric_history(run_id, key)[-1] for key in keys]
    return [
        Metric(each.key, each.value, each.timestamp, each.step, model_id=model_id, run_id=run_id, **on) for each in last
    ]
