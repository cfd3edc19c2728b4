"""Brain-like phantoms: tissue and tumor as labels, and their image in a sequence. Uses no file and no table."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.float32]
Labels = NDArray[np.uint8]

AIR, SCALP, BONE, FLUID, GRAY, WHITE, GLIOSIS = range(7)
EDEMA, CORE, ENHANCING = 2, 1, 4

# Brightness of air, scalp, bone, fluid, gray matter, white matter and gliosis, then of edema, core and enhancing tumor.
# Gliosis is as bright as tumor on FLAIR; only the other sequences, size and position distinguish the two.
BRIGHTNESS: dict[str, tuple[float, ...]] = {
    "t1": (0.0, 1.25, 0.12, 0.18, 0.50, 0.68, 0.64, 0.42, 0.36, 0.40),
    "t1ce": (0.0, 1.30, 0.12, 0.18, 0.52, 0.68, 0.64, 0.42, 0.38, 1.15),
    "t2": (0.0, 0.90, 0.10, 1.20, 0.62, 0.46, 0.80, 0.86, 0.92, 0.82),
    "flair": (0.0, 1.10, 0.12, 0.16, 0.56, 0.47, 0.90, 0.84, 0.80, 0.84),
}


@dataclass(frozen=True)
class TumorPlan:
    """The shape of a tumor, before any voxel is drawn.

    Attributes:
        radius: In-plane radius, as a fraction of half the image's side.
        irregularity: 0 a smooth ellipsoid, 1 deeply lobed.
        enhancing: Whether a part of it takes up contrast agent.
    """

    radius: float
    irregularity: float
    enhancing: bool = True


@dataclass(frozen=True)
class Phantom:
    """A head without intensities.

    Attributes:
        tissue: (S, H, W) of the tissue constants; S upward, H toward posterior.
        tumor: (S, H, W) of 0 and the BraTS labels 1 (core), 2 (edema), 4 (enhancing).
    """

    tissue: Labels
    tumor: Labels


def draw_phantom(rng: np.random.Generator, shape: tuple[int, int, int], plan: TumorPlan, *, head: bool) -> Phantom:
    """Draw one anatomy.

    Args:
        rng: Source of every choice.
        shape: (S, H, W) in voxels.
        plan: The tumor to draw.
        head: Draw scalp and bone too; False draws the brain alone, as after skull stripping.
    """
    z, y, x = _coordinates(shape)
    a, b, c = 0.66 * rng.uniform(0.92, 1.06), 0.82 * rng.uniform(0.92, 1.06), rng.uniform(1.02, 1.12)
    radius = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) * (1 + 0.015 * smooth_noise(rng, shape, (4, 5, 5)))
    folds = smooth_noise(rng, shape, (10, 34, 34))
    brain = radius < 0.84 + 0.012 * folds
    tissue = np.full(shape, AIR, np.uint8)
    if head:
        tissue[radius < 1.0] = SCALP
        tissue[radius < 0.93] = BONE
    tissue[radius < 0.87 if head else brain] = FLUID
    tissue[brain & ~((folds > 1.2) & (radius > 0.66)) & (np.abs(x) > 0.012 + 0.1 * np.maximum(radius - 0.6, 0))] = GRAY
    tissue[brain & (radius < 0.70 + 0.09 * folds)] = WHITE
    ventricles, shell = _ventricles(rng, x, y, z)
    tissue[shell & brain & (smooth_noise(rng, shape, (4, 8, 8)) > 0.2)] = GLIOSIS
    tissue[ventricles & brain] = FLUID
    centers = np.flatnonzero((radius < 0.60) & (np.abs(x) > 0.1) & ~ventricles)
    for _ in range(rng.integers(5, 11)):
        spot = _distance((z, y, x), _pick(rng, centers, shape), rng.uniform(0.05, 0.13) * rng.uniform(0.8, 1.3, 3))
        tissue[(spot < 1) & brain & ~ventricles] = GLIOSIS
    return Phantom(tissue, _tumor(rng, (z, y, x), centers, (radius < 0.83) & brain & ~ventricles, plan))


def render(rng: np.random.Generator, phantom: Phantom, sequence: str, texture: Float) -> Float:
    """Return the phantom's image in a sequence (a key of `BRIGHTNESS`), (S, H, W), values about 0 to 1.6."""
    table = np.zeros(12, np.float32)
    table[:7] = BRIGHTNESS[sequence][:7]
    table[7 + EDEMA], table[7 + CORE], table[7 + ENHANCING] = BRIGHTNESS[sequence][7:]
    image = table[np.where(phantom.tumor > 0, phantom.tumor + 7, phantom.tissue)]
    sigma = max(0.4, phantom.tissue.shape[1] / 256)
    image = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in image])
    bias = 1 + 0.10 * smooth_noise(rng, image.shape, (3, 3, 3))
    noise = rng.standard_normal(image.shape, np.float32)
    abnormal = (phantom.tumor > 0) | (phantom.tissue == GLIOSIS)
    grain = 1 + np.where(abnormal, 0.12, 0.06) * texture
    return np.asarray(np.abs(image * bias * grain + 0.022 * noise), np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int, int]) -> Float:
    """Return a smooth random field (S, H, W), mean 0, deviation near 1, about `cells` bumps along each axis."""
    field = rng.standard_normal(cells).astype(np.float32)
    for axis, (size, count) in enumerate(zip(shape, cells, strict=True)):
        position = np.linspace(0, count - 1, size, dtype=np.float32)[:, None]
        weight = np.exp(-(((position - np.arange(count, dtype=np.float32)) / 0.6) ** 2))
        weight /= np.sqrt((weight**2).sum(axis=1, keepdims=True))
        field = np.moveaxis(np.tensordot(weight, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field, np.float32)


def _coordinates(shape: tuple[int, int, int]) -> tuple[Float, Float, Float]:
    s, h, w = shape
    axes = np.linspace(-0.97, 0.97, s), np.linspace(-1, 1, h), np.linspace(-1, 1, w)
    z, y, x = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij", sparse=True)
    return z, y, x


def _distance(zyx: tuple[Float, Float, Float], voxel: tuple[int, ...], radii: NDArray[np.float64]) -> Float:
    """Return the distance of every voxel from `voxel`, in units of the ellipsoid's `radii`."""
    squares = [
        ((axis - axis.ravel()[middle]) / np.float32(radius)) ** 2
        for axis, middle, radius in zip(zyx, voxel, radii, strict=True)
    ]
    return np.asarray(np.sqrt(squares[0] + squares[1] + squares[2]), np.float32)


def _pick(rng: np.random.Generator, voxels: NDArray[np.intp], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(voxels[rng.integers(len(voxels))], shape))


def _ventricles(rng: np.random.Generator, x: Float, y: Float, z: Float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the two ventricles and the thin shell around them."""
    size = rng.uniform(0.75, 1.3)
    side = np.abs(x) - 0.09 - 0.10 * np.abs(y)
    distance = np.sqrt((side / (0.055 * size)) ** 2 + ((y + 0.02) / 0.34) ** 2 + ((z - 0.08) / (0.26 * size)) ** 2)
    return distance < 1, (distance >= 1) & (distance < 1.5)


def _tumor(
    rng: np.random.Generator,
    zyx: tuple[Float, Float, Float],
    centers: NDArray[np.intp],
    allowed: NDArray[np.bool_],
    plan: TumorPlan,
) -> Labels:
    """Draw one connected tumor: edema, within it the core, and around the core an enhancing rim where planned."""
    shape = allowed.shape
    center = _pick(rng, centers, shape)
    radii = plan.radius * rng.uniform(0.9, 1.12, 3)
    distance = _distance(zyx, center, radii)
    near = distance < 2.2
    where = np.nonzero(near)
    offsets = [
        (axis.ravel()[index] - axis.ravel()[middle]) / np.float32(radius)
        for axis, index, middle, radius in zip(zyx, where, center, radii, strict=True)
    ]
    # Waves over the directions from the center: the outline stays in one piece however deep its lobes are.
    direction = np.stack(offsets, axis=1) / np.maximum(distance[near], 1e-6)[:, None]
    frequency = rng.standard_normal((8, 3)) * rng.uniform(1.8, 3.8, (8, 1))
    waves = np.cos(direction @ frequency.T.astype(np.float32) + rng.uniform(0, 2 * np.pi, 8)).mean(axis=1) * 4
    lobed = np.full(shape, np.inf, np.float32)
    lobed[near] = distance[near] / np.exp((0.02 + 0.5 * plan.irregularity) * (np.clip(waves, -1.5, 1.5) - 0.1))
    whole = (lobed < 1) & allowed
    parts, _ = ndimage.label(whole)
    tumor = np.where(parts == parts[center], EDEMA, 0).astype(np.uint8)
    inside = tumor > 0
    tumor[inside & (lobed < 0.62)] = ENHANCING if plan.enhancing else CORE
    tumor[inside & (lobed < 0.42)] = CORE
    return tumor
