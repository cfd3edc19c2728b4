"""Averaged weights: an exponential moving average of a network, updated asynchronously on its device.

PyTorch's `AveragedModel` gives its update the number of steps as a tensor on the device: a decay that rises with it
waits for the GPU in every step. Therefore the update is PyTorch's, but the count is kept here.
"""

import copy

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """A copy of a network whose floating-point parameters and buffers are averages; others are the latest values.

    The decay rises with the number of steps n as min(decay, (1 + n) / (10 + n)), so that the first random weights do
    not stay in the average for long; the first step starts it.

    Attributes:
        taken: Number of steps averaged.
        warm: Whether the decay has no warm-up, as in training started by a version without it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start with a copy of a network."""
        self._module = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.taken = 0
        self.warm = False
        pairs = list(zip(_tensors(self._module), _tensors(network), strict=True))
        self._floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @property
    def module(self) -> nn.Module:
        """The averaged network."""
        for kept, newest in self._others:
            kept.copy_(newest)
        return self._module

    def update(self) -> None:
        """Update the average with the network's weights."""
        n = self.taken
        decay = self.decay if self.warm else min(self.decay, (1 + n) / (10 + n))
        averaged, current = ([pair[k].detach() for pair in self._floating] for k in (0, 1))
        get_ema_multi_avg_fn(decay if n else 0.0)(averaged, current, n)
        self.taken += 1


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
