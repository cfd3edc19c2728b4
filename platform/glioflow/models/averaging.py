"""An ensemble of networks as one network: the mean of their probabilities, as logits."""

# mypy: disallow-subclassing-any=False

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class AveragedNetworks(nn.Module):
    """Images (B, C, ...) to the logits (B, K, ...) of the members' mean probability.

    It can be used like a single network, including with windows, mirror images and compilation.

    Attributes:
        members: Networks of the same input and output.
        temperatures: Divisor of each member's logits, before they become probabilities.
        softmax: Whether the K outputs are exclusive, so that their probabilities sum to 1.
    """

    def __init__(self, members: Sequence[nn.Module], temperatures: Sequence[float], *, softmax: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.temperatures = tuple(temperatures)
        self.softmax = softmax

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float32."""
        logits = [
            member(images).float() / temperature
            for member, temperature in zip(self.members, self.temperatures, strict=True)
        ]
        each = torch.stack(logits)
        if self.softmax:
            return functional.log_softmax(each, dim=2).logsumexp(0)
        return functional.logsigmoid(each).logsumexp(0) - functional.logsigmoid(-each).logsumexp(0)
