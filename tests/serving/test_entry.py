"""What a study is checked for before it is answered; each warning once, in words for a person."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundles import ORIGIN, changed, describe
from glioflow.bundle.study_checks import conform, has_skull, out_of_order
from glioflow.data.case import Case, Grid
from glioflow.data.formats.detect import open_cohort
from glioflow.data.synthetic.phantom import TumorPlan, draw_phantom, render, smooth_noise
from glioflow.errors import UserError


def drawn(count=24, *, head):
    rng = np.random.default_rng(0)
    shape = (count, 128, 128)
    phantom = draw_phantom(rng, shape, TumorPlan(radius=0.3, irregularity=0.3), head=head)
    image = render(rng, phantom, "flair", smooth_noise(rng, shape, (3, 16, 16)))
    others = [image * 0.7 + 0.05 * k for k in (1, 2)]
    return np.stack([others[0], image, others[1]], axis=-1).astype(np.float32)


def study(image, channels=("pre", "flair", "post"), **fields):
    numbers = tuple(range(1, len(image) + 1))
    return Case("a", "a", image, None, channels, **{"slice_numbers": numbers, "spacing_mm": (1.0, 1.0, 1.0), **fields})


def warnings(case, description):
    return conform(case, description).warnings


def test_a_good_study_has_no_warning(tiny):
    assert warnings(study(drawn(head=False)), describe(tiny)) == ()


def test_a_missing_sequence_is_noticed(tiny):
    image = drawn(head=False)
    image[..., 2] = image[..., 1]
    assert any("post is a copy of FLAIR" in warning for warning in warnings(study(image), describe(tiny)))
    image[..., 2] = image[..., 0]
    assert any("post is a copy of pre: the sequence" in warning for warning in warnings(study(image), describe(tiny)))
    image[..., 2] = 0
    assert any("post is blank" in warning for warning in warnings(study(image), describe(tiny)))
    image[..., 1] = 0
    assert [text for text in warnings(study(image), describe(tiny)) if "post" in text] == ["post is blank"]


@pytest.mark.parametrize("values", [(0, 0, 0), (0, 7, 255)])
def test_a_volume_that_shows_nothing_is_refused_and_an_empty_slice_is_warned_about(tiny, values):
    empty = np.full((12, 32, 32, 3), values, np.uint8)
    with pytest.raises(UserError, match="must show something"):
        conform(study(empty), describe(tiny))
    assert any("pre is blank" in warning for warning in warnings(study(empty[:1]), describe(tiny)))
    empty[3, 4, 5, 1] += 1
    assert conform(study(empty), describe(tiny)).warnings


def test_one_sequence_scaled_to_0_to_1_is_noticed_by_a_model_that_takes_intensities_as_they_are(tiny):
    image = 255 * drawn(head=False) / drawn(head=False).max()
    assert warnings(study(image), describe(tiny)) == ()
    image[..., 0] /= 255
    assert ["pre holds nothing above 1" in text for text in warnings(study(image), describe(tiny))] == [True]
    indifferent = describe(changed(tiny, preprocess=[{"step": "percentile"}]))
    assert warnings(study(image), indifferent) == ()


def test_a_lone_slice_is_warned_about_where_the_model_needs_a_volume(tiny):
    lone = study(drawn(head=False)[12:13])
    assert warnings(lone, describe(tiny)) == ()
    wise = describe(changed(tiny, preprocess=[{"step": "crop_box"}, {"step": "percentile"}, {"step": "zscore"}]))
    assert ["crop_box, percentile, zscore" in warning for warning in warnings(lone, wise)] == [True]
    assert warnings(study(drawn(head=False)), wise) == ()
    patch = {"sampling": {"patch": [8, 32, 32]}}
    solid = describe(changed(tiny, model={"architecture": "unet3d"}, training=patch))
    assert ["whole volume (unet3d)" in warning for warning in warnings(lone, solid)] == [True]


@pytest.mark.parametrize("check", ["skull", "lone_slice"])
def test_what_the_bundle_refuses_is_refused_with_what_to_send_instead(tiny, check):
    steps = [{"step": "percentile"}, {"step": "zscore"}]
    origin = ORIGIN.model_copy(update={"cohort_format": "brats"})
    strict = describe(changed(tiny, preprocess=steps, entry={check: "refuse"}), origin=origin)
    head, brain = drawn(head=True), drawn(head=False)
    bad, fine = (head, brain[12:13]) if check == "skull" else (brain[12:13], head)
    with pytest.raises(UserError, match=r"the model (takes|needs)") as caught:
        conform(study(bad), strict)
    assert caught.value.hint in ("strip the skull first", "give all slices of the study")
    assert conform(study(fine), strict).warnings, "of the other it is only warned"


def test_slices_out_of_order_and_numbers_left_out_are_noticed(tiny):
    image = drawn(head=False)
    assert not out_of_order(image)
    assert not out_of_order(image[::-1])
    assert out_of_order(image[np.random.default_rng(1).permutation(len(image))])
    gap = study(image[:3], slice_numbers=(1, 2, 9))
    assert any("6 slice numbers are missing" in warning for warning in warnings(gap, describe(tiny)))


def test_an_unknown_spacing_is_said(tiny):
    assert any(
        "spacing is unknown" in warning
        for warning in warnings(study(drawn(head=False), spacing_mm=None), describe(tiny))
    )


def test_a_skull_is_a_warning_for_models_of_stripped_brains_only(tiny):
    stripped = describe(tiny, origin=ORIGIN.model_copy(update={"cohort_format": "brats"}))
    with_skull, without = study(drawn(head=True)), study(drawn(head=False))
    assert any("skull" in warning for warning in warnings(with_skull, stripped))
    assert not any("skull" in warning for warning in warnings(without, stripped))
    assert not any("skull" in warning for warning in warnings(with_skull, describe(tiny)))


def test_channels_are_found_by_sequence_and_put_in_the_models_order(tiny):
    image = np.stack([np.full((2, 8, 8), value, np.float32) for value in (1, 2, 3, 4)], axis=-1)
    case = conform(study(image, ("t2", "t1ce", "flair", "t1")), describe(tiny))
    assert case.channels == ("pre", "flair", "post")
    assert case.image[0, 0, 0].tolist() == [4, 3, 2]
    for channels in (("t1", "flair", "t2", "x"), ("t1", "pre", "flair", "post")):
        with pytest.raises(UserError) as caught:
            conform(study(image, channels), describe(tiny))
        assert ", ".join(channels) in caught.value.value


@pytest.mark.real
@pytest.mark.parametrize(("cohort", "skull"), [("kaggle_3m", True), ("brats2021", False)])
def test_real_scans_are_told_apart_by_their_skull_and_are_in_order(cohort, skull):
    root = os.environ.get("GLIOFLOW_DATA")
    if not root or not (Path(root) / cohort).is_dir():
        pytest.skip("needs the real cohorts under GLIOFLOW_DATA")
    found = open_cohort(Path(root) / cohort)
    for entry in found.cases[:5]:
        case = replace(found.read(entry.id), mask=None)
        assert has_skull(case.image) is skull, entry.id
        assert not out_of_order(case.image)
        assert out_of_order(case.image[np.random.default_rng(0).permutation(case.shape[0])])


def test_numbered_images_are_the_models_channels_where_it_was_trained_on_such(tiny):
    image = np.stack([np.full((2, 8, 8), value, np.float32) for value in (1, 2, 3)], axis=-1)
    numbered = study(image, ("channel0", "channel1", "channel2"))
    case = conform(numbered, describe(tiny, origin=ORIGIN.model_copy(update={"cohort_format": "nifti"})))
    assert case.channels == ("pre", "flair", "post")
    assert case.image[0, 0, 0].tolist() == [1, 2, 3]
    assert any("0 as pre, 1 as flair, 2 as post" in warning for warning in case.warnings)
    with pytest.raises(UserError, match="must have the model's channels"):
        conform(numbered, describe(tiny))


def test_a_lone_image_without_a_name_is_taken_for_the_models_only_sequence_and_it_is_said(tiny):
    one = describe(tiny, channels=("flair",), network_channels=("flair",))
    image = drawn(head=False)[..., :1]
    assert any("taken for flair" in warning for warning in conform(study(image, ("image",)), one).warnings)
    with pytest.raises(UserError, match="must have the model's channels"):
        conform(study(image, ("t2",)), one)


def test_a_scan_in_thick_slices_of_another_plane_is_warned_about_or_refused(tiny):
    def scan(spacing_mm):
        return study(drawn(head=False), spacing_mm=spacing_mm)

    assert not any("other plane" in warning for warning in warnings(scan((1.0, 1.0, 1.2)), describe(tiny)))
    assert any("5 mm by 1 mm" in warning for warning in warnings(scan((1.0, 1.0, 5.0)), describe(tiny)))
    with pytest.raises(UserError, match="8 times as long as wide"):
        conform(scan((1.0, 20.0, 1.0)), describe(tiny))
    with pytest.raises(UserError, match="spacing of a study must be between"):
        conform(scan((1.0, 400.0, 400.0)), describe(tiny))


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (np.diag([-1, 1, 1]), None),
        ([[0.95, -0.31, 0], [0.31, 0.95, 0], [0, 0, 1]], None),
        ([[0.7, -0.7, 0], [0.7, 0.7, 0], [0, 0, 1]], "turned by 45 degrees"),
        ([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]], "turned by 37 degrees"),
        ([[1, 0, 0.4], [0, 1, 0], [0, 0, 1]], "lean by 22 degrees"),
    ],
)
def test_a_grid_that_is_turned_or_sheared_against_the_patient_is_warned_about(tiny, axes, expected):
    affine = np.eye(4)
    affine[:3, :3] = axes
    found = warnings(
        study(drawn(head=False), grid=Grid(axes=(2, 1, 0), flips=(False,) * 3, affine=affine)), describe(tiny)
    )
    assert (expected is None and found == ()) or (expected in " ".join(found) and len(found) == 1)
