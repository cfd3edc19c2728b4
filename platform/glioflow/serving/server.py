"""Starting and ending the endpoint from a terminal, and saying what happens to it."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from glioflow import cluster
from glioflow.errors import RunFailed, UserError
from glioflow.serving.settings import ServeSettings
from glioflow.serving.versions.loaded import find_wanted, place_of
from glioflow.serving.versions.registry_watcher import APP, deploy

Say = Callable[..., None]
_START_S = 300


@contextmanager
def serving(
    name: str | None,
    *,
    host: str,
    port: int,
    settings: ServeSettings | None = None,
    say: Say | None = None,
) -> Iterator[dict[str, Any]]:
    """Serve the champion of `name` for the length of a block, and whoever becomes champion meanwhile.

    Args:
        name: Of the registered model; None takes the only one.
        host: To listen on.
        port: To listen on.
        settings: Of the endpoint.
        say: Told of switches and refusals.

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
    telling = threading.Thread(target=_tell, args=(settings.watch_s, ended, say or _quiet), daemon=True)
    try:
        deploy(wanted, settings)
        _wait_until_running()
        telling.start()
        yield {**wanted.champion.said, "url": f"http://{host}:{port}"}
    finally:
        ended.set()
        if telling.is_alive():
            telling.join(10)
        serve.shutdown()


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


def _tell(every_s: float, ended: threading.Event, say: Say) -> None:
    """Say what is new until `ended`: the version that answers, and those that were refused."""
    from ray import serve

    told: dict[str, str] = {}
    while not ended.wait(every_s):
        try:
            card = serve.get_deployment_handle("predictor", APP).card.remote().result(timeout_s=5)
        except Exception:  # no replica may be there to say it
            continue
        answers = str(card["model"]["version"])
        if told.get("answers", answers) != answers:
            say(f"version {answers} answers now")
        for version, reason in card["serving"]["refused"].items():
            if told.get(version) != reason:
                say(f"REFUSED {version}: {reason}; version {answers} goes on answering")
        told = {"answers": answers, **card["serving"]["refused"]}


def _quiet(*_: object) -> None:
    """Say nothing."""


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
