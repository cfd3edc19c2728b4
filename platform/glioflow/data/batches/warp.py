"""One composed warp of each sample of a batch: rotation, scale and elastic shifts through a single `grid_sample`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def affine_maps(
    angles: NDArray[np.float64], factors: NDArray[np.float64], spatial: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return the linear map from each output position to its position in the input, about the center.

    Args:
        angles: (B, 3) degrees: in the plane of H and W, then about H and about W (volumes only).
        factors: (B, 3) of size along W, H and S.
        spatial: ([d,] h, w).

    Returns:
        (B, D, D) in the coordinates of `grid_sample`, which go from -1 to 1 along W, H[, S].
    """
    dims = len(spatial)
    turn = _rotations(angles[:, 0], 0, 1)
    if dims == 3:
        turn = turn @ _rotations(angles[:, 1], 0, 2) @ _rotations(angles[:, 2], 1, 2)
    turn = turn[:, :dims, :dims] / factors[:, None, :dims]
    half = np.array(spatial[::-1], np.float64) / 2
    return np.asarray(turn * half[None, None, :] / half[None, :, None])


def _rotations(degrees: NDArray[np.float64], first: int, second: int) -> NDArray[np.float64]:
    """Return (B, 3, 3) rotations in the plane of two axes."""
    matrices = np.tile(np.eye(3), (len(degrees), 1, 1))
    radians = np.deg2rad(degrees)
    matrices[:, first, first] = matrices[:, second, second] = np.cos(radians)
    matrices[:, first, second], matrices[:, second, first] = -np.sin(radians), np.sin(radians)
    return matrices


def sample(images: Tensor, masks: Tensor, maps: Tensor, shifts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return images and labels at mapped and shifted positions.

    Args:
        images: (B, C, [d,] h, w) float32, sampled linearly; the first voxel's value fills the outside.
        masks: (B, [d,] h, w) uint8, sampled at the nearest voxel; 0 outside.
        maps: (B, D, D) from `affine_maps`.
        shifts: (B, D, ...) voxels along W, H[, S] on a coarse grid, or None.

    Returns:
        Images and masks of the same shapes and types.
    """
    spatial, dims = images.shape[2:], images.ndim - 2
    # Positions are sums of products in float32: with TF32, a matrix product would be rounded to ten bits.
    axes = [
        _centers(n, images.device).reshape([-1 if k == dims - 1 - j else 1 for k in range(dims)])
        for j, n in enumerate(reversed(spatial))
    ]
    fields = None if shifts is None else smooth_field(shifts, spatial)
    planes = torch.empty(len(images), dims, *spatial, device=images.device)
    for k in range(dims):
        parts = [maps[:, k, j].reshape(-1, *[1] * dims) * axes[j] for j in range(dims)]
        torch.add(sum(parts[:-1]), parts[-1], out=planes[:, k])
        if fields is not None:
            planes[:, k].add_(fields[:, k], alpha=2 / spatial[dims - 1 - k])
    grid = planes.movedim(1, -1)
    background = images[(..., *[slice(1)] * dims)]
    moved = functional.grid_sample(images - background, grid, mode="bilinear", align_corners=False).add_(background)
    labels = functional.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False)
    return moved, labels[:, 0].to(masks.dtype)


def smooth_field(coarse: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """Return a field (B, K, ...) at full size: bicubic between the values in a plane, trilinear in a volume."""
    mode = "bicubic" if len(spatial) == 2 else "trilinear"
    return functional.interpolate(coarse, tuple(spatial), mode=mode, align_corners=True)


def _centers(count: int, device: torch.device) -> Tensor:
    """Return the positions of voxel centers from -1 to 1."""
    return (torch.arange(count, device=device, dtype=torch.float32) * 2 + 1) / count - 1
