"""The configuration of Ray Serve, read and written with its REST API, as the command `serve deploy` does.

The API is part of Ray's dashboard, which must be reachable; Ray's token is sent if the cluster has one.
"""

from functools import lru_cache
from typing import Any, NotRequired, TypedDict, cast

import ray
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.job_submission import JobSubmissionClient

from glioflow.errors import RunFailed, one_line
from glioflow.json_values import JsonObject


class DeploymentConfig(TypedDict):
    """The settings of one deployment in an application's configuration: keys of Serve's `DeploymentSchema`."""

    name: str
    user_config: NotRequired[JsonObject]


class ApplicationConfig(TypedDict):
    """One application, with the keys of Serve's `ServeApplicationSchema`."""

    name: str
    route_prefix: NotRequired[str]
    import_path: NotRequired[str]
    args: NotRequired[JsonObject]
    runtime_env: NotRequired[JsonObject]
    deployments: NotRequired[list[DeploymentConfig]]


class ApplicationDetails(TypedDict):
    """Serve's details of an application; the configuration is None if it was deployed from Python."""

    status: str
    deployed_app_config: ApplicationConfig | None


class ServeDetails(TypedDict, total=False):
    """Serve's details: the parts of `ServeInstanceDetails` that are used here."""

    applications: dict[str, ApplicationDetails]
    target_capacity: float | None


def read_details() -> ServeDetails:
    """Return Serve's current state.

    Raises:
        RunFailed: If Ray's dashboard cannot be reached, or refuses.
    """
    return cast(ServeDetails, _ask("get_serve_details"))


def deploy_application(config: ApplicationConfig) -> None:
    """Deploy a new or changed application; keep other applications and the target capacity.

    Raises:
        RunFailed: If Ray's dashboard cannot be reached, or refuses.
    """
    details = read_details()
    # Serve removes every configured application that the next configuration lacks.
    others = [
        kept
        for name, each in details.get("applications", {}).items()
        if name != config["name"] and (kept := each.get("deployed_app_config"))
    ]
    everything: dict[str, object] = {"applications": [*others, config]}
    if details.get("target_capacity") is not None:
        everything["target_capacity"] = details["target_capacity"]
    _ask("deploy_applications", everything)


def _ask(method: str, *arguments: Any) -> Any:
    cluster = ray.get_runtime_context().gcs_address
    try:
        return getattr(_client(cluster), method)(*arguments)
    except (OSError, RuntimeError) as error:  # Ray raises the latter for every status but 200
        _client.cache_clear()  # the dashboard may return at another address
        reason = one_line(error, most=300)
        raise RunFailed(f"Ray's dashboard, through which Serve is configured, does not answer ({reason})") from error


@lru_cache(maxsize=1)
def _client(cluster: str) -> ServeSubmissionClient:
    return ServeSubmissionClient(JobSubmissionClient(cluster).get_address())
