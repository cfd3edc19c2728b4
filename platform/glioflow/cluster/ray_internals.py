"""Every use of non-public parts of Ray (2.60), with the reason for each.

`tests/cluster/test_ray_internals.py` fails as soon as Ray makes one of these public; then remove it here.
"""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from glioflow.progress import Say

_NAMESPACE = b"glioflow"
_LOST = re.compile(r"its node has died|node was terminated")
# Ray's GB are 2^30 bytes.
_ENDED = re.compile(r"Selected to kill: .*?task name=([^,\n]*),.*?pid=(\d+), actual memory used=([\d.]+)GB")
# Ray Train's controller gives its workers five seconds to end.
_ABORT_S = 10.0
_NODE = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB limit")


@dataclass(frozen=True)
class MemoryKill:
    """Processes that Ray ended because a node ran out of memory.

    Attributes:
        processes: Task, number and GiB of each process, as text.
        node: GiB in use and total; None if Ray did not state them.
    """

    processes: list[tuple[str, str, str]]
    node: tuple[str, str] | None


def keep(key: str, value: bytes) -> None:
    """Store a value in the memory of the connected cluster's head, replacing any value of this key.

    Ray's key-value store is internal (https://github.com/ray-project/ray/issues/18688). A named actor would
    be public, but needs one more process on every cluster.
    """
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(key.encode(), value, namespace=_NAMESPACE)


def kept(key: str) -> bytes | None:
    """Return the value that the connected cluster stores for a key; None without a value or a connection."""
    if not _is_connected():
        return None
    from ray.experimental.internal_kv import _internal_kv_get

    value: bytes | None = _internal_kv_get(key.encode(), namespace=_NAMESPACE)
    return value


def find_cluster() -> str | None:
    """Return the address of this machine's cluster that Ray means by `auto`; None if none runs.

    Ray itself looks it up on connecting, and retries for minutes if that cluster has ended or needs another token.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        address: str | None = canonicalize_bootstrap_address("auto")
    except (ConnectionError, ValueError):
        return None
    return address


def draining_nodes() -> set[str]:
    """Return the ids of nodes with an announced end, such as spot nodes; none without a connection.

    Ray reserves this for its libraries (https://github.com/ray-project/ray/pull/42982). Ray Train's watcher uses it,
    but the trials of a search do not have that watcher.
    """
    if not _is_connected():
        return set()
    from ray._private.state import state

    return set(state.get_draining_nodes())


def is_lost_node(error: BaseException) -> bool:
    """Return whether a process ended because its node did.

    Ray states this only in the error's text; its mark `preempted` is for announced ends
    (https://github.com/ray-project/ray/issues/41107).
    """
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError) and _LOST.search(str(error)) is not None


def memory_kill(error: BaseException) -> MemoryKill | None:
    """Return the details of Ray's `OutOfMemoryError`; None for another error.

    Ray states the numbers only in the error's text; a comment in its class says that they should become fields.
    """
    ray_errors = sys.modules.get("ray.exceptions")
    if ray_errors is None or not isinstance(error, ray_errors.OutOfMemoryError):
        return None
    node = _NODE.search(str(error))
    return MemoryKill(_ENDED.findall(str(error)), None if node is None else (node[1], node[2]))


def mark_preempted(error: Any) -> None:
    """Make Ray Train treat an actor's error as the announced end of its node, which it retries without limit.

    The mark is public to read, but only Ray sets it (https://github.com/ray-project/ray/pull/41102).
    """
    error._preempted = True


@contextmanager
def translating_actor_errors(translate: Callable[[Exception], Exception]) -> Iterator[None]:
    """Make Tune receive an actor's error as translated by `translate`, within this block.

    Ray raises `OutOfMemoryError` for an actor that it ended for memory
    (https://github.com/ray-project/ray/issues/29736). Tune handles only `RayActorError` and `RayTaskError` and ends
    the whole search with "Caught unexpected exception"; nothing public reaches that code.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    # Called with an actor whose start failed, and with a task whose actor failed.
    originals = {name: getattr(RayActorManager, name) for name in ("_actor_start_failed", "_actor_task_failed")}

    def told(value: Any) -> Any:
        return translate(value) if isinstance(value, Exception) else value

    def translated(original: Callable[..., None]) -> Callable[..., None]:
        return lambda *given, **named: original(*map(told, given), **{key: told(each) for key, each in named.items()})

    for name, original in originals.items():
        setattr(RayActorManager, name, translated(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(RayActorManager, name, original)


def end_at_interrupt(trainer: Any, say: Say) -> None:
    """Make Ctrl-C end a trainer's `fit` within seconds and raise `KeyboardInterrupt`, where `fit` handles Ctrl-C.

    Ray Train's own handler says nothing, waits for the controller without limit, and drops the second Ctrl-C. Nothing
    public reaches the handler or the controller, whose end is also that of its workers.
    """

    def register(controller: Any) -> None:
        import ray

        pressed = False

        def interrupt(number: int, frame: Any) -> None:
            nonlocal pressed
            if not pressed:
                pressed = True
                say("stopping the workers; Ctrl-C ends them at once")
                ray.wait([controller.abort.remote()], timeout=_ABORT_S)
            ray.kill(controller)
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)

    trainer._register_sigint_handler = register


def _is_connected() -> bool:
    """Say whether this process is connected, without importing Ray, which it may not need."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(getattr(ray, "is_initialized", bool)())
