"""A worker that Ray ended because its node ran out of memory, in one line: which, how much of how much, what to lower.

Ray 2.60 gives the numbers in the text of its error alone (ray.exceptions.OutOfMemoryError, whose own comment says that
they are to be fields one day), so it is read here and nowhere else.
"""

import re
import sys

from glioflow.errors import causes_of

OF_A_TRAINING = "training.batch_size, or what trains at once (search.concurrent, training.num_workers)"
# What Ray calls GB are 2^30 bytes.
_ENDED = re.compile(r"Selected to kill: .*?task name=([^,\n]*),.*?pid=(\d+), actual memory used=([\d.]+)GB")
_NODE = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB limit")


def memory_shortage(error: BaseException, *, lower: str = OF_A_TRAINING) -> str | None:
    """Return one line about the memory shortage that an error comes from; None where it comes from something else.

    Args:
        error: As Ray raises it.
        lower: What to lower, for the line's end.
    """
    ray_errors = sys.modules.get("ray.exceptions")
    if ray_errors is None:
        return None
    for each in causes_of(error):
        if isinstance(each, ray_errors.OutOfMemoryError):
            return f"{_describe(str(each))}; lower {lower}"
    return None


def _describe(text: str) -> str:
    processes = [f"process {pid} ({task}), which used {used} GiB" for task, pid, used in _ENDED.findall(text)]
    ended = " and ".join(processes) or "a worker process"
    node = _NODE.search(text)
    usage = f"when {node[1]} of the node's {node[2]} GiB were in use" if node else "before its node had none left"
    return f"out of memory: Ray ended {ended}, {usage}"
