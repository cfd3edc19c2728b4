"""The wrapper of every network: input scaling of its pretrained weights, any spatial size, frozen parts."""

# mypy: disallow-subclassing-any=False

from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from glioflow.models.weights import Scaling

Freeze = Literal["none", "batchnorm", "encoder"]
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Network(nn.Module):
    """Images (B, C, ...) to logits (B, K, ...) of the same spatial size.

    Unsupported sizes are padded at the far edges (repeating the last voxel) and cropped back. The
    input scaling is in the state dict: a bundle's weights include the scaling they were trained with.

    Attributes:
        body: The wrapped network; `body.encoder` if it has an exchangeable one.
        multiple: Divisor of the body's spatial sizes.
        minimum: Smallest spatial size of the body.
        frozen: Part that is currently not trained.
    """

    def __init__(
        self, body: nn.Module, *, multiple: int, minimum: int = 1, in_channels: int, scaling: Scaling | None
    ) -> None:
        super().__init__()
        self.body = body
        self.multiple = multiple
        self.minimum = minimum
        self.frozen: Freeze = "none"
        self.register_buffer("input_factor", None)
        self.register_buffer("input_offset", None)
        if scaling is not None:
            mean, deviation = (_spread(torch.tensor(values), in_channels) for values in scaling)
            self.input_factor = (1 / deviation).reshape(1, -1, 1, 1)
            self.input_offset = (-mean / deviation).reshape(1, -1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits; `images` are float, in unit range if the weights are pretrained."""
        size = images.shape[2:]
        if self.input_factor is not None:
            images = torch.addcmul(self.input_offset, images, self.input_factor)
        missing = [-max(extent, self.minimum) % self.multiple + max(0, self.minimum - extent) for extent in size]
        if not any(missing):
            return self.body(images)
        padding = [amount for extent in reversed(missing) for amount in (0, extent)]
        logits: Tensor = self.body(functional.pad(images, padding, mode="replicate"))
        return logits[(..., *(slice(extent) for extent in size))]

    def freeze(self, what: Freeze) -> None:
        """Freeze the encoder, its batch norm, or nothing; may be called between epochs for staged unfreezing."""
        self.frozen = what
        encoder = getattr(self.body, "encoder", None)
        if encoder is None:
            return
        encoder.requires_grad_(what != "encoder")
        if what == "batchnorm":
            for module in _batch_norms(encoder):
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch the mode as `Module.train` does, but keep frozen parts in eval mode."""
        super().train(mode)
        encoder = getattr(self.body, "encoder", None)
        if encoder is not None and self.frozen == "encoder":
            encoder.eval()
        elif encoder is not None and self.frozen == "batchnorm":
            for module in _batch_norms(encoder):
                module.eval()
        return self


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, _BATCH_NORMS)]


def _spread(values: Tensor, in_channels: int) -> Tensor:
    """Assign a value to each input channel as smp adapts first weights: one gets the mean, more repeat cyclically."""
    if in_channels == 1:
        return values.mean().reshape(1)
    return values[torch.arange(in_channels) % len(values)]
