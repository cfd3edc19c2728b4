"""Starting and ending the endpoint, and the one watcher that sees the registry's aliases move."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from glioflow import cluster
from glioflow.config.places import home, tracking_uri
from glioflow.errors import GlioflowError, RunFailed, UserError
from glioflow.serving.settings import ServeSettings
from glioflow.serving.versions import Wanted, find_wanted, place_of

Say = Callable[..., None]
APP = "glioflow"
_START_S = 300
_WATCH_S = 3.0


@contextmanager
def serving(
    name: str | None,
    *,
    host: str,
    port: int,
    settings: ServeSettings | None = None,
    say: Say | None = None,
    watch_s: float = _WATCH_S,
) -> Iterator[dict[str, Any]]:
    """Serve the champion of `name` for the length of a block, and whoever becomes champion meanwhile.

    Args:
        name: Of the registered model; None takes the only one.
        host: To listen on.
        port: To listen on.
        settings: Of the endpoint.
        say: Told of switches and refusals.
        watch_s: How often the registry is asked.

    Yields:
        What is served: `name`, `version`, `run_id`, `url`.

    Raises:
        UserError: If there is no champion, or the port is taken.
        RunFailed: If the deployments do not come up.
    """
    settings = settings or ServeSettings()
    wanted = find_wanted(name or settings.name, settings.trial)
    assert wanted.champion is not None
    settings = settings.model_copy(update={"name": wanted.name})
    place_of(wanted.champion)
    check_port(host, port)
    cluster.connect()
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    serve.start(
        http_options=HTTPOptions(host=host, port=port, request_timeout_s=settings.limits.timeout_s + 30),
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # serve.start() had set its own
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(wanted, settings, ended, say, watch_s), daemon=True)
    try:
        deploy(wanted, settings)
        _wait_until_running()
        watcher.start()
        yield {**wanted.champion.said, "url": f"http://{host}:{port}"}
    finally:
        ended.set()
        if watcher.is_alive():
            watcher.join(10)
        serve.shutdown()


def deploy(wanted: Wanted, settings: ServeSettings) -> None:
    """Give Serve the application's configuration; where only `wanted` is new, replicas are told and none is replaced.

    It is the same as `serve deploy` with a file: a second `serve.run` from Python would start every replica anew.
    """
    import ray
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    environment = dict(ray.get_runtime_context().runtime_env)
    places = {"GLIOFLOW_HOME": str(home()), "MLFLOW_TRACKING_URI": tracking_uri()}
    application = {
        "name": APP,
        "route_prefix": "/",
        "import_path": "glioflow.serving.gateway:build",
        "args": settings.model_dump(mode="json"),
        "runtime_env": {
            **{key: environment[key] for key in ("working_dir", "py_modules") if environment.get(key)},
            "env_vars": {**cluster.QUIET, **(environment.get("env_vars") or {}), **places},
        },
        "deployments": [{"name": "predictor", "user_config": wanted.model_dump(mode="json")}],
    }
    client: Any = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [*_others(client), application]}))


def _others(client: Any) -> list[dict[str, Any]]:
    """Return the configurations of other people's applications, which a new one would otherwise take away."""
    applications = client.get_serve_details().get("applications", {})
    return [
        said["deployed_app_config"] for key, said in applications.items() if key != APP and said["deployed_app_config"]
    ]


def _wait_until_running() -> None:
    from ray import serve

    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        application = serve.status().applications.get(APP)
        if application is not None and application.status == "RUNNING":
            return
        if application is not None and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            lines = [line for line in application.message.splitlines() if line.strip()]
            raise RunFailed(f"the endpoint did not come up: {lines[-1] if lines else application.status}")
        time.sleep(0.1)
    raise RunFailed(f"the endpoint did not come up in {_START_S} s")


def _watch(wanted: Wanted, settings: ServeSettings, ended: threading.Event, say: Say | None, watch_s: float) -> None:
    """Follow the aliases until `ended`: this is the one place that changes what is served."""
    told: dict[str, str] = {}
    while not ended.wait(watch_s):
        try:
            now = find_wanted(settings.name, settings.trial)
            if (now.champion, now.challenger) != (wanted.champion, wanted.challenger):
                before = wanted.champion if now.champion != wanted.champion else wanted.before
                wanted = now.model_copy(update={"before": before})
                deploy(wanted, settings)
            told = _tell(wanted, told, say)
        except GlioflowError:  # the registry may be away: what is served goes on
            continue
        except Exception as error:
            if say is not None and not ended.is_set():
                say(f"the watcher could not follow the registry: {type(error).__name__}; it goes on")


def _tell(wanted: Wanted, told: dict[str, str], say: Say | None) -> dict[str, str]:
    """Say what is new: the version that answers, and those that were refused."""
    from ray import serve

    if say is None:
        return told
    card = serve.get_deployment_handle("predictor", APP).card.remote().result(timeout_s=5)
    answers = str(card["model"]["version"])
    if told.get("answers", answers) != answers:
        say(f"version {answers} answers now")
    for version, reason in card["serving"]["refused"].items():
        if told.get(version) != reason:
            say(f"REFUSED {version}: {reason}; version {answers} goes on answering")
    return {"answers": answers, **card["serving"]["refused"]}


def serve_forever(name: str | None, *, host: str, port: int, say: Say, settings: ServeSettings | None = None) -> None:
    """Serve until Ctrl-C."""
    with cluster.ending(), serving(name, host=host, port=port, settings=settings, say=say) as served:
        url = served["url"]
        say(f"serving {served['name']} version {served['version']} at {url} (docs at {url}/docs); Ctrl-C ends it")
        while True:
            time.sleep(3600)


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raise `UserError` where the port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError("--port must be free on --host", f"{host}:{port} ({error.strerror})") from None
