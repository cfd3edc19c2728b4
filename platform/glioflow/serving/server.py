"""Start and stop of the endpoint from a terminal, with reports of its events."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ray import serve
from ray.exceptions import GetTimeoutError, RayActorError
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from glioflow import cluster
from glioflow.bundle.answer import ModelCard, ModelId
from glioflow.cluster.storage import home
from glioflow.errors import RunFailed, UserError, option
from glioflow.progress import Say, quiet, waiting
from glioflow.quantities import count
from glioflow.serving.http.front_door import LIMITS
from glioflow.serving.ports import check_port
from glioflow.serving.settings import APP, ServeSettings
from glioflow.serving.versions.loaded import fetch_version, find_wanted
from glioflow.serving.versions.registry_watcher import PREDICTOR, deploy

_START_S, _ANSWER_S = 300, 60


class ServedModel(ModelId):
    """The served model and its address."""

    url: str


@contextmanager
def serving(
    name: str | None,
    *,
    host: str,
    port: int,
    settings: ServeSettings | None = None,
    say: Say = quiet,
) -> Iterator[ServedModel]:
    """Serve the champion of `name` for the duration of a block, switching to each new champion.

    Args:
        name: Name of the registered model; None takes the only one.
        host: Address to listen on.
        port: Port to listen on.
        settings: Settings of the endpoint.
        say: Called with what is waited for, switches and refusals.

    Raises:
        UserError: If there is no champion, the port is taken, or the cluster can never hold the predictors.
        RunFailed: If the deployments do not come up.
    """
    settings = settings or ServeSettings()
    if not (cluster.is_connected() or cluster.joins()):
        _check_room(settings, cluster.of_this_machine(gpus=settings.gpus > 0))
    wanted = find_wanted(name or settings.name, settings.trial)
    assert wanted.champion is not None
    settings = settings.model_copy(update={"name": wanted.name})
    fetch_version(wanted.champion)
    check_port(host, port)
    os.environ[LIMITS] = settings.limits.model_dump_json()  # for the proxy of a cluster started here
    cluster.connect()
    _check_room(settings, cluster.resources())
    served: ServedModel = {**wanted.champion.model_id, "url": f"http://{host}:{port}"}
    with waiting(f"the endpoint to answer with {served['name']} version {served['version']}", say) as answered:
        _start_proxy(host, port, settings)
        ended = threading.Event()
        reporter = threading.Thread(target=_report, args=(settings.watch_s, ended, say), daemon=True)
        try:
            deploy(wanted, settings)
            _wait_until_running()
            _wait_until_answered(host, port)
            answered()
            reporter.start()
            yield served
        finally:
            ended.set()
            if reporter.is_alive():
                reporter.join(10)
            serve.shutdown()


def _start_proxy(host: str, port: int, settings: ServeSettings) -> None:
    logging.getLogger("ray.serve").addFilter(_is_warning)  # serve.start() sets the logger's level and reports itself
    try:
        serve.start(
            http_options=HTTPOptions(host=host, port=port, request_timeout_s=settings.limits.timeout_s + 30),
            logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
        )
    except (RayActorError, GetTimeoutError) as error:
        reason = "another process took the port, or too much runs on this machine; try again"
        raise RunFailed(f"Serve's proxy did not start at {host}:{port}: {reason}") from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # serve.start() had changed it


def _check_room(settings: ServeSettings, have: Mapping[str, float]) -> None:
    """Refuse predictors that do not fit on the cluster; raises `UserError` with the numbers."""
    if settings.gpus > 1 and settings.gpus % 1:
        raise UserError(
            f"{option('gpus')} must be a whole number above 1", settings.gpus, hint="a fraction shares one GPU"
        )
    for name, each in (("CPU", settings.cpus), ("GPU", settings.gpus)):
        if (need := each * settings.replicas) > have[name]:
            needs = "needs" if settings.replicas == 1 else "need"
            rule = f"{count(settings.replicas, 'predictor')} {needs} {need:g} {name}s"
            raise UserError(
                rule,
                f"a cluster of {have[name]:g}",
                hint=f"lower {option('replicas')} or {option('gpus')}{cluster.or_list_nodes()}",
            )


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _wait_until_running() -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        application = serve.status().applications.get(APP)
        if application is not None and application.status == "RUNNING":
            return
        if application is not None and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            # The deployment's message states the reason; the application's only names the deployment.
            messages = [application.message, *(each.message for each in application.deployments.values())]
            lines = [line.strip() for text in messages for line in text.splitlines() if line.strip()]
            raise RunFailed(f"the endpoint did not come up: {lines[-1] if lines else application.status}")
        time.sleep(0.1)
    raise RunFailed(f"the endpoint did not come up within {_START_S} s")


def _wait_until_answered(host: str, port: int) -> None:
    """Wait for one answer on the callers' path, which a network proxy or firewall may block."""
    import requests

    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}/readyz"
    deadline, reason = time.monotonic() + _ANSWER_S, "no answer"
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline:
            try:
                answer = session.get(url, timeout=5)
                if answer.status_code == 200:
                    return
                reason = f"status {answer.status_code}"
            except requests.RequestException as error:
                reason = type(error).__name__
            time.sleep(0.1)
    raise RunFailed(f"the endpoint came up and does not answer at {url} ({reason}): see {home() / 'serving' / 'log'}")


def _report(every_s: float, ended: threading.Event, say: Say) -> None:
    """Report changes until `ended`: the version that answers, and refused versions."""
    last_version = ""
    last_refused: dict[str, str] = {}
    while not ended.wait(every_s):
        try:
            card: ModelCard = serve.get_deployment_handle(PREDICTOR, APP).card.remote().result(timeout_s=5)
        except Exception:  # there may be no replica
            continue
        version, refused = str(card["model"]["version"]), card["serving"]["refused"]
        if last_version and last_version != version:
            say(f"version {version} answers now")
        for name, reason in refused.items():
            if last_refused.get(name) != reason:
                say(f"REFUSED {name}: {reason}; version {version} keeps answering")
        last_version, last_refused = version, refused


def serve_forever(name: str | None, *, host: str, port: int, say: Say, settings: ServeSettings | None = None) -> None:
    """Serve until Ctrl-C."""
    with cluster.ending(), serving(name, host=host, port=port, settings=settings, say=say) as served:
        url = served["url"]
        say(f"serving {served['name']} version {served['version']} at {url} (docs at {url}/docs); Ctrl-C ends it")
        while True:
            time.sleep(3600)
