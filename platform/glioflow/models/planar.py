"""Published networks for slices that are in no library: FCN-32s, ResUNet, and the U-Net of Buda et al."""

# mypy: disallow-subclassing-any=False

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Fcn32(nn.Module):
    """Fully convolutional network, stride 32.

    Source: Long, Shelhamer, Darrell 2015. As there, the features are VGG-16's (here any encoder of smp), the dense
    layers become convolutions, and one transposed convolution, initialized as bilinear, restores the full size.
    """

    def __init__(
        self,
        encoder: str,
        *,
        encoder_weights: str | bool | None,
        in_channels: int,
        num_outputs: int,
        head_channels: int,
        head_kernel: int,
        dropout: float,
        **encoder_options: object,
    ) -> None:
        from segmentation_models_pytorch.encoders import get_encoder  # takes seconds

        super().__init__()
        self.encoder = get_encoder(encoder, in_channels=in_channels, weights=encoder_weights, **encoder_options)
        self.head = nn.Sequential(
            nn.Conv2d(self.encoder.out_channels[-1], head_channels, head_kernel, padding="same"),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(head_channels, head_channels, 1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(head_channels, num_outputs, 1),
        )
        self.upsample = nn.ConvTranspose2d(num_outputs, num_outputs, 64, stride=32, padding=16, bias=False)
        position = 1 - (torch.arange(64) - 31.5).abs() / 32
        with torch.no_grad():
            self.upsample.weight.zero_()
            for output in range(num_outputs):
                self.upsample.weight[output, output] = torch.outer(position, position)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, C, H, W), H and W multiples of 32."""
        logits: Tensor = self.upsample(self.head(self.encoder(images)[-1]))
        return logits


class _PlainBlock(nn.Sequential):
    """Two 3x3 convolutions with ReLU; with batch norm, the convolutions have no bias."""

    def __init__(self, before: int, after: int, *, batch_norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers.append(nn.Conv2d(channels, after, 3, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(after)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class BudaUNet(nn.Module):
    """U-Net of Buda, Saha, Mazurowski 2019; `batch_norm` as in its well-known PyTorch port, without as in the paper."""

    def __init__(self, *, in_channels: int, num_outputs: int, features: Sequence[int], batch_norm: bool) -> None:
        super().__init__()
        inputs = [in_channels, *features[:-1]]
        self.down = nn.ModuleList(
            _PlainBlock(*pair, batch_norm=batch_norm) for pair in zip(inputs, features, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        rising = list(reversed(features))
        self.widen = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(rising))
        self.up = nn.ModuleList(_PlainBlock(2 * after, after, batch_norm=batch_norm) for after in rising[1:])
        self.head = nn.Conv2d(features[0], num_outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, C, H, W), H and W multiples of 16."""
        skips = [self.down[0](images)]
        for block in self.down[1:]:
            skips.append(block(self.pool(skips[-1])))
        state = skips.pop()
        for widen, block in zip(self.widen, self.up, strict=True):
            state = block(torch.cat([widen(state), skips.pop()], dim=1))
        logits: Tensor = self.head(state)
        return logits


class _ResidualUnit(nn.Module):
    """Pre-activated residual unit; the identity is a 1x1 convolution if channels or stride change."""

    def __init__(self, before: int, after: int, *, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        activation = [] if first else [nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
        self.residual = nn.Sequential(
            *activation,
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1),
        )
        self.identity = nn.Conv2d(before, after, 1, stride=stride)

    def forward(self, state: Tensor) -> Tensor:
        """Return the unit's output, (B, after, H / stride, W / stride)."""
        result: Tensor = self.identity(state) + self.residual(state)
        return result


class ResUNet(nn.Module):
    """Deep residual U-Net.

    Source: Zhang, Liu, Wang 2018: strided residual units down, upsampling and concatenation up, no pooling.
    """

    def __init__(self, *, in_channels: int, num_outputs: int, features: Sequence[int]) -> None:
        super().__init__()
        pairs = list(pairwise(features))
        self.stem = _ResidualUnit(in_channels, features[0], first=True)
        self.down = nn.ModuleList(_ResidualUnit(a, b, stride=2) for a, b in pairs)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up = nn.ModuleList(_ResidualUnit(a + b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(features[0], num_outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, C, H, W), H and W multiples of 8."""
        skips = [self.stem(images)]
        for unit in self.down:
            skips.append(unit(skips[-1]))
        state = skips.pop()
        for unit in self.up:
            state = unit(torch.cat([self.upsample(state), skips.pop()], dim=1))
        logits: Tensor = self.head(state)
        return logits
