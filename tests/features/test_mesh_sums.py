"""Surface and volume counted from patterns are those of the mesh itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
