"""The endpoint over HTTP in one process, for the page's tests: everything but Ray."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from glioflow.serving.engine.batching import BatchedPredictor
from glioflow.serving.http.feedback import Feedback
from glioflow.serving.http.metrics import Metrics
from glioflow.serving.http.routes import make_api
from glioflow.serving.ports import free_port
from glioflow.serving.settings import ServeSettings, digest_of
from glioflow.serving.versions.loaded import Served
from serving.in_process import ENGINE, Here, version


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Serve an application for the length of a block; gives the URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def endpoint(description: Any, network: Any, survival: Any = None, *, token: str | None = None) -> Iterator[str]:
    """Serve a model for the length of a block; gives the URL."""
    with serving_here(
        Served(version(3, "demo"), BatchedPredictor(description, network, survival), ENGINE), token=token
    ) as url:
        yield url


@contextmanager
def serving_here(loaded: Served, *, token: str | None = None) -> Iterator[str]:
    """Serve a loaded version for the length of a block; gives the URL."""
    settings = ServeSettings(token_sha256=digest_of(token) if token else None)
    feedback = Feedback(per_day=settings.feedback_per_day)
    with listening(make_api(Here(loaded), settings, Metrics("page"), feedback=feedback)) as url:
        yield url
