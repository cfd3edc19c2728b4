"""Every use of non-public parts of MLflow (3.17), with the reason for each.

`tests/tracking/test_mlflow_internals.py` fails as soon as MLflow makes one of these public; then remove it here.
"""

import re
from pathlib import Path
from typing import Any

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request


def artifact_store(address: str, *, tracking_uri: str) -> Any:
    """Return the artifact store at an address.

    MLflow's client cannot delete artifacts (https://github.com/mlflow/mlflow/issues/1555), and asks the tracking store
    for a run's address at every write.
    """
    return get_artifact_repository(address, tracking_uri=tracking_uri)


def ask_server(uri: str, endpoint: str, *, params: dict[str, Any], timeout_s: float) -> tuple[int, str]:
    """Return the HTTP status and the text of one request to a tracking server, with its certificates and passwords.

    MLflow's client waits and retries, for minutes, as set in the environment of the whole process
    (https://github.com/mlflow/mlflow/issues/5744).

    Raises:
        OSError, MlflowException: If no server answers.
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
    return int(answer.status_code), str(answer.text)


def log_picture(client: Any, run_id: str, path: Path, *, key: str, step: int, when_ms: int) -> None:
    """Log a PNG with MLflow's `client` as the picture `key` of a step, unless that step has one.

    Every call of `log_image` logs a picture under a new random name, and MLflow has no call that lists
    the pictures of a step. A writer that sends its spool a second time must not show every picture twice.
    """
    key = re.sub(r"[^A-Za-z0-9_\-./ ]", "-", key)  # MLflow refuses other characters
    if has_picture([entry.path for entry in client.list_artifacts(run_id, "images")], key, step):
        client.set_tag(run_id, "mlflow.loggedImages", True)  # log_image sets it last, and may have been interrupted
    else:
        client.log_image(run_id, mlflow.Image(str(path)), key=key, step=step, timestamp=when_ms)


def has_picture(names: list[str], key: str, step: int) -> bool:
    """Return whether a run's image files contain the picture `key` of a step and its thumbnail."""
    start = f"images/{key.replace('/', '~')}+step+{step}+"
    return any(name.startswith(start) and name.endswith(".webp") for name in names)  # written after the full picture
