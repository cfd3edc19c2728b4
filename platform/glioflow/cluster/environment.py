"""The environment of every process of ours, here and on the workers: what is set before the libraries are imported."""

import json
import os
from pathlib import Path

from glioflow.errors import UserError

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow would ask a store that went away for four minutes, and a training would stand still; ours waits better.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A local cluster on a busy machine: Ray gives its dashboard up, and with it the cluster, after 60 and 30 s, and
    # kills workers that took 60 s to start, only to start others.
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "120",
    # A task whose worker was ended for memory would be tried again without end, and nobody would hear of it.
    "RAY_task_oom_retries": "2",
    # The way of a lone slice through Serve: gRPC between proxy and gateway (with Ray's token), and what has less than
    # 1 MiB goes with its call instead of through the object store (benchmarks/serving.md).
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_max_direct_call_object_size": str(2**20),
}
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Of the driver's environment, what its workers must see too.
_CARRIED = (
    "GLIOFLOW_HOME",
    "GLIOFLOW_DATA",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
)
# Secrets that may come as NAME_FILE.
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "GLIOFLOW_SERVE_TOKEN")


def process_environment() -> dict[str, str]:
    """Return the variables that every process of ours has: the user's values where there are any, else ours."""
    return {name: os.environ.get(name, default) for name, default in DEFAULTS.items()}


def worker_environment() -> dict[str, str]:
    """Return what the workers get of this process's environment, by Ray's runtime environment.

    What the runtime environment of a Ray job sets is left out: its workers have it already, and Ray refuses it twice.
    """
    # A secret that is given as a file is not sent around: the nodes have the file.
    carried = [name for name in _CARRIED if name in os.environ and f"{name}_FILE" not in os.environ]
    values = {**process_environment(), **{name: os.environ[name] for name in carried}}
    return {name: value for name, value in values.items() if name not in _job_variables()}


def silence() -> None:
    """Turn off what phones home, and warnings meant for others, and read secrets that are given as files.

    A value that the user set stays, here and on the workers.

    Raises:
        UserError: If such a file cannot be read.
    """
    os.environ.update(process_environment())
    for name in _SECRETS:  # as containers are given them
        file = os.environ.get(f"{name}_FILE")
        if file and name not in os.environ:
            os.environ[name] = _read_secret(name, Path(file))


def _read_secret(name: str, file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}_FILE must name a file that can be read", f"{file}: {error}") from None


def in_ray_job() -> bool:
    """Say whether this process was started by `ray job submit`."""
    return _JOB_CONFIG in os.environ


def _job_variables() -> set[str]:
    """Return the names of the variables that the job's own runtime environment sets."""
    config = json.loads(os.environ.get(_JOB_CONFIG, "{}"))
    return set((config.get("runtime_env") or {}).get("env_vars") or {})
