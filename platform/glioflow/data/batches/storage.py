"""Storage of the arrays of the training cases while batches are drawn: device memory, main memory or disk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glioflow.data.batches.augmentation import to_device
from glioflow.data.batches.settings import Storage
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.preprocessing.geometry import Window
from glioflow.errors import UserError
from glioflow.memory import free_memory

# Share of the memory that arrays may fill; the rest is for the network (device) or other processes (host).
DEVICE_PART, HOST_PART = 0.5, 0.5
_GIB = 2**30


@dataclass(frozen=True)
class Choice:
    """Where arrays are stored, and why."""

    storage: Storage
    reason: str


def choose_storage(
    asked: str,
    num_bytes: int,
    device: torch.device,
    *,
    share: float = 1.0,
    host_share: float = 1.0,
    on_device: bool = True,
) -> Choice:
    """Choose where to store arrays.

    Args:
        asked: `device`, `host` or `disk`, or `auto` for the nearest memory that they fit into.
        num_bytes: Size of all arrays, as stored.
        device: Device of the network.
        share: Share of the device, in (0, 1], that this process may use.
        host_share: Share of main memory, in (0, 1], that `auto` may use: as many processes may load the arrays at once.
        on_device: Whether batches can be made on the device; if not, `auto` leaves it out.

    Raises:
        UserError: If the arrays do not fit into what was asked for.
    """
    size = f"{num_bytes / _GIB:.2f} GiB"
    if asked == "disk":
        return Choice("disk", f"asked for; {size}")
    auto = asked == "auto"
    available = {"host": HOST_PART * (host_share if auto else 1.0) * free_memory()}
    if device.type == "cuda":
        available["device"] = DEVICE_PART * device_memory(device, share)
    if auto and not on_device:
        available.pop("device", None)
    if auto and device.type != "cuda":
        return Choice("disk", f"the CPU reads {size} through the page cache")
    for storage in ("device", "host") if auto else (asked,):
        if storage in available and num_bytes <= available[storage]:
            return Choice("device" if storage == "device" else "host", f"{size} of {available[storage] / _GIB:.1f} GiB")
    if auto:
        limits = " and ".join(f"{limit / _GIB:.1f} GiB of {name} memory" for name, limit in sorted(available.items()))
        return Choice("disk", f"{size} are more than {limits}")
    if asked not in available:
        raise UserError("training.data: device needs a GPU", hint="set training.data to auto, host or disk")
    rule = f"training.data: {asked} can hold {available[asked] / _GIB:.2f} GiB"
    raise UserError(rule, size, hint="set training.data to auto")


def device_memory(device: torch.device, share: float) -> float:
    """Return the bytes of a GPU's memory that a process may use: those that are free, and at most its share."""
    torch.cuda.empty_cache()  # memory cached by earlier training in this process counts as used
    free, total = torch.cuda.mem_get_info(device)
    return float(min(free, share * total))


def bytes_of(cases: Sequence[PreparedCase]) -> int:
    """Return the size in bytes of the images and masks of labeled cases, as stored, without opening them."""
    a_voxel = 1 + 2 * len(cases[0].record.channels)  # a label, and half precision for each channel
    return a_voxel * sum(math.prod(case.record.prepared_shape) for case in cases)


class Resident:
    """The arrays of all cases in device memory, as stored; images with values k / 255 only are stored as bytes."""

    def __init__(self, cases: Sequence[PreparedCase], device: torch.device) -> None:
        """Send the arrays of labeled cases to a device."""
        self.device = device
        bytes_suffice = all(_is_bytes(case.image) for case in cases)
        shapes = [case.record.prepared_shape for case in cases]
        one_size = len({shape[1:] for shape in shapes}) == 1
        # If all slices have the same size, the cases share one tensor, so that slices are drawn in one operation.
        parts = [(sum(shape[0] for shape in shapes), *shapes[0][1:])] if one_size else shapes
        channels, dtype = len(cases[0].record.channels), torch.uint8 if bytes_suffice else torch.float16
        images = [torch.empty((*part, channels), dtype=dtype, device=device) for part in parts]
        masks = [torch.empty(part, dtype=torch.uint8, device=device) for part in parts]
        self.all_slices = (images[0], masks[0]) if one_size else None
        counts = [shape[0] for shape in shapes]
        self.images = list(images[0].split(counts)) if one_size else images
        self.masks = list(masks[0].split(counts)) if one_size else masks
        for case, image, mask in zip(cases, self.images, self.masks, strict=True):
            image.copy_(torch.from_numpy(_as_bytes(case.image) if bytes_suffice else np.array(case.image)))
            mask.copy_(torch.from_numpy(np.array(case.mask, dtype=np.uint8)))

    @property
    def num_bytes(self) -> int:
        """Bytes on the device."""
        return sum(part.nbytes for parts in (self.images, self.masks) for part in parts)

    def slices(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return slices (B, h, w, C) as float32 and masks (B, h, w), by their numbers through all cases in order."""
        assert self.all_slices is not None, "slices of one batch have one size"
        where = to_device(rows, self.device)
        images, masks = (part.index_select(0, where) for part in self.all_slices)
        return _as_float(images), masks

    def patches(self, drawn: Sequence[tuple[int, Window]]) -> tuple[Tensor, Tensor]:
        """Return patches (B, d, h, w, C) as float32 and masks (B, d, h, w), zero outside their cases."""
        images = torch.stack([_cut(self.images[k], window) for k, window in drawn])
        return _as_float(images), torch.stack([_cut(self.masks[k], window) for k, window in drawn])


def _cut(volume: Tensor, window: Window) -> Tensor:
    source, target = window.overlap
    if tuple(part.stop - part.start for part in target) == tuple(window.after):
        return volume[source]
    out = volume.new_zeros((*window.after, *volume.shape[3:]))
    out[target] = volume[source]
    return out


# The result of the preprocessing step `unit` for each byte, in half precision.
_UNIT = (np.arange(256, dtype=np.float32) / 255).astype(np.float16)


def _as_bytes(image: NDArray[np.float16]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(image.astype(np.float32) * 255).clip(0, 255), np.uint8)


def _is_bytes(image: NDArray[np.float16]) -> bool:
    """Return whether bytes can store the image without loss; checks one slice before it checks all."""
    return all(np.array_equal(_UNIT[_as_bytes(part)], part) for part in (image[image.shape[0] // 2], image))


def _as_float(images: Tensor) -> Tensor:
    return (images.float() / 255).half().float() if images.dtype == torch.uint8 else images.float()
