"""What Serve is told to serve, and the one watcher that changes it when the registry's aliases move.

Told is always the whole application's configuration, as `serve deploy` does with a file: where only `user_config` is
new, replicas are told and none is replaced, while a second `serve.run` from Python would start every replica anew.
"""

import time
from collections.abc import Callable
from typing import Any

from glioflow import cluster
from glioflow.cluster.storage import home, tracking_uri
from glioflow.serving.settings import ServeSettings
from glioflow.serving.versions.loaded import Wanted, find_wanted

APP = "glioflow"


def deploy(wanted: Wanted, settings: ServeSettings) -> None:
    """Give Serve the application; other people's applications stay."""
    _apply(APP, _application(APP, settings), wanted)


def follow(app: str, settings: ServeSettings) -> Wanted | None:
    """Tell the predictors of an application what the registry's aliases mean now.

    What they were told last is read from Serve and not remembered, so that a watcher may die, and a person may deploy a
    changed file beside it.

    Args:
        app: Of Serve.
        settings: Used where the application came from Python, so that Serve has no configuration of it.

    Returns:
        What is new; None where nothing is, or Serve is still busy with the last change.

    Raises:
        GlioflowError: If the registry has no champion or is away.
    """
    said = _client().get_serve_details().get("applications", {}).get(app, {})
    if said.get("status") in (None, "DEPLOYING", "DELETING"):
        return None
    config = said.get("deployed_app_config") or _application(app, settings)
    told = Wanted(name=settings.name, trial=settings.trial)
    for deployment in config.get("deployments", []):
        if deployment["name"] == "predictor" and deployment.get("user_config"):
            told = Wanted.model_validate(deployment["user_config"])
    now = find_wanted(told.name, told.trial)
    if (now.champion, now.challenger) == (told.champion, told.challenger):
        return None
    before = told.champion if now.champion != told.champion else told.before
    wanted = now.model_copy(update={"before": before})
    _apply(app, config, wanted)
    return wanted


def watch(app: str, settings: ServeSettings, say: Callable[..., None]) -> None:
    """Follow without end; `say(event, **facts)` is told of each change, and of each new reason not to follow."""
    failure = None
    while True:
        try:
            wanted, failure = follow(app, settings), None
            if wanted is not None and wanted.champion is not None:
                say("wanted", **wanted.champion.said)
        except Exception as error:  # the registry may be away: what is served goes on
            if failure != (failure := type(error).__name__):
                say("not_followed", reason=failure)
        time.sleep(settings.watch_s)


def _application(app: str, settings: ServeSettings) -> dict[str, Any]:
    import ray

    environment = dict(ray.get_runtime_context().runtime_env)
    places = {"GLIOFLOW_HOME": str(home()), "MLFLOW_TRACKING_URI": tracking_uri()}
    return {
        "name": app,
        "route_prefix": "/",
        "import_path": "glioflow.serving.gateway:build",
        "args": settings.model_dump(mode="json"),
        "runtime_env": {
            **{key: environment[key] for key in ("working_dir", "py_modules") if environment.get(key)},
            "env_vars": {**cluster.process_environment(), **(environment.get("env_vars") or {}), **places},
        },
    }


def _apply(app: str, config: dict[str, Any], wanted: Wanted) -> None:
    from ray.serve.schema import ServeDeploySchema

    client = _client()
    details = client.get_serve_details()
    told = {"name": "predictor", "user_config": wanted.model_dump(mode="json")}
    given = config.get("deployments", [])
    changed = [{**each, **told} if each["name"] == "predictor" else each for each in given]
    if all(each["name"] != "predictor" for each in given):
        changed.append(told)
    # Serve takes away every application that came as a configuration and is not in the next one.
    others = [
        each["deployed_app_config"]
        for key, each in details.get("applications", {}).items()
        if key != app and each.get("deployed_app_config")
    ]
    all_of_it = {"applications": [*others, {**config, "deployments": changed}]}
    if details.get("target_capacity") is not None:
        all_of_it["target_capacity"] = details["target_capacity"]
    client.deploy_apps(ServeDeploySchema.model_validate(all_of_it))


def _client() -> Any:
    from ray.serve.context import _get_global_client

    return _get_global_client()
