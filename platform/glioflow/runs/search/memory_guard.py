"""A trial that Ray ended for its memory, told to Tune as one whose process died.

Tune of Ray 2.60 knows dead actors and failed tasks only: the error of a worker that the memory monitor ended is neither
to it, and it ends the whole search ("Caught unexpected exception").
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OUT_OF_MEMORY = "OutOfMemoryError"


@contextmanager
def surviving_memory_kills() -> Iterator[None]:
    """Let a search in this block outlive trials that run out of memory; they fail, each with that reason."""
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    original = RayActorManager._actor_task_failed

    def as_dead(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"{OUT_OF_MEMORY}: {exception}")
        original(manager, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = as_dead
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original
