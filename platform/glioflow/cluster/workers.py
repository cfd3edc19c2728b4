"""Settings of the Ray workers that train together."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from glioflow.errors import UserError


class WorkerSettings(BaseModel):
    """The workers of one training and what each of them gets.

    Attributes:
        num_workers: Processes that train together; more than one runs on Ray Train with DDP. A pair [fewest, most] lets
            a training continue with fewer workers when a node is lost and add workers when a node joins, each time
            from its last checkpoint. It needs the cluster for itself, so the trials of a search have one number.
        cpus_per_worker: CPUs of each worker.
        gpus_per_worker: GPUs of each worker; `auto` is one if the cluster has any, otherwise none. With a fraction of
            one, trials share a GPU, each with its share of the memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _fewest_first(self) -> "WorkerSettings":
        if isinstance(self.num_workers, tuple) and not self.num_workers[0] < self.num_workers[1]:
            rule = "num_workers must be one number, or [fewest, most] with fewest below most"
            raise UserError(rule, list(self.num_workers))
        return self

    @model_validator(mode="after")
    def _one_worker_a_gpu(self) -> "WorkerSettings":
        if self.num_workers != 1 and 0 < self.gpus < 1:
            rule = "gpus_per_worker must be a whole number for several workers, because NCCL needs a GPU for each"
            raise UserError(rule, self.gpus_per_worker, hint="set num_workers to 1 or gpus_per_worker to 1")
        return self

    @model_validator(mode="after")
    def _whole_gpus_above_one(self) -> "WorkerSettings":
        if self.gpus > 1 and self.gpus % 1:
            rule = "gpus_per_worker must be a whole number if it is above 1: Ray divides only a single GPU"
            raise UserError(rule, self.gpus_per_worker, [int(self.gpus), int(self.gpus) + 1])
        return self

    @property
    def gpus(self) -> float:
        """GPUs of each worker; none as long as `auto` does not know the cluster."""
        return 0.0 if self.gpus_per_worker == "auto" else self.gpus_per_worker

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change during a training."""
        return isinstance(self.num_workers, tuple)

    @property
    def min_workers(self) -> int:
        """The fewest workers with which a training starts."""
        return self.num_workers[0] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def max_workers(self) -> int:
        """The most workers that train together."""
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def resources_per_worker(self) -> dict[str, float]:
        """Resources that Ray reserves for each worker; without GPUs there is no key `GPU`."""
        gpus = {"GPU": self.gpus} if self.gpus else {}
        return {"CPU": self.cpus_per_worker, **gpus}
