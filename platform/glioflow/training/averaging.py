"""Averaged weights: an exponential moving average of a network, updated on its device without waiting for it."""

import copy

import torch
from torch import Tensor, nn


class AveragedWeights:
    """A copy of a network whose floating-point parameters and buffers are averages; others are the newest values.

    The decay rises with the number of steps n as min(decay, (1 + n) / (10 + n)), so that the first random weights do
    not stay in the average for long; the first step begins it.

    Attributes:
        module: The averaged network.
        taken: Number of steps averaged.
        warm: Whether the decay has no warm-up any more: in a training begun by a version without it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with a copy of a network."""
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.taken = 0
        self.warm = False
        device = next(network.parameters()).device
        self._kept, self._added = torch.zeros((), device=device), torch.zeros((), device=device)
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        self._floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    def prepare(self) -> None:
        """Set the decay of the next step: before `update`, which may be part of a recorded step."""
        n = self.taken
        kept = self.decay if self.warm else min(self.decay, (1 + n) / (10 + n))
        kept = kept if n else 0.0
        self._kept.fill_(kept)
        self._added.fill_(1 - kept)
        self.taken += 1

    def update(self) -> None:
        """Take the network's weights into the average."""
        averaged, current = ([pair[k].detach() for pair in self._floating] for k in (0, 1))
        torch._foreach_mul_(averaged, self._kept)
        torch._foreach_add_(averaged, torch._foreach_mul(current, self._added))
        for kept, value in self._others:
            kept.copy_(value)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
