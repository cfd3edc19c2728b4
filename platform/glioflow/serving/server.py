"""Starting and ending the endpoint."""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from glioflow import cluster
from glioflow.config.places import home
from glioflow.errors import RunFailed, UserError
from glioflow.serving.settings import Limits
from glioflow.tracking import Tracking

Say = Callable[[str], None]


@contextmanager
def serving(name: str | None, *, host: str, port: int, limits: Limits | None = None) -> Iterator[dict[str, Any]]:
    """Serve the champion of `name` for the length of a block.

    Args:
        name: Of the registered model; None takes the only one.
        host: To listen on.
        port: To listen on.
        limits: Of a request.

    Yields:
        What is served: `name`, `version`, `run_id`, `url`.

    Raises:
        UserError: If there is no champion, or the port is taken.
        RunFailed: If the deployments do not come up.
    """
    limits = limits or Limits()
    config = champion_config(name)
    check_port(host, port)
    cluster.connect()
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    from glioflow.serving.gateway import Gateway, PredictorReplica

    serve.start(
        http_options=HTTPOptions(host=host, port=port),
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # serve.start() had set its own
    # Ray's decorators make deployments of the classes, which type checkers cannot see.
    gateway, predictor = cast(Any, Gateway), cast(Any, PredictorReplica)
    app = gateway.options(ray_actor_options={"num_cpus": 0.2}).bind(
        predictor.options(
            user_config=config, ray_actor_options={"num_cpus": 1}, max_queued_requests=limits.queued
        ).bind(),
        limits,
    )
    try:
        try:
            serve.run(app, name="glioflow", route_prefix="/", blocking=False)
        except RuntimeError as error:
            raise RunFailed(f"the endpoint did not come up: {str(error).splitlines()[0]}") from error
        yield {**config, "url": f"http://{host}:{port}"}
    finally:
        serve.shutdown()


def champion_config(name: str | None) -> dict[str, Any]:
    """Return what a predictor replica is told: the champion's name, version, run and bundle.

    Raises:
        UserError: If there is no champion, or several models and no name.
    """
    tracking = Tracking()
    names = [each for each in tracking.names() if tracking.champion(each)]
    if name is None:
        if len(names) != 1:
            raise UserError(
                "say which model with --name" if names else "no model has a champion yet", choices=names or None
            )
        name = names[0]
    version = tracking.version(name)
    place = home() / "serving" / f"{name}-{version.version}"
    if not (place / "model.json").is_file():
        tracking.fetch_bundle(version, place)
    return {"name": name, "version": version.version, "run_id": version.run_id, "bundle": str(place)}


def serve_forever(name: str | None, *, host: str, port: int, say: Say) -> None:
    """Serve until Ctrl-C."""
    with cluster.ending(), serving(name, host=host, port=port) as served:
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
