"""Two training loops as people write them who use no platform, until a deadline; run by `peers.py`.

Run: python benchmarks/peer_loops.py buda|monai DATA.npz OUT.npz --minutes M

DATA.npz holds slices (N, H, W, 3) uint8 and their masks under `train/CASE/image` and so on, for the parts `train`,
`val` and `test` (images alone). OUT.npz gets a mask (S, H, W) uint8 of every test case. `buda` is the loop of the
PyTorch port of Buda's network (mateuszbuda/brain-segmentation-pytorch): its network, normalization, sampling weights,
augmentation and Dice loss. `monai` is the loop of MONAI's tutorials: its UNet, DiceCELoss, transforms and Adam. For
two cores and a short budget both get what their users would give them: 128 x 128 pixels, a learning rate that falls to
0 at the deadline, the network that was best on the validation patients, and the largest component.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glioflow.evaluation import dice_per_case

SIZE, BATCH = 128, 16
CHECKS = (0.4, 0.6, 0.8, 0.9, 0.97)  # shares of the budget after which the validation patients are scored
Images = NDArray[np.float32]
Slice = tuple[Images, NDArray[np.float32]]


@dataclass(frozen=True)
class Loop:
    """What tells one loop from the other: `normalize` takes (S, H, W, C); `vary` one slice (H, W, C) and its mask."""

    network: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    learning_rate: float
    normalize: Callable[[Images], Images]
    vary: Callable[[Images, NDArray[np.float32]], Slice]


def buda() -> Loop:
    """Return the port's loop."""
    import albumentations as alb

    from glioflow.models.networks import build_network
    from glioflow.models.settings import ModelSettings

    def normalize(volume: Images) -> Images:
        low, high = np.percentile(volume, (10, 99))
        scaled = np.clip((volume - low) / max(float(high - low), 1e-6), 0, 1)
        normal: Images = (scaled - scaled.mean((0, 1, 2))) / np.maximum(scaled.std((0, 1, 2)), 1e-6)
        return normal.astype(np.float32)

    def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
        predicted = torch.sigmoid(logits).flatten()
        return 1 - (2 * (predicted * target.flatten()).sum() + 1) / (predicted.sum() + target.sum() + 1)

    change = alb.Compose([alb.HorizontalFlip(p=0.5), alb.Affine(scale=(0.95, 1.05), rotate=(-15, 15), p=1.0)])

    def vary(image: Images, mask: NDArray[np.float32]) -> Slice:
        out = change(image=image, mask=mask)
        return out["image"], out["mask"]

    network = build_network(ModelSettings(architecture="buda-unet", encoder=None), in_channels=3, num_outputs=1)
    return Loop(network, dice_loss, 1e-3, normalize, vary)


def monai() -> Loop:
    """Return the loop of MONAI's tutorials."""
    from monai import transforms
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    scale = transforms.NormalizeIntensity(nonzero=True, channel_wise=True)

    def normalize(volume: Images) -> Images:
        return np.moveaxis(np.asarray(scale(np.moveaxis(volume, -1, 0))), 0, -1).astype(np.float32)

    keys = ("image", "mask")
    change = transforms.Compose(
        [
            transforms.RandFlipd(keys, prob=0.5, spatial_axis=1),
            transforms.RandAffined(
                keys,
                prob=0.8,
                rotate_range=0.26,
                scale_range=0.1,
                translate_range=6,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            transforms.RandScaleIntensityd("image", factors=0.1, prob=0.5),
            transforms.RandShiftIntensityd("image", offsets=0.1, prob=0.5),
        ]
    )

    def vary(image: Images, mask: NDArray[np.float32]) -> Slice:
        out = change({"image": np.moveaxis(image, -1, 0), "mask": mask[None]})
        return np.moveaxis(np.asarray(out["image"]), 0, -1), np.asarray(out["mask"])[0]

    network = UNet(2, 3, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    return Loop(network, DiceCELoss(sigmoid=True), 1e-3, normalize, vary)


def resize(volume: NDArray[Any], size: tuple[int, int], how: int) -> NDArray[np.float32]:
    """Resize (S, H, W) or (S, H, W, C) in the slices' plane."""
    return np.stack([cv2.resize(each, size[::-1], interpolation=how) for each in volume]).astype(np.float32)


class Slices(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """All slices of the training patients, varied."""

    def __init__(self, loop: Loop, cases: dict[str, dict[str, NDArray[np.uint8]]]) -> None:
        images, masks = [], []
        for case in cases.values():
            images.append(loop.normalize(resize(case["image"], (SIZE, SIZE), cv2.INTER_AREA)))
            masks.append(resize(case["mask"], (SIZE, SIZE), cv2.INTER_NEAREST))
        self.images, self.masks, self.loop = np.concatenate(images), np.concatenate(masks), loop

    def weights(self) -> NDArray[np.float64]:
        """Return how often each slice is drawn, as the port draws them: by the size of its tumor and a tenth of all."""
        sizes = self.masks.sum((1, 2)).astype(np.float64)
        return (sizes + 0.1 * 4 * sizes.mean()) / (sizes.sum() * (1 + 0.1 * 4))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.loop.vary(self.images[index], self.masks[index])
        return torch.from_numpy(np.moveaxis(image, -1, 0).copy()), torch.from_numpy(mask[None].copy()).float()


def batches(data: Slices) -> Iterator[tuple[Tensor, Tensor]]:
    """Give batches without an end, made by one process beside the training."""
    while True:
        weights = torch.from_numpy(data.weights())
        sampler = torch.utils.data.WeightedRandomSampler(weights.tolist(), len(data))
        yield from torch.utils.data.DataLoader(data, BATCH, sampler=sampler, num_workers=1, drop_last=True)


@torch.inference_mode()
def predict(loop: Loop, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest component of the mask (S, H, W) of a case."""
    from skimage.measure import label

    loop.network.eval()
    volume = torch.from_numpy(np.moveaxis(loop.normalize(resize(image, (SIZE, SIZE), cv2.INTER_AREA)), -1, 1).copy())
    chances = torch.cat([torch.sigmoid(loop.network(part)) for part in volume.split(BATCH)])[:, 0].numpy()
    mask = resize(chances, image.shape[1:3], cv2.INTER_LINEAR) >= 0.5
    parts = label(mask)
    sizes = np.bincount(parts.ravel())[1:]
    return (parts == 1 + int(sizes.argmax())).astype(np.uint8) if len(sizes) else mask.astype(np.uint8)


def train(loop: Loop, parts: dict[str, dict[str, dict[str, NDArray[np.uint8]]]], began: float, minutes: float) -> int:
    """Train until the minutes are over, leave the best network in `loop`, and return the number of steps."""
    data, deadline = Slices(loop, parts["train"]), began + 60 * minutes
    start, steps, best = time.perf_counter(), 0, -1.0
    weights: dict[str, Tensor] = {}
    optimizer = torch.optim.Adam(loop.network.parameters(), lr=loop.learning_rate)
    checks = list(CHECKS)
    for images, masks in batches(data):
        loop.network.train()
        passed = min(1.0, (time.perf_counter() - start) / (deadline - start))
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate * 0.5 * (1 + np.cos(np.pi * passed))
        optimizer.zero_grad()
        loop.loss(loop.network(images), masks).backward()
        optimizer.step()
        steps += 1
        passed = (time.perf_counter() - start) / (deadline - start)
        if passed >= checks[0]:
            checks = [each for each in checks if each > passed]
            value = float(
                np.mean(
                    [
                        dice_per_case(predict(loop, case["image"]) > 0, case["mask"] > 0)
                        for case in parts["val"].values()
                    ]
                )
            )
            print(f"{steps} steps, {(time.perf_counter() - began) / 60:.1f} minutes: {value:.3f}", flush=True)
            if value > best:
                best, weights = value, {name: each.clone() for name, each in loop.network.state_dict().items()}
        if not checks:
            break
    loop.network.load_state_dict(weights)
    return steps


def main() -> None:
    """Train and predict."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["buda", "monai"])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    given = parser.parse_args()
    torch.manual_seed(0)
    np.random.seed(0)
    parts: dict[str, dict[str, dict[str, NDArray[np.uint8]]]] = {}
    with np.load(given.data) as arrays:
        for name in arrays.files:
            part, case, kind = name.split("/")
            parts.setdefault(part, {}).setdefault(case, {})[kind] = arrays[name]
    loop = buda() if given.loop == "buda" else monai()
    steps = train(loop, parts, began, given.minutes)
    print(f"PEER_SECONDS {time.perf_counter() - began:.0f}\nPEER_STEPS {steps}", flush=True)
    np.savez_compressed(given.out, **{case: predict(loop, each["image"]) for case, each in parts["test"].items()})


if __name__ == "__main__":
    main()
