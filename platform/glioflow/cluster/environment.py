"""Environment variables of every GlioFlow process, here and on workers, set before the libraries are imported."""

import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from glioflow.cluster.logins import has_password
from glioflow.cluster.ray_internals import kept
from glioflow.errors import DOOR, PYTHON, UserError

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow would retry an unreachable store for four minutes and block a training; GlioFlow does the waiting instead.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    # A process that booked no GPU sees none; Ray would show it all. (0 only silenced Ray's notice of that.)
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Workers keep the driver's working folder, to which relative paths (such as of weights) refer.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Serve's controller ends itself within the call that stops it, which Ray reports to the driver as a failure.
    "RAY_DEDUP_LOGS_SKIP_REGEX": r"Task ServeController\.graceful_shutdown failed",
    # For a local cluster on a busy machine: Ray abandons its dashboard, and with it the cluster, after 60 and 30 s, and
    # kills and replaces workers that take 60 s to start.
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "120",
    # Ray would silently retry forever a task whose worker it ended for memory.
    "RAY_task_oom_retries": "2",
    # Fast path of a single slice through Serve: gRPC between proxy and gateway (with Ray's token), and data below
    # 1 MiB sent with the call instead of through the object store (benchmarks/serving.md).
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_max_direct_call_object_size": str(2**20),
    # Serve considers a proxy dead after three failed checks in a row, ten seconds apart by default, or if
    # it did not start in fifteen seconds, as on a busy machine.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    # Middleware for every request in Serve's proxy: see `glioflow.serving.http.front_door`.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "glioflow.serving.http.front_door:middlewares",
}
# Of Ray, whatever the system: at 0 a node that starts here has the address 127.0.0.1, and every port of it, that of its
# metrics too, listens on loopback alone. (`_node_ip_address` does not do that.)
_SEVERAL_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_NO_PROXIES = ("NO_PROXY", "no_proxy")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "GRPC_PROXY", "ALL_PROXY")
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Variables of the driver that its workers need too, besides all of MLflow's. (Not all of AWS's: the role of a
# machine belongs to that machine.)
_OF_MLFLOW = "MLFLOW_"
_CARRIED = (
    "GLIOFLOW_HOME",
    "GLIOFLOW_CACHE",
    "GLIOFLOW_DATA",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_MAX_ATTEMPTS",
    "AWS_RETRY_MODE",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_EC2_METADATA_DISABLED",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GLIOFLOW_VERBOSE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
)
# Words in the names of those that are secret; any address with a password is secret too.
_SECRET = re.compile(r"PASSWORD|PASSPHRASE|SECRET|TOKEN|_KEY$|_EXTRA_ARGS$")
_RENEWED = ("AWS_ACCESS_KEY_ID",)
# Names the file from which workers read secrets, because Ray logs the variables that it passes on.
SECRETS_FILE = "GLIOFLOW_SECRETS_FILE"
# Names the value that the cluster stores for them instead.
SECRETS_KEY = "GLIOFLOW_SECRETS_KEY"
# Secrets that may be given as files, by NAME_FILE.
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "GLIOFLOW_SERVE_TOKEN", "GLIOFLOW_STUDIES_URI")


def process_environment() -> dict[str, str]:
    """Return the variables of every GlioFlow process: the user's value if set, else the default."""
    return {name: os.environ.get(name, default) for name, default in DEFAULTS.items()}


def worker_environment() -> dict[str, str]:
    """Return the variables that workers get through Ray's runtime environment; none is secret.

    Variables set by a Ray job's runtime environment are left out: workers have them, and Ray refuses duplicates.
    """
    proxies = {name: os.environ[name] for name in _NO_PROXIES if name in os.environ}
    door = {DOOR: os.environ.get(DOOR, PYTHON)}  # a cluster may have been started by another
    values = {**process_environment(), **_carried(), **proxies, **door}
    return {name: value for name, value in values.items() if name not in _job_variables() and not _is_secret(name)}


def secret_environment() -> dict[str, str]:
    """Return the secret variables, which workers get in a file that only this user can read."""
    return {name: value for name, value in _carried().items() if name not in _job_variables() and _is_secret(name)}


def surroundings() -> dict[str, str]:
    """Return the workers' variables that are not secret, except names that change with a secret."""
    return {name: value for name, value in _carried().items() if not _is_secret(name) and name not in _RENEWED}


def _carried() -> dict[str, str]:
    # A secret given as a file is not sent, nor is the file's path: each node has its own file.
    of_mlflow = {name for name in os.environ if name.startswith(_OF_MLFLOW) and not name.endswith("_FILE")}
    names = sorted(of_mlflow | {name for name in _CARRIED if name in os.environ})
    return {name: os.environ[name] for name in names if f"{name}_FILE" not in os.environ}


def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None or has_password(os.environ.get(name, ""))


def silence() -> None:
    """Turn off telemetry and irrelevant warnings, read secrets that are given as files, and show logs if asked to.

    Values that the user set are kept, here and on the workers.

    Raises:
        UserError: If such a file cannot be read.
    """
    os.environ.update(process_environment())
    log = logging.getLogger("glioflow")
    if os.environ.get("GLIOFLOW_VERBOSE") and not log.handlers:  # Python drops what is not at least a warning
        log.setLevel(logging.INFO)
        log.addHandler(logging.StreamHandler())
        log.propagate = False  # Ray Train's workers have a handler of their own, which would show each line again
    if not (in_ray_job() or "ray" in sys.modules):  # Ray reads it when it is imported
        address = os.environ.get("RAY_ADDRESS")
        if not address or _is_on_loopback_alone(address):
            os.environ.setdefault(_SEVERAL_NODES, "0")
    bypass_proxies()
    for name in _SECRETS:  # containers get secrets as files
        file = os.environ.get(f"{name}_FILE")
        if file and name not in os.environ:
            os.environ[name] = _read_secret(name, Path(file))
    if file := os.environ.get(SECRETS_FILE):
        for name, value in json.loads(_read_secret(SECRETS_FILE.removesuffix("_FILE"), Path(file))).items():
            os.environ.setdefault(name, value)
    if (key := os.environ.get(SECRETS_KEY)) and (left := kept(key)) is not None:
        for name, value in json.loads(left).items():
            os.environ.setdefault(name, value)


def bypass_proxies(addresses: Iterable[str] = ()) -> None:
    """Bypass the environment's proxy for this machine and `addresses`, also in Ray's gRPC.

    Otherwise calls from Serve to the gateway would go through a hospital's proxy, and every request would hang.
    """
    if not any(os.environ.get(each) for name in _PROXIES for each in (name, name.lower())):
        return
    # Either name may be set, and most clients read only one.
    given = [each.strip() for name in _NO_PROXIES for each in os.environ.get(name, "").split(",") if each.strip()]
    ours = [*sorted(own_names()), *addresses]
    if "*" in given:  # means every host, but only if it is the only entry, and gRPC does not support it
        os.environ.update(dict.fromkeys(_NO_PROXIES, "*") | {"no_grpc_proxy": ",".join(ours)})
        return
    os.environ.update(dict.fromkeys(_NO_PROXIES, ",".join(dict.fromkeys([*given, *ours]))))


def own_names() -> set[str]:
    """Return the names and addresses of this machine, including loopback."""
    families = (socket.AF_INET, socket.AF_INET6)
    listed = (address for each in psutil.net_if_addrs().values() for address in each if address.family in families)
    return {"localhost", "127.0.0.1", "::1", socket.gethostname(), *(each.address.partition("%")[0] for each in listed)}


def _is_on_loopback_alone(address: str) -> bool:
    """Return whether a port of this machine answers on loopback only, like that of another command's cluster."""
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost") or not re.fullmatch(r"[0-9]{1,5}", port):
        return False
    numbers = (each for each in own_names() if re.fullmatch(r"[0-9.]+", each) and not each.startswith("127."))
    return not any(_answers(each, int(port)) for each in numbers)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except (OSError, OverflowError):
        return False
    return True


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
