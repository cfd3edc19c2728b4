"""What Tune hears of a process that Ray ended for its memory, or that was lost with its node.

Ray raises `OutOfMemoryError` for such an actor (https://github.com/ray-project/ray/issues/29736). Tune of Ray 2.60
handles `RayActorError` and `RayTaskError` alone and ends the whole search with "Caught unexpected exception"; nothing
public reaches that code. The loss of a node counts as a failure of the trial there, unless Ray knew of it before, as
of a spot node's end. A test fails as soon as Tune handles the error: then this module goes. It is the only one that
uses private parts of Tune.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glioflow import cluster
from glioflow.runs.train.lost_nodes import is_lost_node


@contextmanager
def surviving_memory_kills() -> Iterator[None]:
    """Let a search go on in this block when trials run out of memory, which fail, or lose their node, which do not."""
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    original = RayActorManager._actor_task_failed

    def as_dead(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=cluster.memory_shortage(exception))
        elif is_lost_node(exception):
            exception = RayActorError(error_msg=str(exception), preempted=True)
        original(manager, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = as_dead
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original
