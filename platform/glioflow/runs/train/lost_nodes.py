"""The loss of a node is no failure of the training that ran there, whether it was announced or not."""

import re
from typing import Any

from ray.exceptions import RayActorError
from ray.train import UserCallback

_LOST = re.compile(r"its node has died|node was terminated")


def is_lost_node(error: BaseException) -> bool:
    """Return whether a process ended because its node did."""
    return isinstance(error, RayActorError) and _LOST.search(str(error)) is not None


class LostNodes(UserCallback):  # type: ignore[misc]
    """Lets Ray Train count the loss of a node as it counts one that was announced, which it retries without end.

    Runs in Ray Train's controller, before that decides what to do by a mark that has no public way.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Mark what workers died of."""
        for error in worker_exceptions.values():
            cause: Any = getattr(error, "health_check_failure", error)
            if is_lost_node(cause):
                cause._preempted = True
