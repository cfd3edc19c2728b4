"""Nodes whose end is announced, such as spot nodes: Ray drains them, and its workers can tell."""

import sys
from collections.abc import Callable


def node_ends() -> Callable[[], bool]:
    """Return a function that says whether the end of a node was announced since it was last called; False without Ray.

    Of a training of several workers, the end of any node counts: a checkpoint too many costs little.
    """
    known: set[str] = set()

    def announced() -> bool:
        ray = sys.modules.get("ray")
        if ray is None or not getattr(ray, "is_initialized", bool)():
            return False
        from ray._private.state import state  # as Ray Train's own watcher asks, which the trials of a search have not

        try:
            new = set(state.get_draining_nodes()) - known
        except Exception:  # the head is away for a moment
            return False
        known.update(new)
        return bool(new)

    return announced
