"""What GlioFlow uses of MLflow (3.17) beneath its public interface: all of it, with the reason, in this one module.

`tests/tracking/test_mlflow_internals.py` fails as soon as MLflow gives one of these in public; then it goes from here.
"""

import re
from pathlib import Path
from typing import Any

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request


def artifact_store(address: str, *, tracking_uri: str) -> Any:
    """Return the store of the artifacts below an address.

    MLflow's client deletes no artifact (https://github.com/mlflow/mlflow/issues/1555), and asks the tracking store for
    a run's address whenever it writes one.
    """
    return get_artifact_repository(address, tracking_uri=tracking_uri)


def ask_server(uri: str, endpoint: str, *, params: dict[str, Any], timeout_s: float) -> int:
    """Return the HTTP status of one request to a tracking server, with its certificates and passwords.

    MLflow's client waits and retries as the environment of the whole process says
    (https://github.com/mlflow/mlflow/issues/5744), for minutes.

    Raises:
        OSError, MlflowException: If nobody answers.
    """
    answer = http_request(
        get_default_host_creds(uri),
        endpoint,
        "GET",
        params=params,
        timeout=timeout_s,
        max_retries=0,
        raise_on_status=False,
    )
    return int(answer.status_code)


def log_picture(client: Any, run_id: str, path: Path, *, key: str, step: int, when_ms: int) -> None:
    """Log a PNG through MLflow's `client` as the picture `key` of a step, unless that step has one.

    `log_image` logs a picture again, under a new random name, whenever it is called, and MLflow has no call that lists
    the pictures of a step. A writer that sends its spool a second time must not show every picture twice.
    """
    key = re.sub(r"[^A-Za-z0-9_\-./ ]", "-", key)  # other characters are refused
    if has_picture([entry.path for entry in client.list_artifacts(run_id, "images")], key, step):
        client.set_tag(run_id, "mlflow.loggedImages", True)  # log_image sets it last, and may have died before
    else:
        client.log_image(run_id, mlflow.Image(str(path)), key=key, step=step, timestamp=when_ms)


def has_picture(names: list[str], key: str, step: int) -> bool:
    """Return whether MLflow's image files of a run hold the whole picture `key` of a step, its small copy too."""
    start = f"images/{key.replace('/', '~')}+step+{step}+"
    return any(name.startswith(start) and name.endswith(".webp") for name in names)  # written after the full one
