"""Inference: from a prepared image to probabilities, by slices or windows. Uses no thresholds or true masks."""

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from glioflow.errors import UserError
from glioflow.evaluation.settings import CPU_PIXELS, Precision

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of `name` (`auto`, `cpu`, `cuda`, `cuda:1`); `auto` takes a GPU if there is one.

    Raises:
        UserError: If this machine has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = ["cpu", *(f"cuda:{index}" for index in range(count))]
    if name == "auto":
        name = "cuda" if count else "cpu"
    if name not in devices and not (name == "cuda" and count):
        raise UserError(f"this machine has no device {name!r}", name, ["auto", *devices])
    return torch.device(name)


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """Return the meaning of `auto` on this device: bf16 if it computes in it, else fp16 on a GPU and fp32 on a CPU."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        # By default PyTorch says yes, too, where it only emulates bf16: on GPUs older than Ampere.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capable = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    return "bf16" if capable and torch.cpu.get_capabilities().get("avx512_bf16", False) else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a forward pass runs at `precision`."""
    resolved = resolve_precision(precision, device)
    if resolved == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if resolved == "bf16" else torch.float16
    context: AbstractContextManager[Any] = torch.autocast(device.type, dtype=dtype)
    return context


@cache
def keep_freed_memory() -> bool:
    """Make this process reuse the memory of freed tensors; return whether that is possible.

    glibc returns blocks of 32 MiB and more to the kernel at once and requests them again for the next layer, with every
    page zeroed: with large slices, that takes a fifth of a training step on the CPU (benchmarks/memory.md). Without
    glibc, this function does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(what, 2**30) for what in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def slices_at_once(height: int, width: int, most: int, device: torch.device) -> int:
    """Return the number of slices of (height, width) for one forward pass: up to `most`, fewer on a CPU."""
    if device.type != "cpu":
        return most
    return min(most, max(1, CPU_PIXELS // max(1, height * width)))


def predict_volume(
    network: torch.nn.Module,
    image: NDArray[np.floating[Any]],
    *,
    softmax: bool,
    batch_size: int = 16,
    precision: Precision = "auto",
    flip: bool = False,
    patch: tuple[int, int, int] | None = None,
    overlap: float = 0.5,
) -> NDArray[np.float32]:
    """Apply a network to a prepared image: a 2D one to its slices, a 3D one to a sliding window.

    Args:
        network: Maps (B, C, h, w) to logits (B, K, h, w), or (B, C, d, h, w) to (B, K, d, h, w), on its own device.
        image: (S, h, w, C).
        softmax: Whether the K outputs are exclusive classes.
        batch_size: Slices or windows in a forward pass; on a CPU fewer slices, see `slices_at_once`.
        precision: Precision of the forward pass; probabilities are always float32.
        flip: Average with the prediction for the image mirrored left to right.
        patch: The window (d, h, w) of a 3D network; None for a 2D one.
        overlap: Fraction of a window that overlaps the next one, in [0, 1).

    Returns:
        Probabilities (S, h, w, K) in [0, 1].

    Source: sliding window with Gaussian weights as in MONAI.
    """
    device = next(network.parameters()).device
    out: torch.Tensor | None = None

    def keep(first: int, probability: torch.Tensor) -> None:
        nonlocal out
        if out is None:
            size, order = (
                (image.shape[0], *probability.shape[1:]),
                sorted(range(4), key=probability.stride, reverse=True),
            )
            out = torch.empty_permuted(size, order, pin_memory=device.type == "cuda")  # copied without reordering
        out[first : first + len(probability)].copy_(probability, non_blocking=True)

    visit_predictions(
        network,
        image,
        keep,
        softmax=softmax,
        batch_size=batch_size,
        precision=precision,
        flip=flip,
        patch=patch,
        overlap=overlap,
    )
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return np.zeros((0, *image.shape[1:3], 0), np.float32) if out is None else np.asarray(out.numpy())


def visit_predictions(
    network: torch.nn.Module,
    image: NDArray[np.floating[Any]],
    visit: Callable[[int, torch.Tensor], None],
    *,
    softmax: bool,
    batch_size: int = 16,
    precision: Precision = "auto",
    flip: bool = False,
    patch: tuple[int, int, int] | None = None,
    overlap: float = 0.5,
) -> None:
    """Apply a network as `predict_volume` does, and pass the probabilities to `visit` on the network's device.

    On a GPU, slices are copied asynchronously through pinned memory while the network runs.

    Args:
        network: As for `predict_volume`, like the other arguments.
        image: (S, h, w, C).
        visit: Called with the number of the first slice and probabilities (n, h, w, K) float32, in order.
        softmax: Whether the K outputs are exclusive classes.
        batch_size: Slices or windows in a forward pass.
        precision: Precision of the forward pass.
        flip: Average with the prediction for the image mirrored left to right.
        patch: The window (d, h, w) of a 3D network; None for a 2D one.
        overlap: Fraction of a window that overlaps the next one, in [0, 1).
    """
    device = next(network.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()

    def predict(batch: torch.Tensor) -> torch.Tensor:
        probability = _probability(network, batch, softmax, precision)
        if flip:
            mirrored = _probability(network, batch.flip(-1), softmax, precision).flip(-1)
            probability = (probability + mirrored) / 2
        return probability

    was_training = network.training
    if was_training:  # switching visits all modules, which takes a tenth of the time of a small slice
        network.eval()
    try:
        with torch.inference_mode():
            if patch is not None:
                visit(0, _slide(predict, image, patch, overlap, batch_size, device))
                return
            count = slices_at_once(image.shape[1], image.shape[2], batch_size, device)
            for first in range(0, image.shape[0], count):
                batch = _sent(image[first : first + count], device).permute(0, 3, 1, 2)
                visit(first, predict(batch).permute(0, 2, 3, 1))
    finally:
        if was_training:
            network.train()


def _sent(block: NDArray[np.floating[Any]], device: torch.device) -> torch.Tensor:
    """Return an array on a device as float32; it is copied to a GPU in its stored type, through pinned memory."""
    if device.type != "cuda":
        return torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32)).to(device)
    source = torch.from_numpy(block if block.flags.writeable else np.array(block))
    pinned = torch.empty(block.shape, dtype=source.dtype, pin_memory=True).copy_(source)
    return pinned.to(device, non_blocking=True).float()


def _slide(
    predict: Callable[[torch.Tensor], torch.Tensor],
    image: NDArray[np.floating[Any]],
    patch: tuple[int, int, int],
    overlap: float,
    batch_size: int,
    device: torch.device,
) -> torch.Tensor:
    from monai.inferers import sliding_window_inference

    whole = _sent(image, device)
    probability = sliding_window_inference(
        whole.permute(3, 0, 1, 2)[None].contiguous(),
        patch,
        batch_size,
        predict,
        overlap=overlap,
        mode="gaussian",
        padding_mode="constant",
    )
    assert isinstance(probability, torch.Tensor)
    return probability[0].permute(1, 2, 3, 0).float().clamp(0, 1)


def _probability(network: torch.nn.Module, batch: torch.Tensor, softmax: bool, precision: Precision) -> torch.Tensor:
    with autocast(batch.device, precision):
        logits = network(batch)
    return torch.softmax(logits.float(), 1) if softmax else torch.sigmoid(logits.float())
