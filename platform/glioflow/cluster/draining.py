"""Nodes whose end is announced, such as spot nodes: Ray drains them, and its workers can tell."""

from collections.abc import Callable

from glioflow.cluster.ray_internals import draining_nodes


def node_ends() -> Callable[[], bool]:
    """Return a function that says whether the end of a node was announced since it was last called; False without Ray.

    Of a training of several workers, the end of any node counts: a checkpoint too many costs little.
    """
    known: set[str] = set()

    def announced() -> bool:
        try:
            new = draining_nodes() - known
        except Exception:  # the head is away for a moment
            return False
        known.update(new)
        return bool(new)

    return announced
