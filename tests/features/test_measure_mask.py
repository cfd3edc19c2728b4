"""What a user sees of a mask's features: right values, units, reasons, and invariance."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glioflow.errors import UserError
from glioflow.features import measure_mask, measure_regions
from glioflow.label_schemes import SCHEMES


def blob(seed, shape=(12, 40, 44)):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), [1.5, 4, 4])
    mask = noise > np.quantile(noise, 0.93)
    mask[:, :3], mask[:, -3:], mask[:, :, :3], mask[:, :, -3:] = False, False, False, False
    mask[5, 20, 20] = True
    return mask


def lone_box():
    mask = np.zeros((6, 20, 30), bool)
    mask[2:4, 5:9, 10:20] = True
    return mask


def test_a_box_has_the_numbers_one_can_count():
    found = measure_mask(lone_box(), spacing_mm=(3.0, 2.0, 0.5))
    volume = found.volume
    assert volume["volume_px"] == 80
    assert volume["volume_mm3"] == 240
    assert (volume["centroid_slice"], volume["centroid_row_px"], volume["centroid_column_px"]) == (2.5, 6.5, 14.5)
    assert [volume[f"box_row_{end}"] for end in ("start", "stop")] == [5, 9]
    assert volume["num_components"] == 1
    assert volume["max_diameter_mm"] == pytest.approx(np.sqrt(6**2 + 8**2 + 5**2))
    first = found.slices[0]
    assert first["slice"] == 2
    assert first["area_px"] == 40
    assert first["area_mm2"] == 40
    assert first["solidity"] == pytest.approx(1)
    assert first["coordinate_std_row_px"] == pytest.approx(np.std(np.arange(4)))
    assert first["eccentricity"] == pytest.approx(np.sqrt(1 - (4 / 10) ** 2))
    assert [one["slice"] for one in found.slices] == [2, 3]


def test_background_does_not_move_the_centroid():
    mask = np.zeros((1, 50, 50), bool)
    mask[0, 40:44, 2:6] = True
    assert measure_mask(mask).slices[0]["centroid_row_px"] == 41.5


def test_without_spacing_millimeters_are_undefined_with_the_reason_and_pixels_are_not():
    found = measure_mask(lone_box())
    for name in ("volume_mm3", "surface_mm2", "sphericity", "flatness", "max_diameter_mm", "coordinate_std_major_mm"):
        assert found.volume[name] is None
        assert "spacing" in found.undefined[name]
    assert found.slices[0]["area_mm2"] is None
    assert "spacing" in found.undefined["area_mm2"]
    assert found.volume["bevr"] == pytest.approx(0.367553, abs=1e-5)
    assert "bevr" not in found.undefined


def test_every_value_that_is_none_has_a_reason_and_every_reason_a_none():
    for mask in (lone_box(), np.zeros((3, 9, 9), bool), np.pad(np.ones((1, 1, 1), bool), 2)):
        for spacing in (None, (1.0, 1.0, 1.0)):
            found = measure_mask(mask, spacing_mm=spacing)
            missing = {name for name, value in found.volume.items() if value is None}
            missing |= {name for one in found.slices for name, value in one.items() if value is None}
            assert missing == {name for name in found.undefined if name != "area_mm2" or found.slices}
            json.dumps(found.model_dump(), allow_nan=False)


def test_an_empty_mask_has_no_shape_and_says_so():
    found = measure_mask(np.zeros((3, 8, 8), bool), spacing_mm=(1, 1, 1))
    assert found.volume["volume_px"] == 0
    assert found.volume["volume_mm3"] == 0
    assert found.volume["num_components"] == 0
    assert found.volume["bevr"] is None
    assert found.undefined["bevr"] == "the mask is empty"
    assert found.slices == []


def test_names_do_not_depend_on_the_mask():
    names = {
        tuple(sorted(measure_mask(m, spacing_mm=s).volume))
        for m in (lone_box(), np.zeros_like(lone_box()))
        for s in (None, (1, 1, 1))
    }
    assert len(names) == 1


def test_probability_std_is_that_of_the_map_and_not_of_coordinates():
    probability = np.random.default_rng(0).random((6, 20, 30))
    found = measure_mask(lone_box(), probability=probability)
    assert found.volume["probability_std"] == pytest.approx(probability.std())
    assert found.slices[0]["probability_std"] == pytest.approx(probability[2].std())
    assert measure_mask(lone_box()).volume["probability_std"] is None


def test_place_in_the_brain_is_signed_toward_the_columns():
    brain = np.zeros((6, 20, 31), bool)
    brain[:, 2:18, 1:30] = True
    mask = np.zeros_like(brain)
    mask[3, 9:11, 24:27] = True
    found = measure_mask(mask, brain=brain).volume
    mirrored = measure_mask(mask[:, :, ::-1], brain=brain[:, :, ::-1]).volume
    assert (found["side"], mirrored["side"]) == (1, -1)
    assert found["midline_distance_px"] == pytest.approx(10)
    assert mirrored["midline_distance_px"] == pytest.approx(-10)
    assert found["brain_fraction"] == pytest.approx(mask.sum() / brain.sum())


def test_a_ball_is_round_in_millimeters_though_its_voxels_are_not():
    grid = np.indices((11, 43, 43)) - np.array([5, 21, 21])[:, None, None, None]
    ball = ((grid * np.array([4, 1, 1])[:, None, None, None]) ** 2).sum(axis=0) <= 20**2
    found = measure_mask(ball, spacing_mm=(4.0, 1.0, 1.0)).volume
    assert found["flatness"] == pytest.approx(1, abs=0.05)
    assert found["sphericity"] > 0.8
    assert found["axis_major_mm"] == pytest.approx(4 * 20 / np.sqrt(5), rel=0.03)
    assert measure_mask(ball, spacing_mm=(1.0, 1.0, 1.0)).volume["flatness"] < 0.3


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(-2, 2), st.integers(-3, 3))
def test_moving_a_tumor_moves_only_its_place(seed, rows, columns):
    mask = blob(seed)
    still = measure_mask(mask, spacing_mm=(2, 1, 1)).volume
    moved = measure_mask(np.roll(mask, (rows, columns), axis=(1, 2)), spacing_mm=(2, 1, 1)).volume
    for name, value in still.items():
        if value is None:
            assert moved[name] is None
        elif name.startswith("box_row") or name == "centroid_row_px":
            assert moved[name] == pytest.approx(value + rows)
        elif name.startswith("box_column") or name == "centroid_column_px":
            assert moved[name] == pytest.approx(value + columns)
        else:
            assert moved[name] == pytest.approx(value, rel=3e-4, abs=1e-9), name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_quarter_turn_leaves_what_has_no_direction(seed):
    mask = blob(seed)
    still = measure_mask(mask, spacing_mm=(2, 1, 1))
    turned = measure_mask(np.rot90(mask, axes=(1, 2)), spacing_mm=(2, 1, 1))
    for name in ("volume_mm3", "bevr", "sphericity", "flatness", "elongation", "max_diameter_mm", "num_components"):
        assert turned.volume[name] == pytest.approx(still.volume[name], rel=1e-3), name
    for one, other in zip(still.slices, turned.slices, strict=True):
        for name in ("area_px", "eccentricity", "solidity", "perimeter_px", "coordinate_std_major_px"):
            assert other[name] == pytest.approx(one[name], rel=1e-6, abs=1e-9), name
        assert other["coordinate_std_row_px"] == pytest.approx(one["coordinate_std_column_px"])


def test_spacing_scales_lengths_areas_and_volumes():
    mask = blob(3)
    one, two = (measure_mask(mask, spacing_mm=(s, s, s)).volume for s in (1.0, 2.0))
    for name, power in (("max_diameter_mm", 1), ("axis_major_mm", 1), ("surface_mm2", 2), ("volume_mm3", 3)):
        assert two[name] == pytest.approx(one[name] * 2**power, rel=1e-5), name
    for name in ("sphericity", "flatness", "elongation", "bevr"):
        assert two[name] == pytest.approx(one[name], rel=1e-5), name


def test_margin_features_do_not_depend_on_the_size_of_the_pixels():
    mask = blob(5)
    finer = np.kron(mask, np.ones((1, 4, 4), bool))
    assert measure_mask(finer).volume["asd"] == pytest.approx(measure_mask(mask).volume["asd"], rel=0.2)


def test_only_the_largest_component_makes_the_margin_and_the_ellipsoid():
    mask = lone_box()
    sheet = mask.copy()
    sheet[5, 8:15, 2:13] = True  # fewer voxels than the box, but a larger area than its slices
    alone, beside = measure_mask(mask).volume, measure_mask(sheet).volume
    assert beside["largest_slice"] == 5
    assert (beside["asd"], beside["mf"], beside["bevr"]) == (alone["asd"], alone["mf"], alone["bevr"])
    assert beside["num_components"] == 2


@pytest.mark.parametrize("labels", [{"edema": 2, "core": 1, "enhancing": 4}, {"edema": 2, "core": 1, "enhancing": 3}])
def test_regions_are_the_same_in_both_numberings_of_brats(labels):
    volume = np.zeros((4, 12, 12), np.uint8)
    volume[1:3, 2:10, 2:10] = labels["edema"]
    volume[1:3, 4:8, 4:8] = labels["core"]
    volume[1:3, 5:7, 5:7] = labels["enhancing"]
    scheme = "brats-2021" if labels["enhancing"] == 4 else "brats-2023"
    found = measure_regions(volume, regions=SCHEMES[scheme].regions)
    sizes = {name: region.volume["volume_px"] for name, region in found.regions.items()}
    assert sizes == {"WT": 128, "TC": 32, "ET": 8}
    assert found.ratios == {"tc_to_wt": 0.25, "et_to_wt": 0.0625, "et_to_tc": 0.25}


def test_a_case_without_enhancing_tumor_has_a_ratio_of_zero_and_no_tumor_has_none():
    edema = np.full((2, 4, 4), 2, np.uint8)
    found = measure_regions(edema, regions=SCHEMES["brats-2021"].regions)
    assert found.ratios["et_to_wt"] == 0
    assert found.ratios["et_to_tc"] is None
    assert found.undefined["et_to_tc"] == "TC is empty"


def test_wrong_input_is_told_the_rule():
    with pytest.raises(UserError, match=r"three axes.*\(4, 4\)"):
        measure_mask(np.zeros((4, 4), bool))
    with pytest.raises(UserError, match=r"shape \(2, 4, 4\)"):
        measure_mask(np.zeros((2, 4, 4), bool), probability=np.zeros((2, 4, 5)))
    with pytest.raises(UserError, match="three positive numbers"):
        measure_mask(np.zeros((2, 4, 4), bool), spacing_mm=(0.0, 1.0, 1.0))
