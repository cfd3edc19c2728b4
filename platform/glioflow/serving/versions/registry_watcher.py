"""Serve's configuration, and the watcher that changes it when the registry's aliases move.

Serve gets the application's whole configuration each time, as from `serve deploy` with a file: if only
`user_config` changed, replicas are reconfigured without replacement, while a second `serve.run` from Python would start
every replica anew.
"""

import time
from collections.abc import Callable

import ray

from glioflow import cluster
from glioflow.cluster.logins import has_password
from glioflow.cluster.storage import home, home_uri, tracking_uri
from glioflow.serving.settings import APP, ServeSettings
from glioflow.serving.versions.loaded import Wanted, find_wanted
from glioflow.serving.versions.serve_config import (
    ApplicationConfig,
    DeploymentConfig,
    deploy_application,
    read_details,
)

PREDICTOR = "predictor"


def deploy(wanted: Wanted, settings: ServeSettings) -> None:
    """Deploy the application; keep other applications."""
    deploy_application(_with_wanted(_application(APP, settings), wanted))


def follow(app: str, settings: ServeSettings) -> Wanted | None:
    """Reconfigure the predictors of an application if the registry's aliases have moved.

    Their last configuration is read from Serve instead of being remembered, so that a watcher may restart, and a user
    may deploy a changed file beside it.

    Args:
        app: Name of the Serve application.
        settings: Used if the application was deployed from Python, so that Serve has no configuration for it.

    Returns:
        The new versions; None if nothing changed or Serve is still applying the last change.

    Raises:
        GlioflowError: If the registry has no champion or is unreachable.
    """
    details = read_details().get("applications", {}).get(app)
    if details is None or details["status"] in ("DEPLOYING", "DELETING"):
        return None
    config = details.get("deployed_app_config") or _application(app, settings)
    last = _wanted_in(config) or Wanted(name=settings.name, trial=settings.trial)
    now = find_wanted(last.name, last.trial)
    if (now.champion, now.challenger) == (last.champion, last.challenger):
        return None
    before = last.champion if now.champion != last.champion else last.before
    wanted = now.model_copy(update={"before": before})
    deploy_application(_with_wanted(config, wanted))
    return wanted


def watch(app: str, settings: ServeSettings, say: Callable[..., None]) -> None:
    """Watch forever; call `say(event, **facts)` for each change, and for each new reason of a failure."""
    failure = None
    while True:
        try:
            wanted, failure = follow(app, settings), None
            if wanted is not None and wanted.champion is not None:
                say("wanted", **wanted.champion.model_id)
        except Exception as error:  # the registry may be unreachable: keep the served version
            if failure != (failure := type(error).__name__):
                say("not_followed", reason=failure)
        time.sleep(settings.watch_s)


def _application(app: str, settings: ServeSettings) -> ApplicationConfig:
    environment = dict(ray.get_runtime_context().runtime_env)
    folders = {"GLIOFLOW_HOME": home_uri() or str(home())}
    if not has_password(tracking_uri()):  # else it is passed in a file
        folders["MLFLOW_TRACKING_URI"] = tracking_uri()
    return {
        "name": app,
        "route_prefix": "/",
        "import_path": "glioflow.serving.gateway:build",
        "args": settings.model_dump(mode="json"),
        "runtime_env": {
            **{key: environment[key] for key in ("working_dir", "py_modules") if environment.get(key)},
            "env_vars": {**cluster.process_environment(), **(environment.get("env_vars") or {}), **folders},
        },
    }


def _wanted_in(config: ApplicationConfig) -> Wanted | None:
    """Return the predictors' part of a configuration."""
    for deployment in config.get("deployments", []):
        if deployment["name"] == PREDICTOR and deployment.get("user_config"):
            return Wanted.model_validate(deployment["user_config"])
    return None


def _with_wanted(config: ApplicationConfig, wanted: Wanted) -> ApplicationConfig:
    """Return the configuration with the wanted versions for the predictors."""
    deployments = list(config.get("deployments", []))
    if all(deployment["name"] != PREDICTOR for deployment in deployments):
        deployments.append({"name": PREDICTOR})
    user_config = wanted.model_dump(mode="json")

    def changed(deployment: DeploymentConfig) -> DeploymentConfig:
        return {**deployment, "user_config": user_config} if deployment["name"] == PREDICTOR else deployment

    return {**config, "deployments": [changed(deployment) for deployment in deployments]}
