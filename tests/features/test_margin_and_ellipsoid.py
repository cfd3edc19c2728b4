"""The analytic table of the domain notes: shapes whose features are known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from glioflow.features import measure_mask
from glioflow.features.ellipsoid import (
    bounding_ellipsoid_volume_ratio,
    enclosing_ellipsoid_volume,
    hull_points,
    hull_vertices,
)
from glioflow.features.margin import angular_standard_deviation, boundary_of, margin_fluctuation

BOX = 2 / (np.pi * np.sqrt(3))
ORIGIN = np.zeros(2)


def ellipsoid(*radii):
    half = [int(r) + 1 for r in radii]
    grid = np.meshgrid(*[np.arange(-h, h + 1) for h in half], indexing="ij")
    return sum((g / r) ** 2 for g, r in zip(grid, radii, strict=True)) <= 1


def wavy_circle(amplitude, k, num=20_000):
    angle = (np.arange(num) + 0.5) * 2 * np.pi / num
    radius = 1 + amplitude * np.cos(k * angle)
    return np.column_stack([radius * np.sin(angle), radius * np.cos(angle)])


def ellipse_by_arc_length(a, b, num=20_000):
    fine = np.linspace(0, 2 * np.pi, 400_001)
    points = np.column_stack([b * np.sin(fine), a * np.cos(fine)])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    angle = np.interp((np.arange(num) + 0.5) / num * length[-1], length, fine)
    return np.column_stack([b * np.sin(angle), a * np.cos(angle)])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 4), (3, 7, 2), (20, 1, 1)])
def test_every_box_fills_the_same_share_of_its_ellipsoid(shape):
    assert bounding_ellipsoid_volume_ratio(np.ones(shape, bool)) == pytest.approx(BOX, abs=1e-5)


@pytest.mark.parametrize(("radius", "expected"), [(5, 0.656), (10, 0.789), (20, 0.886), (30, 0.921)])
def test_voxel_balls_approach_their_ellipsoid(radius, expected):
    assert bounding_ellipsoid_volume_ratio(ellipsoid(radius, radius, radius)) == pytest.approx(expected, abs=6e-4)


def test_a_voxel_ellipsoid_nearly_fills_its_own():
    assert bounding_ellipsoid_volume_ratio(ellipsoid(30, 20, 10)) == pytest.approx(0.858, abs=6e-4)


def test_solids_with_known_ellipsoids():
    angle = np.arange(720) * 2 * np.pi / 720
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    cylinder = np.concatenate([np.column_stack([circle, np.full(720, z)]) for z in (0, 5)])
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    for points, volume, expected in (
        (cylinder, 5 * np.pi, 0.577350),
        (octahedron, 4 / 3, 0.318310),
        (tetrahedron, 8 / 3, 0.122518),
    ):
        assert volume / enclosing_ellipsoid_volume(points) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("radius", "expected"), [(5, 0.0516), (10, 0.0233), (20, 0.0121), (40, 0.0057)])
def test_a_pixel_disk_has_only_the_voxel_floor_of_asd(radius, expected):
    assert measure_mask(ellipsoid(1e-9, radius, radius)).volume["asd"] == pytest.approx(expected, abs=6e-5)


def test_a_true_circle_has_no_margin():
    circle = wavy_circle(0, 1)
    assert angular_standard_deviation(circle, ORIGIN) == pytest.approx(0, abs=1e-9)
    assert margin_fluctuation(circle, ORIGIN) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("k", "expected"), [(2, 0.04562), (3, 0.10013), (5, 0.25695)])
def test_margin_fluctuation_of_a_wave(k, expected):
    amplitude = 1e-4
    found = margin_fluctuation(wavy_circle(amplitude, k, num=100_000), ORIGIN)
    assert found / amplitude == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("k", "expected"), [(2, 0.22833), (4, 0.43952), (5, 0.70711), (10, 0.70711), (20, 0.70711)])
def test_angular_deviation_of_a_wave(k, expected):
    amplitude = 1e-4
    found = angular_standard_deviation(wavy_circle(amplitude, k), ORIGIN)
    assert found / amplitude == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("ratio", "asd", "mf"),
    [(1.25, 0.02590, 0.00509), (1.5, 0.04761, 0.00928), (2, 0.08211, 0.01598), (3, 0.12685, 0.02562)],
)
def test_margin_of_ellipses(ratio, asd, mf):
    ellipse = ellipse_by_arc_length(ratio, 1)
    assert angular_standard_deviation(ellipse, ORIGIN) == pytest.approx(asd, abs=2e-5)
    assert margin_fluctuation(ellipse, ORIGIN) == pytest.approx(mf, abs=5e-5)


def test_an_outline_that_no_tumor_has_is_not_followed():
    comb = np.zeros((1, 600, 600), bool)
    comb[0, ::2], comb[0, :, 0] = True, True
    measured = measure_mask(comb)
    assert (measured.volume["asd"], measured.volume["mf"]) == (None, None)
    assert measured.undefined["asd"] == measured.undefined["mf"] == "the outline is too ragged to be followed"
    assert measured.volume["num_components"] == 1
    assert measure_mask(comb[:, :400]).volume["mf"] > 0


def test_the_moving_average_takes_an_odd_number_of_points():
    boundary = wavy_circle(0.2, 7, num=40)  # a tenth is 4, so 5
    radii = np.linalg.norm(boundary, axis=1)
    radii = radii / radii.mean()
    smooth = np.mean([np.roll(radii, shift) for shift in range(-2, 3)], axis=0)
    assert margin_fluctuation(boundary, ORIGIN) == pytest.approx(np.std(radii - smooth))


def test_boundary_is_the_outer_one_and_its_end_point_is_not_repeated():
    ring = np.ones((9, 9), bool)
    ring[4, 4] = False
    boundary = boundary_of(ring)
    assert len(boundary) == 36
    assert len(np.unique(boundary, axis=0)) == 36


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60))
def test_hull_points_keep_every_vertex_and_the_ellipsoid_holds_every_corner(seed, num_voxels):
    rng = np.random.default_rng(seed)
    body = np.zeros((6, 7, 8), bool)
    body[tuple(rng.integers(0, size, num_voxels) for size in body.shape)] = True
    corners = np.unique(
        (np.argwhere(body)[:, None] + np.indices((2, 2, 2)).reshape(3, 8).T[None]).reshape(-1, 3), axis=0
    ).astype(float)
    ours, theirs = hull_vertices(hull_points(body)), hull_vertices(corners)
    assert {tuple(p) for p in ours} == {tuple(p) for p in theirs}
    assert 0 < bounding_ellipsoid_volume_ratio(body) <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_ratio_is_affine_invariant(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(50, 3))
    matrix = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    moved = points @ matrix.T + rng.normal(size=3) * 10
    expected = enclosing_ellipsoid_volume(points) * abs(np.linalg.det(matrix))
    assert enclosing_ellipsoid_volume(moved) == pytest.approx(expected, rel=3e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_ellipsoid_around_a_lone_slice_is_found_in_few_steps(seed):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(48, 48)), 3)
    away = np.hypot(*np.meshgrid(np.arange(48) - 24, np.arange(48) - 22)) / 18
    corners = hull_vertices(hull_points((away + 3 * noise < 1)[None]))
    exact = enclosing_ellipsoid_volume(corners, tolerance=1e-8)
    found = enclosing_ellipsoid_volume(corners, max_steps=120)
    assert exact * (1 - 1e-7) <= found <= exact * (1 + 1e-4) ** 1.5


def test_unknown_slice_spacing_does_not_matter_to_bevr():
    body = ellipsoid(6, 9, 12)
    thicker = np.repeat(body, 5, axis=0)
    assert bounding_ellipsoid_volume_ratio(thicker) == pytest.approx(bounding_ellipsoid_volume_ratio(body), rel=3e-4)
