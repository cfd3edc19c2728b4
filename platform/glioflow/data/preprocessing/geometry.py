"""The two geometry changes of preprocessing, each with its inverse: a window (crop or pad) and a resize."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Shape = tuple[int, int, int]
# Shares of a voxel that differ by less count as equal.
_EQUAL = 1e-5


class Window(BaseModel):
    """Crop and pad in one: the output is the box of `after` voxels from `start` on, zero outside the input."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["window"] = "window"
    before: Shape
    start: Shape
    after: Shape

    @property
    def overlap(self) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The voxels of the input inside the box, and their position in the box; empty if there are none."""
        return _overlap(self.start, self.after, self.before)

    def apply(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the box of `volume`, (S, H, W) or (S, H, W, C)."""
        return _cut(volume, self.start, self.after)

    def invert(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return `volume` at its position in the input, zero where voxels were cropped."""
        s, h, w = self.start
        return _cut(volume, (-s, -h, -w), self.before)


class Resize(BaseModel):
    """Change the number of voxels: linearly (by area when shrinking) for floats, label by label for masks."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["resize"] = "resize"
    before: Shape
    after: Shape

    def apply(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return `volume`, (S, H, W) or (S, H, W, C), resized to `after`; integers are labels."""
        return resample(volume, self.after)

    def invert(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return `volume` resized to `before`."""
        return resample(volume, self.before)


Move = Annotated[Window | Resize, Field(discriminator="kind")]


def restore(volume: NDArray[np.generic], moves: tuple[Window | Resize, ...]) -> NDArray[np.generic]:
    """Return a volume of the network's geometry in the original geometry.

    Args:
        volume: (S, h, w) or (S, h, w, K); floats are interpolated, integers and booleans are labels.
        moves: The moves of preprocessing, in order.

    Returns:
        (S, H, W) or (S, H, W, K) in the original geometry.
    """
    for move in reversed(moves):
        volume = move.invert(volume)
    return volume


def _cut(volume: NDArray[np.generic], start: Shape, size: Shape) -> NDArray[np.generic]:
    if tuple(start) == (0, 0, 0) and tuple(size) == volume.shape[:3]:
        return volume
    out = np.zeros((*size, *volume.shape[3:]), dtype=volume.dtype)
    source, target = _overlap(start, size, volume.shape[:3])
    out[target] = volume[source]
    return out


def _overlap(start: Shape, size: Shape, have: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of an array of size `have` that is in the box, and its position in the box."""
    source, target = [], []
    for begin, length, extent in zip(start, size, have, strict=True):
        low = min(max(begin, 0), extent)
        high = max(min(begin + length, extent), low)
        source.append(slice(low, high))
        target.append(slice(low - begin, high - begin) if high > low else slice(0, 0))
    return tuple(source), tuple(target)


def resample(volume: NDArray[np.generic], shape: Shape) -> NDArray[np.generic]:
    """Return `volume` at `shape`; for integers and booleans, each voxel gets the label with the largest share in it."""
    if volume.shape[:3] == tuple(shape):
        return volume
    if np.issubdtype(volume.dtype, np.floating):
        return _resample_numbers(volume, shape)
    labels = np.unique(volume)
    even = (np.indices(shape).sum(axis=0) % 2 == 0).reshape(*shape, *[1] * (volume.ndim - 3))
    best = np.full((*shape, *volume.shape[3:]), -1.0, dtype=np.float32)
    out = np.zeros(best.shape, dtype=volume.dtype)
    for label in labels:
        share = _resample_numbers((volume == label).astype(np.float32), shape)
        # For equal shares, every other voxel gets the later label, so that no label grows at the cost of another.
        wins = np.where(np.abs(share - best) < _EQUAL, even, share > best)
        out[wins] = label
        best = np.maximum(best, share)
    return out


def _resample_numbers(volume: NDArray[np.generic], shape: Shape) -> NDArray[np.generic]:
    import cv2

    planes = volume.astype(np.float32, copy=False)
    if planes.shape[1:3] != shape[1:]:
        shrinks = shape[1] <= planes.shape[1] and shape[2] <= planes.shape[2]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = [_resize_plane(plane, shape[1:], how) for plane in planes]
        planes = np.stack(resized) if resized else np.zeros((0, *shape[1:], *planes.shape[3:]), np.float32)
    if planes.shape[0] != shape[0]:
        planes = _resample_slices(planes, shape[0])
    return planes.astype(volume.dtype, copy=False)


def _resize_plane(plane: NDArray[np.float32], size: tuple[int, int], how: int) -> NDArray[np.float32]:
    import cv2

    # OpenCV resizes at most four channels at once by area, and drops the axis of a single channel.
    if plane.ndim == 3 and plane.shape[2] > 4:
        return np.stack([_resize_plane(plane[..., k], size, how) for k in range(plane.shape[2])], axis=-1)
    resized = cv2.resize(np.ascontiguousarray(plane), (size[1], size[0]), interpolation=how)
    return np.asarray(resized, np.float32).reshape(*size, *plane.shape[2:])


def _resample_slices(planes: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    have = planes.shape[0]
    if count < have:
        return _average_slices(planes, count)
    position = np.clip((np.arange(count) + 0.5) * have / count - 0.5, 0, have - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, have - 1)
    weight = (position - low).astype(np.float32).reshape(-1, *([1] * (planes.ndim - 1)))
    return np.asarray(planes[low] * (1 - weight) + planes[high] * weight, np.float32)


def _average_slices(planes: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Shrink along S by area: each slice is the mean of the slices it covers, weighted by their share."""
    have = planes.shape[0]
    edges = np.arange(count + 1) * have / count
    covered = np.minimum(edges[1:, None], np.arange(1, have + 1)) - np.maximum(edges[:-1, None], np.arange(have))
    weights = np.clip(covered, 0, None) * count / have
    return np.asarray(np.tensordot(weights.astype(np.float32), planes, axes=1), np.float32)
