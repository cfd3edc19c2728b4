"""A trial whose process Ray ended for its memory is reported to Tune as one whose process died.

Ray raises `OutOfMemoryError` for such an actor (https://github.com/ray-project/ray/issues/29736). Tune of Ray 2.60
handles `RayActorError` and `RayTaskError` alone and ends the whole search with "Caught unexpected exception"; nothing
public reaches that code. A test fails as soon as Tune handles the error: then this module goes. It is the only one that
uses private parts of Tune.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glioflow import cluster


@contextmanager
def surviving_memory_kills() -> Iterator[None]:
    """Let a search in this block go on when trials run out of memory; each of them fails with that reason."""
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    original = RayActorManager._actor_task_failed

    def as_dead(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=cluster.memory_shortage(exception))
        original(manager, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = as_dead
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original
