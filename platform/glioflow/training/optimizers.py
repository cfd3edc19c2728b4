"""Optimizers by name, and their state in a checkpoint, which is the same for CPU and GPU."""

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from glioflow.training.settings import TrainingSettings


class OptimizerState(TypedDict):
    """The state of an optimizer: the state of each parameter by number, and the options of each group."""

    state: dict[int, dict[str, object]]
    param_groups: list[dict[str, Any]]


def with_plain_rates(state: OptimizerState) -> OptimizerState:
    """Return an optimizer's state with learning rates as numbers, which are tensors on a GPU."""
    return {
        "state": state["state"],
        "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]],
    }


def build_optimizer(
    parameters: list[nn.Parameter], settings: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer of an experiment: on a GPU, with one kernel for all parameters and the rate in a tensor."""
    decay = settings.weight_decay
    rate: float | Tensor = settings.learning_rate
    options: dict[str, bool] = {}
    if device.type == "cuda":  # one kernel for all parameters; a rate that a recorded step can read
        rate, options = torch.tensor(rate, device=device), {"fused": True}
    if settings.optimizer == "sgd":
        sgd = torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True, **options)
        sgd.register_step_pre_hook(_begin_momenta)
        return sgd
    options |= {"capturable": True} if device.type == "cuda" else {}
    adam = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return adam(parameters, lr=rate, weight_decay=decay, **options)


def _begin_momenta(sgd: torch.optim.Optimizer, *_: Any) -> None:
    """Set each parameter's first momentum to 0, which gives the same steps as PyTorch's own start, the gradient.

    PyTorch's fused kernel fails if only some parameters have a momentum, as after unfreezing, and leaves the momentum
    uninitialized if the first step of half precision overflows.
    """
    for parameter in (each for group in sgd.param_groups for each in group["params"]):
        if parameter.grad is not None and sgd.state[parameter].get("momentum_buffer") is None:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, in place if a recorded step reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_state(optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    """Load a checkpoint's state but keep the options, since the checkpoint may be from another trial or device."""
    for group, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        group.update({key: value for key, value in own.items() if key != "params"})
    optimizer.load_state_dict(state)
