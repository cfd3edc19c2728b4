"""The one place that connects to Ray or starts a local one: address, token, resources, telemetry off."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from glioflow.errors import GlioflowError, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What every process of ours, here and on the workers, must have before it imports the libraries.
VARIABLES = {
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


def silence() -> None:
    """Turn off what phones home, and warnings meant for others, and read secrets that are given as files.

    A value that the user set stays.

    Raises:
        UserError: If such a file cannot be read.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
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


def connect(*, num_cpus: int | None = None) -> None:
    """Connect to the cluster at `RAY_ADDRESS`, or start a local one of our own; does nothing the second time.

    Args:
        num_cpus: CPUs of a local cluster; None takes the machine's.

    Raises:
        UserError: If `RAY_ADDRESS` is set and nobody answers there.
    """
    silence()
    import ray

    if ray.is_initialized():
        return
    told = [name for name in _CARRIED if name in os.environ and f"{name}_FILE" not in os.environ]  # nodes have the file
    carried = {**VARIABLES, **{name: os.environ[name] for name in told}}
    for name in _job_variables():  # Ray refuses to be told twice
        carried.pop(name, None)
    options: dict[str, Any] = {
        "logging_level": "ERROR",
        "log_to_driver": bool(os.environ.get("GLIOFLOW_VERBOSE")),
        "runtime_env": {"env_vars": carried},
    }
    address = os.environ.get("RAY_ADDRESS")
    with _terminable():
        if not address:
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=True, dashboard_host="127.0.0.1", **options)
            return
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                "RAY_ADDRESS must name a running cluster (and its token be known)", f"{address}: {first}"
            ) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Let a block that starts Ray change nothing about SIGTERM but this: where nobody handles it, it is Ctrl-C.

    Ray's own handler prints a trace, begins to end the process and aborts it three seconds later: too soon for runs to
    be closed and an endpoint to be shut down.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before if callable(before) else _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    """Do what Ctrl-C does now: Tune and Train end in order at the first one."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:  # as in a shell's background
        raise KeyboardInterrupt


def disconnect() -> None:
    """End the connection, and with it a local cluster."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


@contextmanager
def ending() -> Iterator[None]:
    """Disconnect when the block ends, however it ends, if anything in it connected; a connection from before stays."""
    connected_before = is_connected()
    try:
        yield
    finally:
        if not connected_before and is_connected():
            disconnect()


def is_connected() -> bool:
    """Say whether this process is connected to Ray; does not import it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(getattr(ray, "is_initialized", bool)())


def resources() -> dict[str, float]:
    """Return what the connected cluster has in all: `CPU`, `GPU`, `nodes`."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    total = {"CPU": 0.0, "GPU": 0.0, "nodes": float(len(alive))}
    for node in alive:
        for name in ("CPU", "GPU"):
            total[name] += float(node["Resources"].get(name, 0.0))
    return total


def slots(*, cpus: float, gpus: float) -> int:
    """Return how many workers of this size the connected cluster's nodes hold, each of them on one node."""
    import ray

    wanted = {"CPU": cpus, "GPU": gpus}
    return sum(
        min(int(node["Resources"].get(name, 0.0) / each + 1e-9) for name, each in wanted.items() if each)
        for node in ray.nodes()
        if node["Alive"]
    )


def own_group() -> str:
    """Return the id of the placement group in which this worker runs; empty outside of any."""
    from ray.util import get_current_placement_group

    group = get_current_placement_group()
    return "" if group is None else str(group.id.hex())


def release_group(group: str) -> None:
    """Remove the placement group of this id, and with it what it had booked; does nothing where it is gone."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


def map_parallel(function: Callable[[Item], Result], items: Iterable[Item], *, num_cpus: float = 1) -> Iterator[Result]:
    """Run `function` over `items` as Ray tasks, giving results in the items' order as they come.

    Args:
        function: Picklable; its `GlioflowError` arrives here as it was raised there.
        items: Picklable each.
        num_cpus: What one task takes.
    """
    connect()
    import ray

    task = ray.remote(num_cpus=num_cpus)(_answer).options(max_retries=2)
    waiting = iter(items)
    ahead = max(2, int(4 * resources()["CPU"] / max(num_cpus, 0.1)))
    running: list[Any] = []
    try:
        for item in waiting:
            running.append(task.remote(function, item))
            if len(running) >= ahead:
                yield _result(ray.get(running.pop(0)))
        while running:
            yield _result(ray.get(running.pop(0)))
    finally:  # after a mistake nothing goes on in the background
        for reference in running:
            ray.cancel(reference)
        if running:
            ray.wait(running, num_returns=len(running), timeout=60)


def _answer(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, GlioflowError | None]:
    # A user's mistake travels as a value: Ray wraps what is raised in a class and a traceback of its own.
    try:
        return function(item), None
    except GlioflowError as error:
        return None, error


def _result(answer: tuple[Any, GlioflowError | None]) -> Any:
    value, error = answer
    if error is not None:
        raise error
    return value
