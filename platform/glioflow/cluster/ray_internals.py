"""What GlioFlow uses of Ray (2.60) beneath its public interface: all of it, with the reason, in this one module.

`tests/cluster/test_ray_internals.py` fails as soon as Ray gives one of these in public; then it goes from here.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_NAMESPACE = b"glioflow"
_LOST = re.compile(r"its node has died|node was terminated")
# What Ray calls GB are 2^30 bytes.
_ENDED = re.compile(r"Selected to kill: .*?task name=([^,\n]*),.*?pid=(\d+), actual memory used=([\d.]+)GB")
_NODE = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB limit")


@dataclass(frozen=True)
class MemoryKill:
    """What Ray ended because a node ran out of memory.

    Attributes:
        processes: Task, number and GiB of each process, as text.
        node: GiB in use and in all; None where Ray did not say.
    """

    processes: list[tuple[str, str, str]]
    node: tuple[str, str] | None


def keep(key: str, value: bytes) -> None:
    """Keep a value in the memory of the connected cluster's head, in place of what it had under this key.

    Ray calls its store of values internal (https://github.com/ray-project/ray/issues/18688). An actor with a name would
    be public, and a process more on every cluster.
    """
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(key.encode(), value, namespace=_NAMESPACE)


def kept(key: str) -> bytes | None:
    """Return what the connected cluster keeps under a key; None where it has nothing, or none is connected."""
    if not _is_connected():
        return None
    from ray.experimental.internal_kv import _internal_kv_get

    value: bytes | None = _internal_kv_get(key.encode(), namespace=_NAMESPACE)
    return value


def find_cluster() -> str | None:
    """Return the address of the cluster of this machine that Ray means by `auto`; None where none runs.

    Ray itself looks while it connects, and then tries for minutes where that has ended, or wants another token.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found: str | None = canonicalize_bootstrap_address("auto")
    except (ConnectionError, ValueError):
        return None
    return found


def draining_nodes() -> set[str]:
    """Return the ids of the nodes whose end is announced, such as spot nodes; none where no cluster is connected.

    Ray keeps this for its libraries (https://github.com/ray-project/ray/pull/42982): Ray Train's own watcher asks it,
    which the trials of a search have not.
    """
    if not _is_connected():
        return set()
    from ray._private.state import state

    return set(state.get_draining_nodes())


def is_lost_node(error: BaseException) -> bool:
    """Return whether a process ended because its node did.

    Ray's error has it in its text alone; its mark `preempted` is for announced ends
    (https://github.com/ray-project/ray/issues/41107).
    """
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError) and _LOST.search(str(error)) is not None


def memory_kill(error: BaseException) -> MemoryKill | None:
    """Return what an `OutOfMemoryError` of Ray is about; None for another error.

    Ray gives the numbers in the text of its error alone; its own comment on the class says that they are to be fields.
    """
    ray_errors = sys.modules.get("ray.exceptions")
    if ray_errors is None or not isinstance(error, ray_errors.OutOfMemoryError):
        return None
    node = _NODE.search(str(error))
    return MemoryKill(_ENDED.findall(str(error)), None if node is None else (node[1], node[2]))


def mark_preempted(error: Any) -> None:
    """Let Ray Train count an error of an actor as the announced end of its node, which it retries without end.

    Ray reads the mark in public and sets it only itself (https://github.com/ray-project/ray/pull/41102).
    """
    error._preempted = True


@contextmanager
def translating_actor_errors(translate: Callable[[Exception], Exception]) -> Iterator[None]:
    """Let Tune, in this block, hear of an actor's end as what `translate` makes of it.

    Ray raises `OutOfMemoryError` for an actor that it ended for its memory
    (https://github.com/ray-project/ray/issues/29736). Tune handles `RayActorError` and `RayTaskError` alone and ends
    the whole search with "Caught unexpected exception"; nothing public reaches that code.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    original = RayActorManager._actor_task_failed

    def translated(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        original(manager, tracked_actor_task, translate(exception))

    RayActorManager._actor_task_failed = translated
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original


def _is_connected() -> bool:
    """Say whether this process is connected; does not import Ray, which serving processes and drivers may not need."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(getattr(ray, "is_initialized", bool)())
