"""Training on one accelerator: ours, by data path and policy, beside a bare loop whose batches lie in device memory.

Run: python benchmarks/gpu.py [--only NAME ...] [--seconds 3] [--compile] [--baseline CHECKOUT] [--out FILE]

It needs only PyTorch, smp, MONAI and GlioFlow's packages for data, models and training; it makes its own data. Without
a GPU, or with --small, everything is tiny and the figures mean nothing: so tests keep it running.

Bare loop: the same network and loss in bf16, channels_last for slices, fused AdamW, cuDNN's own choice of kernels, and
batches made before. DataLoader: one worker a core but two, pinned memory, persistent workers, prefetching, the
policy `light` written with albumentations (slices) or MONAI (patches). Baseline: the training step of another checkout.
"""

import argparse
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import first_lines
from other_augmentation import light_for_patches, light_for_slices
from torch import Tensor, nn

from glioflow.data.batches.sampling import batches_of
from glioflow.data.batches.settings import SamplingSettings
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.prepared.manifest import CaseRecord
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation.inference import predict_volume
from glioflow.models import LossSettings, ModelSettings, build_loss, build_network
from glioflow.training.settings import TrainingSettings
from glioflow.training.trainer import Trainer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TARGET = TargetSettings()
NAN = float("nan")
OURS = "our step, batches in device memory"
# Parts of our step: the row with it, and the row that differs by it alone.
PARTS = (
    ("CUDA graph", OURS, "our step, no CUDA graph"),
    ("bf16", OURS, "our step, fp32"),
    ("fp16", "our step, fp16", "our step, fp32"),
    ("`torch.compile`", "our step, compiled", OURS),
)


@dataclass(frozen=True)
class Task:
    """A network and the batches that it trains on.

    Attributes:
        name: Of the row.
        architecture: Of GlioFlow.
        encoder: Of the architecture, if it has one.
        size: Voxels of a slice (h, w) or of a patch (d, h, w).
        batch: Slices or patches.
        channels: Of the image.
        volume: Voxels of a case (S, H, W).
        cases: How many cases to make.
    """

    name: str
    architecture: str
    encoder: str | None
    size: tuple[int, ...]
    batch: int
    channels: int
    volume: tuple[int, int, int]
    cases: int

    @property
    def patch(self) -> tuple[int, int, int] | None:
        """Size of a patch; None for slices."""
        return (self.size[0], self.size[1], self.size[2]) if len(self.size) == 3 else None


TASKS = (
    Task("U-Net/ResNet-34, 256 px, batch 64", "unet", "resnet34", (256, 256), 64, 3, (40, 256, 256), 8),
    Task("U-Net/MobileNetV2, 128 px, batch 16", "unet", "mobilenet_v2", (128, 128), 16, 3, (40, 128, 128), 8),
    Task("unet3d, 4 x 128^3, batch 2", "unet3d", None, (128, 128, 128), 2, 4, (155, 192, 192), 3),
    Task("dynunet, 4 x 128^3, batch 2", "dynunet", None, (128, 128, 128), 2, 4, (155, 192, 192), 3),
)
SMALL = (
    Task("U-Net/ResNet-18, 32 px, batch 4", "unet", "resnet18", (32, 32), 4, 3, (4, 32, 32), 2),
    Task("unet3d, 2 x 16^3, batch 2", "unet3d", None, (16, 16, 16), 2, 2, (16, 20, 20), 2),
)


def make_cases(task: Task, folder: Path) -> list[PreparedCase]:
    """Write prepared cases: noise with a bright ellipsoid, which is the tumor."""
    cases, rng = [], np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in task.volume), indexing="ij", sparse=True)
    for k in range(task.cases):
        center, radius = rng.uniform(-0.4, 0.4, 3), rng.uniform(0.2, 0.4)
        mask = (sum((axis - c) ** 2 for axis, c in zip(axes, center, strict=True)) < radius**2).astype(np.uint8)
        image = rng.random((*task.volume, task.channels), np.float32) * 0.5 + 0.4 * mask[..., None]
        place = folder / f"case-{k}"
        place.mkdir(parents=True)
        np.save(place / "image.npy", image.astype(np.float16))
        np.save(place / "mask.npy", mask)
        record = CaseRecord(
            id=f"case-{k}",
            patient=f"case-{k}",
            institution=None,
            folder=f"cases/case-{k}",
            shape=task.volume,
            spacing_mm=None,
            source_channels=tuple(f"c{j}" for j in range(task.channels)),
            channels=tuple(f"c{j}" for j in range(task.channels)),
            slice_numbers=tuple(range(task.volume[0])),
            moves=(),
            areas_px=tuple(int(area) for area in mask.sum((1, 2))),
            volume_px=int(mask.sum()),
            sizes={},
        )
        cases.append(PreparedCase(record, place))
    return cases


def build(task: Task) -> tuple[nn.Module, nn.Module]:
    """Return network and loss on the device."""
    torch.manual_seed(0)
    chosen = ModelSettings(architecture=task.architecture, encoder=task.encoder)
    network = build_network(chosen, in_channels=task.channels, num_outputs=1).to(DEVICE)
    return network, build_loss(LossSettings(name="dice_bce"), task="binary").to(DEVICE)


def sampling(task: Task, policy: str) -> SamplingSettings:
    """Return the settings of batches."""
    return SamplingSettings(augmentation=policy, patch=task.patch)


def make_batches(task: Task, cases: list[PreparedCase], policy: str, storage: str) -> Any:
    """Return our batches."""
    settings = sampling(task, policy)
    return batches_of(settings)(
        cases, TARGET, settings, batch_size=task.batch, seed=0, device=DEVICE, storage=storage, num_threads=8
    )


Steps = Callable[[], Iterator[Tensor]]


def bare(task: Task, cases: list[PreparedCase]) -> Steps:
    """Return the bare loop."""
    network, loss = build(task)
    if task.patch is None:
        network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=DEVICE.type == "cuda")
    ready = Fixed(task, cases).ready

    def steps() -> Iterator[Tensor]:
        network.train()
        for images, targets in itertools.cycle(ready):
            yield bare_step(network, loss, optimizer, images, targets)

    return steps


def bare_step(
    network: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor
) -> Tensor:
    """Take one step as a competent user writes it; return its loss."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        logits = network(images)
    value: Tensor = loss(logits.float(), targets)
    value.backward()
    optimizer.step()
    return value


class Fixed:
    """Batches that were made before, over and over."""

    steps_per_pass = 100

    def __init__(self, task: Task, cases: list[PreparedCase]) -> None:
        made = make_batches(task, cases, "none", "disk")
        self.ready = [tuple(part.to(DEVICE) for part in made.batch(step)) for step in range(4)]

    def steps(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield them."""
        for step in range(first, last):
            yield self.ready[step % 4]


def ours(task: Task, batches: Any, **changes: Any) -> Steps:
    """Return our loop over some batches."""
    network, loss = build(task)
    settings = TrainingSettings(
        epochs=1, steps_per_epoch=10**6, batch_size=task.batch, learning_rate=1e-4, schedule="constant",
        **({"precision": "bf16"} | changes),
    )  # fmt: skip
    trainer = Trainer(network, loss, batches, settings)

    def steps() -> Iterator[Tensor]:
        network.train()
        trainer.use.begin_epoch()
        for step, (images, targets) in enumerate(batches.steps(0, 10**6)):
            trainer.use.batch_ready()
            yield trainer.step(step, images, targets)
            trainer.use.batch_asked()

    steps.use = trainer.use  # type: ignore[attr-defined]
    return steps


class Slices(torch.utils.data.Dataset):  # type: ignore[misc]
    """Slices or patches with the policy `light`, as a competent user of a DataLoader writes them."""

    def __init__(self, task: Task, cases: list[PreparedCase]) -> None:
        self.task, self.made = task, make_batches(task, cases, "none", "disk")
        self.made.batch_size, self.made.device = 1, torch.device("cpu")

    def __len__(self) -> int:
        return 10**7

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        images, masks = self.made.gather(number)
        image, mask = images[0].astype(np.float32), masks[0]
        if self.task.patch is None:
            out = self.vary(image=image, mask=mask)
            image, mask = out["image"], out["mask"]
            return torch.from_numpy(np.moveaxis(image, -1, 0).copy()), torch.from_numpy(mask[None]).float()
        out = self.vary({"image": np.moveaxis(image, -1, 0), "mask": mask[None].astype(np.float32)})
        return torch.as_tensor(out["image"]), torch.as_tensor(out["mask"])

    @cached_property
    def vary(self) -> Any:
        """The transform, made in the worker that uses it."""
        return light_for_slices() if self.task.patch is None else light_for_patches()


def data_loader(task: Task, cases: list[PreparedCase], workers: int) -> Steps:
    """Return the bare loop over a DataLoader."""
    network, loss = build(task)
    if task.patch is None:
        network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=DEVICE.type == "cuda")
    options = {"num_workers": workers, "persistent_workers": True, "prefetch_factor": 4} if workers else {}
    loader = torch.utils.data.DataLoader(
        Slices(task, cases), batch_size=task.batch, pin_memory=DEVICE.type == "cuda", **options
    )

    def steps() -> Iterator[Tensor]:
        network.train()
        for images, targets in loader:
            images = images.to(DEVICE, non_blocking=True)
            targets = targets.to(DEVICE, non_blocking=True)
            yield bare_step(network, loss, optimizer, images, targets)

    return steps


# Runs in the other checkout: its training step over batches in device memory.
BASELINE = """
import json, sys, time
checkout, given = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, checkout + "/platform")
import torch
from glioflow.models import LossSettings, ModelSettings, build_loss, build_network
from glioflow.training.trainer import Trainer
from glioflow.training.settings import TrainingSettings

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
batch, channels, size = given["batch"], given["channels"], given["size"]
chosen = ModelSettings(architecture=given["architecture"], encoder=given["encoder"])
network = build_network(chosen, in_channels=channels, num_outputs=1).to(device)
loss = build_loss(LossSettings(name="dice_bce"), task="binary").to(device)
settings = TrainingSettings(epochs=1, steps_per_epoch=10**6, batch_size=batch, precision="bf16", schedule="constant")

class Batches:
    steps_per_pass = 100

trainer = Trainer(network, loss, Batches(), settings)
ready = []
for _ in range(4):
    images = torch.rand(batch, channels, *size, device=device)
    images = images.contiguous(memory_format=torch.channels_last) if len(size) == 2 else images
    ready.append((images, (images[:, :1] > 0.9).float()))
network.train()
step = 0

def run(seconds):
    global step
    wait()
    began, first = time.perf_counter(), step
    while time.perf_counter() - began < seconds:
        for _ in range(4):
            trainer.step(step, *ready[step % 4])
            step += 1
        wait()
    return (step - first) * batch / (time.perf_counter() - began)

run(1.0)
print(run(given["seconds"]))
"""


def baseline(task: Task, checkout: Path, seconds: float) -> float:
    """Return samples a second of another checkout's training step over batches in device memory."""
    given = {name: getattr(task, name) for name in ("architecture", "encoder", "batch", "channels", "size")}
    command = [sys.executable, "-c", BASELINE, str(checkout.resolve()), json.dumps({**given, "seconds": seconds})]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        print(done.stderr[-800:], file=sys.stderr)
        return NAN
    return float(done.stdout.split()[-1])


@dataclass(frozen=True)
class Rate:
    """Samples a second, busy percent as the driver counts it, percent without training work, and memory in GB."""

    per_s: float
    busy: float
    waiting: float
    memory_gb: float


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def measure(task: Task, steps: Steps, seconds: float) -> Rate:
    """Warm up, then take steps for some seconds without waiting for the device in between."""
    stream = steps()
    for _ in range(2 if seconds < 1 else 12):
        next(stream)
    _wait()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if hasattr(steps, "use"):
        steps.use.begin_epoch()
    busy: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.25):
            try:
                busy.append(float(torch.cuda.utilization()))
            except Exception:
                return

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    began, count, behind = time.perf_counter(), 0, []
    while not count or time.perf_counter() - began < seconds:
        next(stream)
        count += 1
        if DEVICE.type == "cuda":  # stay at most eight steps ahead of the device, which is never idle for it
            event = torch.cuda.Event()
            event.record()
            behind.append(event)
            if len(behind) > 8:
                behind.pop(0).synchronize()
    _wait()
    elapsed = time.perf_counter() - began
    done.set()
    sampler.join()
    waiting = steps.use.end_epoch()["train/waiting_for_data"] if hasattr(steps, "use") else NAN
    memory = torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else NAN
    stream.close()
    return Rate(count * task.batch / elapsed, statistics.mean(busy[1:] or busy or [NAN]), waiting, memory)


def contenders(
    task: Task, cases: list[PreparedCase], workers: int, *, compiled: bool
) -> dict[str, Callable[[], Steps]]:
    """Return what is measured, by name, each made when its turn comes."""
    out: dict[str, Callable[[], Steps]] = {  # the DataLoader first: its workers are forked, which CUDA graphs forbid
        f"DataLoader, {workers} workers, light": lambda: data_loader(task, cases, workers),
        "bare loop, batches in device memory": lambda: bare(task, cases),
        OURS: lambda: ours(task, Fixed(task, cases)),
        "our step, no CUDA graph": lambda: ours(task, Fixed(task, cases), cuda_graphs=False),
        "our step, fp32": lambda: ours(task, Fixed(task, cases), precision="fp32"),
        "our step, fp16": lambda: ours(task, Fixed(task, cases), precision="fp16"),
    }
    paths = ["device", "host", "disk"] if DEVICE.type == "cuda" else ["host", "disk"]
    for storage in paths:
        for policy in ("none", "light", "strong") if storage == paths[0] else ("light", "strong"):
            name = f"GlioFlow, {storage}, {policy}"
            out[name] = lambda storage=storage, policy=policy: ours(task, make_batches(task, cases, policy, storage))
    if compiled:
        out["our step, compiled"] = lambda: ours(task, Fixed(task, cases), compile=True)
    return out


def prediction(task: Task, cases: list[PreparedCase], batch_size: int) -> str:
    """Return a row: `predict_volume` beside its forward passes alone."""
    network, _ = build(task)
    network.eval()
    if task.patch is None:
        network.to(memory_format=torch.channels_last)
    image = np.array(cases[0].image)
    stack = torch.from_numpy(image).to(DEVICE).float().permute(0, 3, 1, 2)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16):
            for first in range(0, len(stack), batch_size):
                network(stack[first : first + batch_size])

    def whole() -> None:
        predict_volume(network, image, softmax=False, batch_size=batch_size, precision="bf16")

    medians = []
    for run in (forward, whole):
        times = []
        for _ in range(8):
            _wait()
            began = time.perf_counter()
            run()
            _wait()
            times.append(time.perf_counter() - began)
        medians.append(1000 * statistics.median(times[2:]))
    shown = f"{medians[0]:.1f} ms | {medians[1]:.1f} ms | {medians[1] / medians[0]:.2f}"
    return f"| {task.name}, {len(image)} slices | {batch_size} | {shown} |"


def measure_task(task: Task, given: argparse.Namespace, seconds: float, workers: int) -> list[str]:
    """Measure everything about one task; return its tables."""
    rates: dict[str, Rate] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        cases = make_cases(task, Path(folder))
        if given.baseline:
            per_s = baseline(task, given.baseline, seconds)
            rates["step of the baseline, batches in device memory"] = Rate(per_s, NAN, NAN, NAN)
        for name, make in contenders(task, cases, workers, compiled=given.compile).items():
            if given.rows and not any(word in name for word in (*given.rows, "bare")):
                continue
            gc.collect()
            try:
                rates[name] = measure(task, make(), seconds)
            except (RuntimeError, UserError) as error:  # the latter where there is no compiler
                failures.append(f"{name} failed: {str(error).splitlines()[0][:160]}")
                print(failures[-1], flush=True)
                continue
            print(f"{name}: {rates[name]}", flush=True)
            if DEVICE.type == "cuda":
                torch.cuda.empty_cache()
        base = rates["bare loop, batches in device memory"].per_s
        unit = "slices" if task.patch is None else "patches"
        lines = ["", f"## {task.name}", "", f"| | {unit}/s | of the bare loop | busy | waiting for data | GB |"]
        lines += ["|---|---|---|---|---|---|", *(row(name, rate, base) for name, rate in rates.items())]
        lines += [line for failure in failures for line in ("", failure)]
        lines += ["", "| its own gain | with | without | |", "|---|---|---|---|", *gains(rates)]
        if task.patch is None and not given.rows:
            lines += [
                "",
                "| `predict_volume` | batch | forward passes alone | all of it | ratio |",
                "|---|---|---|---|---|",
            ]
            lines += [prediction(task, cases, size) for size in ((4, 8) if task in SMALL else (16, 64))]
    return lines


def gains(rates: dict[str, Rate]) -> list[str]:
    """Return the rows of what each part of our step gains, where both sides were measured."""
    both = [
        (part, rates[with_].per_s, rates[without].per_s)
        for part, with_, without in PARTS
        if {with_, without} <= rates.keys()
    ]
    return [f"| {part} | {one:,.1f} | {other:,.1f} | {one / other:.2f} times |" for part, one, other in both]


def row(name: str, rate: Rate, base: float) -> str:
    """Return one row of a table; what was not measured is left empty."""
    cells = [f"{rate.per_s:,.1f}", f"{100 * rate.per_s / base:.0f} %"]
    cells += [f"{rate.busy:.0f} %", f"{rate.waiting:.1f} %", f"{rate.memory_gb:.1f}"]
    return f"| {name} | {' | '.join('' if cell.startswith('nan') else cell for cell in cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[], help="words of task names")
    parser.add_argument("--rows", nargs="*", default=[], help="words of row names")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--baseline", type=Path, help="checkout of another commit")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    small = given.small or DEVICE.type == "cpu"
    seconds = min(0.2, given.seconds) if small else given.seconds
    workers = given.workers if given.workers is not None else (0 if small else max(1, (os.cpu_count() or 2) - 2))
    if DEVICE.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    began, lines = time.perf_counter(), []
    for task in SMALL if small else TASKS:
        if not given.only or any(word in task.name for word in given.only):
            print(f"# {task.name}", flush=True)
            lines += measure_task(task, given, seconds, workers)
    print("\n".join(lines))
    if given.out:
        head = first_lines("One accelerator", (time.perf_counter() - began) / 60, 0.0)
        given.out.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
