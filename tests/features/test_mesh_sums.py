"""Surface and volume counted from patterns are those of the mesh itself."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glioflow.features import measure_mask
from glioflow.features.flat import spread_of_body
from glioflow.features.mesh import surface_and_volume


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), density=st.floats(0.05, 0.95), spacing=st.tuples(*[st.floats(0.3, 5.0)] * 3))
def test_any_body_has_the_surface_and_volume_of_its_marching_cubes_mesh(seed, density, spacing):
    from skimage.measure import marching_cubes, mesh_surface_area

    body = np.random.default_rng(seed).random((5, 7, 6)) < density
    body[2, 3, 3] = True
    vertices, faces, _, _ = marching_cubes(np.pad(body, 1).astype(np.float32), 0.5, spacing=spacing)
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    volume = abs(np.einsum("ij,ij->", a, np.cross(b, c))) / 6
    found = surface_and_volume(body, spacing_mm=spacing)
    assert found == (pytest.approx(mesh_surface_area(vertices, faces), rel=1e-5), pytest.approx(volume, rel=1e-5))


@pytest.mark.parametrize("shape", [(6, 9), (4, 6, 5)])
def test_sums_along_the_axes_give_the_spread_of_the_voxels(shape):
    body = np.random.default_rng(0).random(shape) < 0.3
    voxels = np.argwhere(body).astype(float)
    center, covariance = spread_of_body(body)
    assert center == pytest.approx(voxels.mean(axis=0))
    assert covariance == pytest.approx(np.cov(voxels.T, bias=True))


def rough(shape, radii):
    """Return an ellipsoid whose surface is rough, as an uncertain network draws it."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 1.0)
    grid = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2
    return np.sqrt(((grid / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(axis=0)) + 0.2 * noise / noise.std() < 1


@pytest.mark.parametrize(
    ("shape", "radii", "limit_s"), [((60, 256, 256), (12, 35, 35), 0.1), ((155, 240, 240), (40, 45, 45), 0.5)]
)
def test_the_whole_set_is_quick_even_where_the_surface_is_rough(shape, radii, limit_s):
    mask = rough(shape, radii)
    taken = []
    for _ in range(3):
        began = time.process_time()
        measure_mask(mask, spacing_mm=(2.0, 1.0, 1.0))
        taken.append(time.process_time() - began)
    assert min(taken) < limit_s, f"{min(taken):.3f} s"
