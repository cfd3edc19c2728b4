"""Networks of an ensemble as one network, whose output has the channels of each."""

# mypy: disallow-subclassing-any=False

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SideBySide(nn.Module):
    """Images (B, C, ...) to the logits (B, M K, ...) of M members, the K channels of each one after another.

    It can be used like a single network, including with windows, mirror images and compilation.

    Attributes:
        members: Networks of the same input and output.
        temperatures: Divisor of each member's logits.
        softmax: Whether the K outputs of a member are exclusive. Then they are logarithms of its probabilities, so that
            a softmax over all M K channels has these probabilities divided by M.
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
        return torch.cat([functional.log_softmax(each, dim=1) for each in logits] if self.softmax else logits, dim=1)
