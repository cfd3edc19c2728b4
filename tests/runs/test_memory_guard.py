"""What a search makes of processes that Ray ended for their memory or lost with their node."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError

from glioflow.runs.search.memory_guard import surviving_memory_kills


def report(error: Exception, *, starting: bool = False) -> list[Any]:
    """Tell Tune's manager of actors why one ended, at work or at its start; return what its trial hears."""
    heard: list[Any] = []
    actor: Any = SimpleNamespace(actor_id=0, _on_error=lambda actor, error: heard.append(error))
    manager = RayActorManager(resource_manager=SimpleNamespace())  # type: ignore[arg-type]
    manager._cleanup_actor = lambda tracked_actor: None  # type: ignore[method-assign]
    if starting:
        manager._actor_start_failed(tracked_actor=actor, exception=error)
    else:
        manager._actor_task_failed(tracked_actor_task=TrackedActorTask(tracked_actor=actor), exception=error)
    return heard


@pytest.mark.parametrize("starting", [False, True])
def test_a_memory_kill_fails_its_trial_and_not_the_search(starting):
    with surviving_memory_kills():
        (error,) = report(OutOfMemoryError("low on memory"), starting=starting)
    assert isinstance(error, RayActorError)
    assert str(error).startswith("out of memory: Ray ended a worker process")


def test_the_guard_is_still_needed():
    """Fails once Tune handles the error by itself: then remove `translating_actor_errors`."""
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        report(OutOfMemoryError("low on memory"))


def test_a_lost_node_is_no_failure_of_its_trial():
    with surviving_memory_kills():
        (lost,) = report(RayActorError(error_msg="The actor died because its node has died. Node Id: ab"))
        (crashed,) = report(RayActorError(error_msg="The actor died unexpectedly before finishing this task."))
    assert (lost.preempted, crashed.preempted) == (True, False)
