"""PyTorch's process group of a training on Ray Train, set up as Ray's `TorchTrainer` does, but by the workers alone.

`TorchTrainer` imports torch in the process that calls it and in Ray Train's controller, one after the other and before
the workers, who import it once more: seconds of every fold and every trial of several workers (benchmarks/search.md).
"""

# mypy: disallow-subclassing-any=False

import os
from typing import Any

from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig

_WAIT_S = 1800


class ProcessGroup(BackendConfig):
    """The backend of a trainer: NCCL where workers have GPUs, else gloo."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Return what sets it up."""
        return _Joining

    @property
    def train_func_context(self) -> Any:
        """Return the context of each worker's function: its own GPU is the current one."""
        return _own_device


def _own_device() -> Any:
    from ray.train.torch.config import TorchConfigContextManager

    return TorchConfigContextManager()


class _Joining(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        import ray

        address, port = worker_group.execute_single(0, get_address_and_port)
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) > 0 else "gloo"
        ranks = range(len(worker_group))
        joined = [worker_group.execute_single_async(k, _join, backend, k, len(ranks), address, port) for k in ranks]
        ray.get(joined)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        import ray

        ready, _ = ray.wait(worker_group.execute_async(_leave), num_returns=len(worker_group), timeout=30)
        ray.get(ready)


def _join(backend: str, rank: int, count: int, address: str, port: int) -> None:
    from ray.train.torch import config

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(backend, rank, count, "env://", _WAIT_S)


def _leave() -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=True)
