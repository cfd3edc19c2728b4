"""Tune's view of a process that Ray ended for its memory, or that was lost with its node.

Tune counts the loss of a node as a failure of the trial, unless the loss was announced, as for a spot node.
"""

from contextlib import AbstractContextManager

from ray.exceptions import OutOfMemoryError, RayActorError

from glioflow import cluster
from glioflow.cluster.ray_internals import is_lost_node, translating_actor_errors


def surviving_memory_kills() -> AbstractContextManager[None]:
    """Keep a search running in this block if trials run out of memory (they fail) or lose their node (they do not)."""
    return translating_actor_errors(_as_dead)


def _as_dead(error: Exception) -> Exception:
    if isinstance(error, OutOfMemoryError):
        return RayActorError(error_msg=cluster.memory_shortage(error))  # type: ignore[no-any-return]
    if is_lost_node(error):
        return RayActorError(error_msg=str(error), preempted=True)  # type: ignore[no-any-return]
    return error
