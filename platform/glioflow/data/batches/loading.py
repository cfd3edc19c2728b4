"""Loading of batches ahead of their use, by threads that gather samples and asynchronous copies to the device."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from glioflow.data.targets import TargetSettings

Batch = tuple[Tensor, Tensor]


class Source(Protocol):
    """Interface of what makes the batches of a device, by step."""

    device: torch.device
    num_threads: int

    @property
    def is_resident(self) -> bool:
        """Whether the arrays are on the device."""

    def batch(self, step: int) -> Batch:
        """Return images and targets."""

    def stored(self, step: int) -> Batch:
        """Return images and masks as stored."""

    def complete(self, step: int, images: Tensor, masks: Tensor) -> Batch:
        """Return images and targets made from stored images and masks."""


def loaded(batches: Source, first: int, last: int) -> Iterator[Batch]:
    """Yield the batches of steps `first` to `last` - 1.

    If the arrays are in device memory, a batch takes a few kernels, launched on request. Else threads make it: they
    copy rows of arrays, which releases Python's lock, so that no processes are needed. For a GPU they gather into
    pinned memory and send from there on a separate stream; conversion and augmentation run on the GPU.
    """
    if batches.is_resident:
        yield from (batches.batch(step) for step in range(first, last))
    elif batches.device.type == "cuda":
        yield from _sent(batches, first, last)
    else:
        yield from _ahead(batches.batch, first, last, num_threads=1)


def _sent(batches: Source, first: int, last: int) -> Iterator[Batch]:
    stream = torch.cuda.Stream(batches.device)

    def send(step: int) -> tuple[Tensor, Tensor, Any]:
        images, masks = (part.pin_memory() for part in batches.stored(step))
        with torch.cuda.device(batches.device), torch.cuda.stream(stream):
            sent = [part.to(batches.device, non_blocking=True) for part in (images, masks)]
            arrived = torch.cuda.Event()
            arrived.record(stream)
        return sent[0], sent[1], arrived

    for step, (images, masks, arrived) in enumerate(
        _ahead(send, first, last, num_threads=batches.num_threads), start=first
    ):
        current = torch.cuda.current_stream(batches.device)
        current.wait_event(arrived)
        for part in (images, masks):
            part.record_stream(current)
        yield batches.complete(step, images, masks)


def _ahead(make: Any, first: int, last: int, *, num_threads: int) -> Iterator[Any]:
    """Yield `make(step)` in order, as many steps ahead as there are threads."""
    with ThreadPoolExecutor(num_threads) as threads:
        waiting: deque[Future[Any]] = deque()
        try:
            for step in range(first, last + num_threads):
                if step < last:
                    waiting.append(threads.submit(make, step))
                if step >= first + num_threads:
                    yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def to_float(images: Tensor) -> Tensor:
    """Return a writable copy as float32."""
    return images if images.dtype == torch.float32 else images.float()


def to_target(target: TargetSettings, masks: Tensor) -> Tensor:
    """Return labels (B, ...) uint8 in the form that the loss takes: (B, K, ...) float32, or (B, ...) int64."""
    if target.kind == "binary":
        return masks.clamp(max=1).unsqueeze(1).float()
    table = torch.from_numpy(target.encode(np.arange(256, dtype=np.uint8)))
    if masks.device.type == "cuda":
        table = table.pin_memory().to(masks.device, non_blocking=True)
    encoded = table[..., masks.long()]
    return encoded if encoded.ndim == masks.ndim else encoded.movedim(0, 1).contiguous()
