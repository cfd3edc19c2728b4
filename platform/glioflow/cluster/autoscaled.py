"""Nodes that a cluster's autoscaler may add, listed in `GLIOFLOW_AUTOSCALED_NODES` because Ray does not list them."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from glioflow.errors import UserError

AUTOSCALED_NODES = "GLIOFLOW_AUTOSCALED_NODES"
_GROUP = re.compile(r"\s*(\d+) of CPU (\d+)(?: GPU (\d+))?\s*")
# Number of trials that may wait for a node at once. Tune lets one wait if a study chooses the next trial.
_WAITING_TRIALS = "TUNE_MAX_PENDING_TRIALS_PG"


def nodes_to_come(alive: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the resources of the nodes that the autoscaler may still add.

    Args:
        alive: Resources of the running nodes. One with the CPUs and GPUs of a listed node counts as that node.

    Raises:
        UserError: If the list cannot be read.
    """
    there = [_size(node) for node in alive]
    to_come = []
    for node in _listed_nodes():
        if _size(node) in there:
            there.remove(_size(node))
        else:
            to_come.append(node)
    return to_come


def _size(node: Mapping[str, float]) -> tuple[float, float]:
    return node.get("CPU", 0.0), node.get("GPU", 0.0)


def _listed_nodes() -> Iterator[dict[str, float]]:
    text = os.environ.get(AUTOSCALED_NODES, "").strip()
    for group in text.split(",") if text else ():
        if (match := _GROUP.fullmatch(group)) is None:
            hint = "write it like this: 4 of CPU 8 GPU 1, 2 of CPU 16"
            raise UserError(f"{AUTOSCALED_NODES} must list the worker nodes that may be added", text, hint=hint)
        count, cpus, gpus = int(match[1]), float(match[2]), float(match[3] or 0)
        for _ in range(count):
            yield {"CPU": cpus, "GPU": gpus}


@contextmanager
def letting_trials_wait(at_once: int, to_come: int) -> Iterator[None]:
    """Let as many trials wait in a block as may run at once, since an autoscaler adds nodes only for waiting work.

    Args:
        at_once: Number of trials that may run at once.
        to_come: Number of nodes that may still be added. With none, no trial is chosen before it can run.
    """
    if not to_come or _WAITING_TRIALS in os.environ:
        yield
        return
    os.environ[_WAITING_TRIALS] = str(at_once)
    try:
        yield
    finally:
        os.environ.pop(_WAITING_TRIALS, None)
