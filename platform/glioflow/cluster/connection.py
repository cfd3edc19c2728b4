"""Connection to Ray or start of a local cluster: address, token, resources, telemetry off."""

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypedDict

from glioflow.cluster import secrets
from glioflow.cluster.autoscaled import AUTOSCALED_NODES, nodes_to_come
from glioflow.cluster.environment import bypass_proxies, own_names, silence, worker_environment
from glioflow.cluster.interrupts import interrupt
from glioflow.cluster.ray_internals import find_cluster
from glioflow.cluster.starting import short_socket_paths
from glioflow.cluster.storage import cache_folder, home_uri
from glioflow.errors import RunFailed, UserError, first_line
from glioflow.progress import print_progress, waiting

_CONNECT_S = 3.0


def connect(*, num_cpus: int | None = None) -> None:
    """Connect to the cluster at `RAY_ADDRESS`, or start a local one; do nothing if already connected.

    Args:
        num_cpus: CPUs of a local cluster; None takes the machine's.

    Raises:
        UserError: If `RAY_ADDRESS` is set and no cluster answers there, no folder suits its sockets, or what is
            secret cannot be written to the home.
        RunFailed: If Ray does not start on this machine.
    """
    silence()
    import ray

    if ray.is_initialized():
        return
    if home_uri() is not None:  # the same path on every node
        os.environ.setdefault("GLIOFLOW_CACHE", str(cache_folder()))
    options: _Options = {
        "logging_level": "ERROR",
        "log_to_driver": bool(os.environ.get("GLIOFLOW_VERBOSE")),
        "runtime_env": {"env_vars": {**worker_environment(), **secrets.hand_over()}},
    }
    address = _address()
    if address:
        _check_address(address)
        with _terminable(), waiting(f"the Ray cluster at {address}", print_progress):
            _join(address, options)
        bypass_proxies(str(node["NodeManagerAddress"]) for node in ray.nodes())
    else:
        on_one_node = {name: os.environ.get(name, value) for name, value in _ON_ONE_NODE.items()}
        options["runtime_env"]["env_vars"] |= on_one_node
        with _terminable(), short_socket_paths(), waiting("Ray to start on this machine", print_progress):
            _start(num_cpus, options)
    secrets.leave_with_cluster()


def _address() -> str | None:
    """Return the address of the cluster to join, resolving `auto`; None if a local one should start."""
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if named != "auto":
        return named if joins() else None
    if (address := find_cluster()) is None:
        raise _no_cluster(named, "none runs on this machine")
    return address


def _check_address(address: str) -> None:
    """Refuse a host and port at which no Ray server listens; Ray itself would retry for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d+)", address)
    if match is None:
        hint = "it is no address such as HOST:6379 or ray://HOST:10001"
        jobs = "; http://HOST:8265 is where `ray job submit` goes" if address.startswith("http") else ""
        raise _no_cluster(address, hint + jobs)
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_CONNECT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("0", "false") and not _speaks_grpc(address):
        raise _no_cluster(address, "what listens there is no Ray")


def _speaks_grpc(address: str) -> bool:
    import grpc

    with grpc.insecure_channel(address.removeprefix("ray://"), options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at RAY_ADDRESS {address} ({reason})",
        address,
        hint="check the address and the cluster's token (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH), or unset "
        "RAY_ADDRESS to start a local cluster",
    )


# Ray Train would start a process per training that watches for nodes preempted by their provider.
_ON_ONE_NODE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


class _Options(TypedDict):
    """Return the arguments that every start of Ray uses."""

    logging_level: str
    log_to_driver: bool
    runtime_env: dict[str, dict[str, str]]


def _start(num_cpus: int | None, options: _Options) -> None:
    import ray

    try:
        ray.init(address="local", num_cpus=num_cpus, include_dashboard=True, dashboard_host="127.0.0.1", **options)
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, OSError | RuntimeError):
            raise  # Ray's error for a process that did not come up is a plain Exception
        raise RunFailed(
            f"Ray did not start on this machine ({first_line(error)}); try again when less runs on it"
        ) from error


def _join(address: str, options: _Options) -> None:
    import ray

    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, first_line(error)) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Keep a block that starts Ray from changing the handling of SIGTERM; if unhandled, SIGTERM acts as Ctrl-C.

    Ray's own handler prints a trace and aborts the process three seconds later, too soon for runs to
    be closed and an endpoint to be shut down.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before if callable(before) else interrupt)


def disconnect() -> None:
    """Disconnect, and stop a local cluster."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


@contextmanager
def ending() -> Iterator[None]:
    """Disconnect at the end of a block, even after an error, if it connected; keep an earlier connection."""
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


def joins() -> bool:
    """Say whether RAY_ADDRESS names a cluster to join; if not, a local one starts."""
    return os.environ.get("RAY_ADDRESS", "").strip() not in ("", "local")


def or_list_nodes() -> str:
    """Return the end of a hint where a cluster is too small: one that is joined may have an autoscaler."""
    return f", or list the nodes that an autoscaler may add in {AUTOSCALED_NODES}" if joins() else ""


def is_elsewhere() -> bool:
    """Say whether RAY_ADDRESS names another machine, whose nodes may have files that this one lacks."""
    host = re.sub(r"^\w+://", "", os.environ.get("RAY_ADDRESS") or "local").rpartition(":")[0].strip("[]")
    return host != "" and host not in own_names()


def resources() -> dict[str, float]:
    """Return the connected cluster's total `CPU`, `GPU` and `nodes`, including nodes that may still be added."""
    nodes = _nodes()
    total = {name: sum(float(node.get(name, 0.0)) for node in nodes) for name in ("CPU", "GPU")}
    return {**total, "nodes": float(len(nodes))}


def _nodes() -> list[Mapping[str, float]]:
    """Return the resources of each node, with those that the autoscaler may still add at the end."""
    import ray

    alive: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [*alive, *(nodes_to_come(alive) if joins() else ())]


def nodes_still_to_come() -> int:
    """Return how many nodes the connected cluster's autoscaler may still add."""
    import ray

    return len(_nodes()) - sum(bool(node["Alive"]) for node in ray.nodes())


def of_this_machine(*, gpus: bool) -> dict[str, float]:
    """Return the most that a local cluster can have, as `resources` does; GPUs only on request."""
    devices = 0
    if gpus:
        import torch

        devices = torch.cuda.device_count()
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(devices), "nodes": 1.0}


def slots(*, cpus: float, gpus: float) -> int:
    """Return how many workers of this size fit on the cluster's nodes, including nodes that may still be added."""
    return sum(fit_on_node(node, cpus=cpus, gpus=gpus) for node in _nodes())


def fit_on_node(resources: Mapping[str, float], *, cpus: float, gpus: float) -> int:
    """Return how many workers of this size fit on a node; a fraction of a GPU comes from a single GPU."""
    fit = int(resources.get("CPU", 0.0) / cpus + 1e-9)
    if gpus >= 1:
        return min(fit, int(resources.get("GPU", 0.0) / gpus + 1e-9))
    return min(fit, int(resources.get("GPU", 0.0)) * int(1 / gpus + 1e-9)) if gpus else fit


def share_of_node(*, cpus: float, gpus: float) -> float:
    """Return the share of its node, in (0, 1], that one of as many workers as fit on it has; 1 without Ray."""
    import ray

    if not ray.is_initialized():
        return 1.0
    own = ray.get_runtime_context().get_node_id()
    node = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == own)
    return 1 / max(1, fit_on_node(node, cpus=cpus, gpus=gpus))


def own_group() -> str:
    """Return the id of this worker's placement group; empty if it has none."""
    from ray.util import get_current_placement_group

    group = get_current_placement_group()
    return "" if group is None else str(group.id.hex())


def release_group(group: str) -> None:
    """Remove the placement group of this id and release its resources; do nothing if it is gone."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
