"""Ray Train's waiting time for the workers of a training on a busy cluster."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.util import placement_group, remove_placement_group

# Seconds to wait for a busy cluster, in each of Ray Train's four tries.
WAIT_S = 900.0
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


@contextmanager
def waiting_for_workers(*, elastic: bool) -> Iterator[None]:
    """Let Ray Train wait longer than its minute for workers of a busy cluster, where the user did not say how long.

    A training of an elastic size waits less: after a node is lost, Ray Train first waits for as many workers as before.
    """
    if _START_TIMEOUT in os.environ:
        yield
        return
    os.environ[_START_TIMEOUT] = "20" if elastic else f"{WAIT_S:.0f}"
    try:
        yield
    finally:
        os.environ.pop(_START_TIMEOUT, None)


def wait_for_room(num_workers: int, resources: dict[str, float]) -> None:
    """Wait until the cluster has room for so many workers of these resources each; return after `WAIT_S` at the latest.

    In the main thread alone, where Ctrl-C ends this wait at once. Ray Train's controller does not react to Ctrl-C while
    it waits.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    deadline = time.monotonic() + WAIT_S
    group = placement_group([resources] * num_workers)
    try:
        while not group.wait(1) and time.monotonic() < deadline:
            pass
    finally:
        remove_placement_group(group)
