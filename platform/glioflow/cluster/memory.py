"""One-line message about a worker that Ray ended for memory: process, memory used and total, what to lower."""

from glioflow.cluster.ray_internals import MemoryKill, memory_kill
from glioflow.errors import causes_of

OF_A_TRAINING = "training.batch_size, or what trains at once (search.concurrent, training.num_workers)"


def memory_shortage(error: BaseException, *, lower: str = OF_A_TRAINING) -> str | None:
    """Return one line about the memory shortage that caused an error; None for other causes.

    Args:
        error: Error raised by Ray.
        lower: What to lower, for the end of the line.
    """
    kills = (memory_kill(each) for each in causes_of(error))
    return next((f"{_describe(kill)}; lower {lower}" for kill in kills if kill is not None), None)


def _describe(kill: MemoryKill) -> str:
    processes = [f"process {number} ({task}), which used {used} GiB" for task, number, used in kill.processes]
    ended = " and ".join(processes) or "a worker process"
    usage = "before its node had none left"
    if kill.node is not None:
        usage = f"when {kill.node[0]} of the node's {kill.node[1]} GiB were in use"
    return f"out of memory: Ray ended {ended}, {usage}"
