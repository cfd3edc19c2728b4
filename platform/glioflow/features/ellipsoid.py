"""The hull of a voxel body and the smallest ellipsoid around it, in voxel units."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

BoolVolume = NDArray[np.bool_]
Points = NDArray[np.float64]


def hull_points(body: BoolVolume) -> Points:
    """Return voxel corners that include all vertices of the body's convex hull, in voxel units.

    In every plane of corners, only the vertices of its flat hull can be vertices of the whole hull; the others are
    skipped.

    Args:
        body: At least one voxel set, (S, H, W). Voxel i fills [i, i + 1] on its axis.

    Returns:
        (N, 3) corner coordinates.
    """
    padded = np.pad(body, ((1, 1), (0, 0), (0, 0)))
    planes = padded[:-1] | padded[1:]
    heights = np.flatnonzero(planes.any(axis=(1, 2)))
    hulls = [cv2.convexHull(row_ends(planes[height])).reshape(-1, 2) for height in heights]
    along = np.repeat(heights, [len(hull) for hull in hulls])
    return np.column_stack([along, np.concatenate(hulls)]).astype(np.float64)


def row_ends(plane: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the (N, 2) corners, row and column, of the first and the last pixel of each row of a flat shape."""
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - plane[rows, ::-1].argmax(axis=1)
    ends = [np.column_stack([rows + down, columns]) for down in (0, 1) for columns in (first, last)]
    return np.concatenate(ends).astype(np.int32)


def hull_vertices(points: Points) -> Points:
    """Return the (N, D) `points` that are vertices of their convex hull, which must have a volume."""
    return np.asarray(points[ConvexHull(points).vertices], dtype=np.float64)


def enclosing_ellipsoid_volume(points: Points, *, tolerance: float = 1e-4, max_steps: int = 100_000) -> float:
    """Return the volume of the smallest ellipsoid that contains all points.

    Args:
        points: (N, 3), not all in one plane.
        tolerance: Largest distance of a point outside before the final enlargement, relative to the squared radius.
        max_steps: Limit of steps; the ellipsoid then still contains all points, but is slightly too large.

    Returns:
        Volume in cubed units of the points; never too small, and too large by at most a factor of (1 + tolerance)^1.5.

    Source: Khachiyan 1996 with the away steps of Todd and Yildirim 2007; every tenth step is Newton's, on the points
    with weight (damped as for self-concordant functions, Nesterov 2004); without it, flat bodies take hundreds.
    """
    dimension = points.shape[1]
    spread = np.linalg.cholesky(np.cov(points.T))
    whitened = np.linalg.solve(spread, (points - points.mean(axis=0)).T)
    lifted = np.vstack([whitened, np.ones(len(points))])
    ends = [getattr(whitened, side)(axis=1, keepdims=True) for side in ("min", "max")]
    weights = np.any([np.isclose(whitened, end).any(axis=0) for end in ends], axis=0).astype(np.float64)
    weights[np.linalg.norm(whitened, axis=0).argmax()] = 1.0
    weights /= weights.sum()
    target = dimension + 1.0
    inverse, distances = _inverse_and_distances(lifted, weights)
    for number in range(1, max_steps + 1):
        far = int(distances.argmax())
        near = int(np.where(weights > 0, distances, np.inf).argmin())
        if (distances[far] - 1) / dimension - 1 <= tolerance:  # the lift adds one to each distance
            break
        if number % 10 == 0:
            weights = _weigh_anew(lifted, weights)
            inverse, distances = _inverse_and_distances(lifted, weights)
            continue
        chosen = far if distances[far] - target >= target - distances[near] else near
        reach, weight = distances[chosen], weights[chosen]
        step = (reach - target) / (target * (reach - 1)) if reach > 1 else -np.inf
        step = max(step, -weight / (1 - weight))  # an away step ends when the point's weight is 0
        weights *= 1 - step
        weights[chosen] = weight + step * (1 - weight) if step > -weight / (1 - weight) else 0.0
        toward = inverse @ lifted[:, chosen]
        shrink = step / (1 - step + step * reach)
        inverse = (inverse - shrink * toward[:, None] * toward) / (1 - step)
        distances = (distances - shrink * (toward @ lifted) ** 2) / (1 - step)
    center = whitened @ weights
    offsets = whitened - center[:, None]
    shape = (whitened * weights) @ whitened.T - np.outer(center, center)
    radius = float(np.einsum("in,in->n", offsets, np.linalg.solve(shape, offsets)).max())
    unit_ball = 4 / 3 * np.pi
    return float(unit_ball * np.sqrt(np.linalg.det(shape * radius)) * np.prod(np.diag(spread)))


def _inverse_and_distances(lifted: Points, weights: NDArray[np.float64]) -> tuple[Points, NDArray[np.float64]]:
    inverse = np.asarray(np.linalg.inv((lifted * weights) @ lifted.T), np.float64)
    return inverse, np.asarray(((inverse @ lifted) * lifted).sum(axis=0), np.float64)


def _weigh_anew(lifted: Points, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return improved weights of the points with weight, by Newton's steps; weights that reach zero stay zero."""
    held = np.flatnonzero(weights)
    kept, share = lifted[:, held], weights[held]
    for _ in range(10):
        inverse = np.linalg.inv((kept * share) @ kept.T)
        curvature = (kept.T @ inverse @ kept) ** 2  # of the negative logarithm of the volume
        curvature.flat[:: len(share) + 1] *= 1 + 1e-9  # singular if more points touch the ellipsoid than determine it
        level = np.linalg.solve(curvature, np.ones(len(share)))
        move = share - level / level.sum()  # curvature @ share is the slope
        length = float(np.sqrt(max(0.0, move @ curvature @ move)))
        reach = float(np.divide(share, -move, out=np.full(len(share), np.inf), where=move < 0).min())
        share = share + min(1.0 if length < 0.25 else 1 / (1 + length), reach) * move
        stays = share > 1e-12
        kept, held, share = kept[:, stays], held[stays], share[stays] / share[stays].sum()
        if stays.all() and length < 1e-5:
            break
    better = np.zeros_like(weights)
    better[held] = share
    return better


def bounding_ellipsoid_volume_ratio(body: BoolVolume, vertices: Points | None = None) -> float:
    """Return BEVR: volume of a voxel body over that of the smallest ellipsoid around its voxels' corners.

    BEVR is affine invariant and thus independent of the slice spacing.

    Args:
        body: At least one voxel set, (S, H, W).
        vertices: Vertices of its hull, if already known.

    Returns:
        Value in (0, 1].

    Source: Buda et al. 2019.
    """
    known = hull_vertices(hull_points(body)) if vertices is None else vertices
    return np.count_nonzero(body) / enclosing_ellipsoid_volume(known)
