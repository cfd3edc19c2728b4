"""The loss of a node does not count as a failure of the training there, whether it was announced or not."""

from typing import Any

from ray.train import UserCallback

from glioflow.cluster.ray_internals import is_lost_node, mark_preempted


class LostNodes(UserCallback):  # type: ignore[misc]
    """Makes Ray Train treat the loss of a node like an announced one, after which it always retries.

    Runs in Ray Train's controller, before its decision.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Mark what workers died of."""
        for error in worker_exceptions.values():
            cause: Any = getattr(error, "health_check_failure", error)
            if is_lost_node(cause):
                mark_preempted(cause)
