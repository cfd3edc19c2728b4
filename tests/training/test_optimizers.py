"""Optimizers as on a GPU: PyTorch's fused kernels, which also exist for the CPU."""

import pytest
import torch
from torch import nn

from glioflow.training.optimizers import build_optimizer, load_state
from glioflow.training.settings import TrainingSettings


@pytest.fixture(autouse=True)
def _uninitialized_memory_is_no_number():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))


def fused(net, name):
    optimizer = build_optimizer(
        list(net.parameters()), TrainingSettings(optimizer=name, learning_rate=0.1), torch.device("cpu")
    )
    optimizer.param_groups[0]["fused"] = True
    optimizer._step_supports_amp_scaling = True
    return optimizer


def step(net, optimizer, scaler=None, factor=1.0):
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    optimizer.zero_grad()
    scaler.scale(factor * net(torch.ones(2, 4)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()


OPTIMIZERS = pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])


@OPTIMIZERS
def test_a_first_step_that_overflows_in_half_precision_changes_nothing(name):
    net, never = network(), network()
    optimizer, scaler = fused(net, name), torch.amp.GradScaler("cpu", init_scale=1.0)
    step(net, optimizer, scaler, factor=float("inf"))
    step(net, optimizer, scaler)
    step(never, fused(never, name))
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), never.parameters(), strict=True))


@OPTIMIZERS
@pytest.mark.parametrize("resumed", [False, True])
def test_parameters_learn_from_their_unfreezing(name, resumed):
    net = network()
    net[0].requires_grad_(False)
    optimizer = fused(net, name)
    step(net, optimizer)
    if resumed:
        state, optimizer = optimizer.state_dict(), fused(net, name)
        load_state(optimizer, state)
    frozen = net[0].weight.clone()
    net[0].requires_grad_(True)
    step(net, optimizer)
    assert not torch.equal(frozen, net[0].weight)
    assert all(each.isfinite().all() for each in net.parameters())


def test_the_steps_of_sgd_are_pytorchs():
    net, plain = network(), network()
    usual = torch.optim.SGD(plain.parameters(), lr=0.1, weight_decay=1e-4, momentum=0.9, nesterov=True)
    ours = build_optimizer(
        list(net.parameters()), TrainingSettings(optimizer="sgd", learning_rate=0.1), torch.device("cpu")
    )
    for _ in range(3):
        step(net, ours)
        step(plain, usual)
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), plain.parameters(), strict=True))
