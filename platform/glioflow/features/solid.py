"""Shape of a body in millimeters: surface, axes, extent. Needs the spacing."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from glioflow.features.ellipsoid import Points
from glioflow.features.flat import principal_std
from glioflow.features.mesh import surface_and_volume


def measure_body(
    body: NDArray[np.bool_],
    covariance: NDArray[np.float64],
    vertices: Points,
    *,
    spacing_mm: tuple[float, float, float],
) -> dict[str, float | None]:
    """Measure a body in space.

    Args:
        body: At least one voxel set, (S, H, W), best cropped to its box.
        covariance: (3, 3) covariance of its voxels' coordinates, in voxels.
        vertices: (N, 3) vertices of its hull (voxel corners).
        spacing_mm: Distance of neighbors along S, H, W.

    Returns:
        `surface_mm2` of the marching-cubes mesh at 0.5; `sphericity`, pi^(1/3) (6 V)^(2/3) / surface with V the mesh's
        volume (about .92 for a voxel ball, whose steps add surface); `axis_*_mm`, four standard deviations along each
        principal axis; `elongation` (middle over major) and `flatness` (minor over major), None for a single voxel;
        `max_diameter_mm`, the largest distance between two corners.

    Source: the definitions of the Image Biomarker Standardisation Initiative, except that the diameter is taken
        between voxel corners.
    """
    surface, volume = surface_and_volume(body, spacing_mm=spacing_mm)
    axes = 4 * principal_std(covariance * np.outer(spacing_mm, spacing_mm))
    return {
        "surface_mm2": surface,
        "sphericity": float(np.cbrt(np.pi) * (6 * volume) ** (2 / 3) / surface),
        "axis_major_mm": float(axes[0]),
        "axis_middle_mm": float(axes[1]),
        "axis_minor_mm": float(axes[2]),
        "elongation": float(axes[1] / axes[0]) if axes[0] > 0 else None,
        "flatness": float(axes[2] / axes[0]) if axes[0] > 0 else None,
        "max_diameter_mm": float(pdist(vertices * spacing_mm).max()),
    }
