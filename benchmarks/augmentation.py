"""The policy `light` on whole batches: ours beside kornia's and beside albumentations a slice at a time.

Run: python benchmarks/augmentation.py [--seconds 2] [--out FILE]

kornia is not installed with GlioFlow: `uv pip install --no-deps kornia kornia_rs`. Batches lie on the device, random
numbers are drawn anew for each, and rounds of all contenders are interleaved; medians count. On a CPU one thread works.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from machine import first_lines
from other_augmentation import light_for_slices
from torch import Tensor

from glioflow.data.batches.augmentation import Augmentation
from glioflow.data.batches.policies import POLICIES

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Work = Callable[[int], None]


def ours(images: Tensor, masks: Tensor) -> Work:
    """Return our augmentation of a batch."""
    vary = Augmentation(POLICIES["light"], seed=0)

    def work(step: int) -> None:
        vary(step, images.clone(), masks.clone())

    return work


def of_kornia(images: Tensor, masks: Tensor) -> Work:
    """Return kornia's: the same ranges; masks are sampled at the nearest voxel."""
    import kornia.augmentation as ka

    steps: list[torch.nn.Module]
    if images.ndim == 4:
        steps = [ka.RandomHorizontalFlip(p=0.5), ka.RandomAffine(degrees=10.0, scale=(0.92, 1.08), p=0.7)]
        vary = ka.AugmentationSequential(*steps, data_keys=["input", "mask"])
        return lambda _: vary(images.clone(), masks[:, None].float())
    flip = ka.RandomHorizontalFlip3D(p=0.5)
    bounds = {"degrees": (3.0, 3.0, 10.0), "scale": ((0.92, 1.08),) * 3, "p": 0.7}
    turn, turn_labels = ka.RandomAffine3D(**bounds), ka.RandomAffine3D(**bounds, resample="nearest")

    def both(_: int) -> None:
        turn(flip(images))
        turn_labels(flip(masks[:, None].float(), params=flip._params), params=turn._params)

    return both


def of_albumentations(images: Tensor, masks: Tensor) -> Work:
    """Return albumentations' transform of one slice after another, as a worker of a DataLoader runs it."""
    vary = light_for_slices()
    arrays = [np.ascontiguousarray(np.moveaxis(image, 0, -1)) for image in images.cpu().numpy()]
    labels = list(masks.cpu().numpy())

    def work(_: int) -> None:
        for image, mask in zip(arrays, labels, strict=True):
            vary(image=image, mask=mask)

    return work


def compare(shape: tuple[int, ...], seconds: float) -> str:
    """Measure contenders on batches of one shape (B, C, [d,] h, w); return a row."""
    images = torch.rand(shape, device=DEVICE)
    masks = (images[:, 0] > 0.5).to(torch.uint8)
    makers: dict[str, Callable[[Tensor, Tensor], Work]] = {"ours": ours}
    if find_spec("kornia"):
        makers["kornia"] = of_kornia
    if len(shape) == 4:
        makers["albumentations"] = of_albumentations
    times: dict[str, list[float]] = {}
    works = {name: make(images, masks) for name, make in makers.items()}
    for work in works.values():
        work(0)
    began, step = time.perf_counter(), 1
    while time.perf_counter() - began < seconds or step < 5:
        for name, work in works.items():
            _wait()
            start = time.perf_counter()
            work(step)
            _wait()
            times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        step += 1
    medians = {name: statistics.median(values) for name, values in times.items()}
    cells = [f"{medians[name]:.1f} ms" if name in medians else "" for name in ("ours", "kornia", "albumentations")]
    return f"| {' x '.join(map(str, shape))} | {' | '.join(cells)} |"


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    began = time.perf_counter()
    if DEVICE.type == "cpu":
        torch.set_num_threads(1)
    small = DEVICE.type == "cpu"
    shapes: list[tuple[int, ...]] = [(16, 3, 128, 128), (8 if small else 64, 3, 256, 256)]
    shapes.append((2, 4, 64, 64, 64) if small else (2, 4, 128, 128, 128))
    lines = ["", f"{DEVICE.type}:", "", "| batch | ours | kornia | albumentations |", "|---|---|---|---|"]
    lines += [compare(shape, given.seconds) for shape in shapes]
    print("\n".join(lines))
    if given.out:
        head = first_lines("Augmentation of whole batches", (time.perf_counter() - began) / 60, 0.0)
        given.out.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
