"""Adaptive average pooling as two matrix products, since PyTorch's has no deterministic backward pass on GPUs."""

# mypy: disallow-subclassing-any=False

import torch
from torch import Tensor, nn


class MatrixPool2d(nn.Module):
    """Equivalent of `nn.AdaptiveAvgPool2d`, up to rounding."""

    def __init__(self, output_size: tuple[int | None, int | None]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, images: Tensor) -> Tensor:
        """Return the means (B, C, h, w) over the cells of images (B, C, H, W)."""
        rows, columns = (
            _means(have, want or have, images) for have, want in zip(images.shape[2:], self.output_size, strict=True)
        )
        return rows @ images @ columns.T


def _means(have: int, want: int, like: Tensor) -> Tensor:
    """Return (want, have): row i holds the weights of cell i, which is from floor(i n / m) to ceil((i + 1) n / m)."""
    cell = torch.arange(want, device=like.device)[:, None]
    position = torch.arange(have, device=like.device)
    inside = (position >= cell * have // want) & (position < -(-(cell + 1) * have // want))
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def replace_pooling(network: nn.Module) -> None:
    """Replace every adaptive average pooling layer (which has no weights) of a network."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
                setattr(module, name, MatrixPool2d((pair[0], pair[1])))
