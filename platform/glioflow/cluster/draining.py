"""Nodes with an announced end, such as spot nodes; Ray drains them, and workers can query this."""

from collections.abc import Callable

from glioflow.cluster.ray_internals import draining_nodes


def node_ends() -> Callable[[], bool]:
    """Return a function that says whether a node's end was announced since its last call; False without Ray.

    In a training of several workers, the end of any node counts, since an extra checkpoint costs little.
    """
    known: set[str] = set()

    def announced() -> bool:
        try:
            new = draining_nodes() - known
        except Exception:  # the head is briefly unreachable
            return False
        known.update(new)
        return bool(new)

    return announced
