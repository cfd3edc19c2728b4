"""Resource use of a training, under the names that MLflow shows as system metrics."""

import sys

import psutil

_MIB = 2**20


def machine_use() -> dict[str, float]:
    """Return the current CPU, memory and, if torch uses one, GPU use of this process and its machine.

    Returns:
        `system/cpu_utilization_percentage` of the machine since the last call, `system/system_memory_usage_percentage`,
        `system/process_memory_megabytes`, and `system/gpu_memory_megabytes` (its highest so far).
    """
    used = {
        "system/cpu_utilization_percentage": float(psutil.cpu_percent()),
        "system/system_memory_usage_percentage": float(psutil.virtual_memory().percent),
        "system/process_memory_megabytes": psutil.Process().memory_info().rss / _MIB,
    }
    torch = sys.modules.get("torch")  # a process without it uses no GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        used["system/gpu_memory_megabytes"] = torch.cuda.max_memory_allocated() / _MIB
    return used
