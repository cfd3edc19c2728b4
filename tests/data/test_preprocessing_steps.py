import numpy as np
import pytest
from pydantic import ValidationError

from glioflow.config.experiment import Experiment, override
from glioflow.data.case import Case
from glioflow.data.preprocessing.geometry_steps import CropBox, CropBrain, PadSquare, Resample, ResizePlane, SliceRange
from glioflow.data.preprocessing.intensity_steps import Clahe, Equalize, Percentile, Sharpen, UnitScale, ZScore
from glioflow.data.preprocessing.pipeline import Channels, LabelMap, Neighbors, most_values, rename_labels, unprocessed
from glioflow.data.preprocessing.working_image import Volume
from glioflow.errors import UserError


def volume_of(image, mask=None, channels=None, spacing=None):
    image = np.asarray(image, np.float32)
    return Volume(image, mask, channels or tuple("abcdefgh"[: image.shape[-1]]), spacing)


def plane(values):
    return volume_of(np.asarray(values, np.float32)[None, ..., None])


def test_unit_divides_by_255_and_refuses_other_ranges():
    assert np.allclose(UnitScale().apply(plane([[0, 51, 255]])).image.ravel(), [0, 0.2, 1])
    with pytest.raises(UserError, match=r"0\.\.255.*got 0 to 256"):
        UnitScale().apply(plane([[0, 256]]))


def test_percentile_clips_and_rescales_each_channel_over_the_volume():
    image = np.stack([np.arange(11), np.arange(11) * 7], axis=-1).reshape(11, 1, 1, 2)
    out = Percentile(low=10, high=90).apply(volume_of(image)).image
    assert np.allclose(out[:, 0, 0, 0], np.clip((np.arange(11) - 1) / 8, 0, 1))
    assert np.allclose(out[..., 0], out[..., 1])


def test_percentile_may_leave_background_out_and_makes_constants_zero():
    image = plane([[0, 0, 0, 0, 0, 0, 10, 20, 30]])
    assert np.allclose(Percentile(low=0, high=100, nonzero=True).apply(image).image.ravel()[6:], [0, 0.5, 1])
    assert not Percentile().apply(plane([[7, 7]])).image.any()


def test_zscore_is_per_channel_over_the_volume():
    image = np.array([1, 2, 3, 100, 200, 300], np.float32).reshape(2, 3, 1, 1).transpose(1, 2, 3, 0)
    out = ZScore().apply(volume_of(image)).image
    assert np.allclose(out[:, 0, 0, 0], [-1.2247449, 0, 1.2247449])
    assert np.allclose(out[..., 0], out[..., 1])


def test_zscore_of_nonzero_voxels_leaves_background_at_zero():
    assert np.allclose(ZScore(nonzero=True).apply(plane([[0, 1, 3]])).image.ravel(), [0, -1, 1])
    assert not ZScore().apply(plane([[5, 5]])).image.any()


def test_equalize_spreads_ranks_over_the_range():
    out = Equalize().apply(plane([[10 / 255, 20 / 255], [30 / 255, 40 / 255]])).image.ravel()
    assert np.allclose(out, [0, 85 / 255, 170 / 255, 1])


def test_clahe_raises_the_contrast_of_a_dull_slice():
    dull = 0.4 + 0.1 * np.random.default_rng(0).random((64, 64))
    out = Clahe(clip_limit=4).apply(plane(dull)).image
    assert out.std() > 2 * dull.std()
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("step", [Equalize(), Clahe(), CropBrain()])
def test_steps_at_256_levels_name_what_must_stand_before_them(step):
    with pytest.raises(UserError, match=f"{step.step}.*'unit' or 'percentile'"):
        step.apply(plane([[0, 2.0]]))


def test_sharpen_steepens_an_edge_within_the_range():
    edge = np.repeat([[0.2, 0.2, 0.2, 0.4, 0.8, 0.8, 0.8]], 7, axis=0)
    edge[0, 0], edge[-1, -1] = 0, 1
    out = Sharpen().apply(plane(edge)).image[0, 3, :, 0]
    assert out[2] < 0.2
    assert out[4] > 0.8
    assert Sharpen().apply(volume_of(np.zeros((1, 4, 4, 6)))).image.shape == (1, 4, 4, 6)


def test_channels_are_chosen_in_the_order_given():
    image = np.arange(3).reshape(1, 1, 1, 3)
    out = Channels(keep=("post", "flair")).apply(volume_of(image, channels=("pre", "flair", "post")))
    assert out.image.ravel().tolist() == [2, 1]
    assert out.channels == ("post", "flair")


@pytest.mark.parametrize(
    ("has", "keep", "found"),
    [
        (("pre", "flair", "post"), ("t1ce", "t1"), [2, 0]),
        (("flair", "t1", "t1ce", "t2"), ("pre", "flair", "post"), [1, 0, 2]),
    ],
)
def test_the_same_sequence_goes_by_the_names_of_either_cohort(has, keep, found):
    out = Channels(keep=keep).apply(volume_of(np.arange(len(has)).reshape(1, 1, 1, -1), channels=has))
    assert out.image.ravel().tolist() == found
    assert out.channels == keep


def test_unknown_channel_names_those_there_are():
    with pytest.raises(UserError, match=r"'t2'.*pre, flair, post"):
        Channels(keep=("t2",)).apply(volume_of(np.zeros((1, 1, 1, 3)), channels=("pre", "flair", "post")))


def test_crop_box_is_the_box_of_all_slices_with_a_margin():
    image = np.zeros((2, 9, 9, 1))
    image[0, 3, 4], image[1, 5, 2], image[1, 0, 0] = 10, 6, 0.5
    out = CropBox(margin_px=1).apply(volume_of(image))
    assert out.moves[0].start == (0, 2, 1)
    assert out.moves[0].after == (2, 5, 5)
    assert CropBox().apply(volume_of(np.zeros((1, 4, 4, 1)))).image.shape == (1, 4, 4, 1)


def test_crop_brain_finds_the_head_by_its_edges():
    image = np.zeros((1, 80, 80, 1))
    image[0, 20:60, 30:70] = 0.7
    out = CropBrain().apply(volume_of(image))
    _, top, left = out.moves[0].start
    _, height, width = out.moves[0].after
    assert 14 <= top <= 20
    assert 24 <= left <= 30
    assert top + height >= 60
    assert left + width >= 70
    assert CropBrain().apply(volume_of(np.zeros((1, 8, 8, 1)))).image.shape == (1, 8, 8, 1)


def test_pad_square_pads_evenly():
    out = PadSquare().apply(volume_of(np.ones((1, 2, 5, 1))))
    assert out.image[0, ..., 0].sum(axis=1).tolist() == [0, 5, 5, 0, 0]


def test_resample_needs_a_spacing():
    out = Resample(spacing_mm=(2, 1, 1)).apply(volume_of(np.ones((4, 4, 4, 1)), spacing=(1.0, 0.5, 1.0)))
    assert out.image.shape == (2, 2, 4, 1)
    assert out.spacing_mm == (2, 1, 1)
    with pytest.raises(UserError, match="spacing"):
        Resample(spacing_mm=(2, 1, 1)).apply(volume_of(np.ones((4, 4, 4, 1))))


@pytest.mark.parametrize("step", [-1, 0, 0.0001, 1000])
def test_resampling_to_a_spacing_that_no_scan_has_is_refused(step):
    with pytest.raises(UserError, match=r"preprocess.0.spacing_mm.2 must be (at least 0.05|at most 30)"):
        override(Experiment(), {"preprocess": [{"step": "resample", "spacing_mm": [1, 1, step]}]})


def test_slice_range_includes_both_ends_and_says_when_nothing_is_left():
    image = np.arange(6).reshape(6, 1, 1, 1)
    assert SliceRange(first=2, last=3).apply(volume_of(image)).image.ravel().tolist() == [2, 3]
    assert SliceRange(first=4, last=60).apply(volume_of(image)).image.ravel().tolist() == [4, 5]
    with pytest.raises(UserError, match="6 slices"):
        SliceRange(first=6, last=9).apply(volume_of(image))


def test_neighbors_become_named_channels_and_ends_repeat():
    out = Neighbors().apply(volume_of(np.array([1, 2, 3]).reshape(3, 1, 1, 1), channels=("flair",)))
    assert out.image[:, 0, 0].tolist() == [[1, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert out.channels == ("flair-1", "flair", "flair+1")


def test_label_map_renames_all_at_once():
    mask = np.array([0, 1, 2, 4], np.uint8).reshape(1, 1, 4)
    step = LabelMap(map={4: 3, 1: 2, 2: 1})
    assert step.apply(volume_of(np.zeros((1, 1, 4, 1)), mask)).mask.ravel().tolist() == [0, 2, 1, 3]
    assert rename_labels(mask, (step, step)).ravel().tolist() == [0, 1, 2, 3]
    with pytest.raises(ValidationError):
        LabelMap(map={300: 1})


@pytest.mark.parametrize(
    "steps",
    [
        [ResizePlane(size=64)],
        [PadSquare(), Neighbors(reach=2)],
        [ResizePlane(size=64), Resample(spacing_mm=(1, 1, 1)), Channels(keep=("a",))],
        [Resample(spacing_mm=(0.5, 0.5, 0.5)), ResizePlane(size=8)],
        [PadSquare(), Resample(spacing_mm=(6, 6, 6)), Sharpen()],
    ],
)
def test_how_large_an_image_becomes_is_known_before_any_step(steps):
    image = np.zeros((4, 12, 20, 2), np.float32)
    case = Case("p", "p", image, None, ("a", "b"), (1, 2, 3, 4), (3.0, 2.0, 1.5))
    sizes, volume = [image.size], unprocessed(case)
    for step in steps:
        volume = step.apply(volume)
        sizes.append(volume.image.size)
    assert most_values(case, steps) == max(sizes)


def test_steps_are_named_in_experiments():
    steps = [{"step": "unit"}, {"step": "channels", "keep": ["flair"]}, {"step": "resize", "size": 64}]
    assert [step.step for step in Experiment(preprocess=steps).preprocess] == ["unit", "channels", "resize"]
    with pytest.raises(UserError, match=r"preprocess\.0\.step must be one of .*did you mean sharpen"):
        Experiment(preprocess=[{"step": "sharpness"}])


@pytest.mark.parametrize(
    ("shape", "step"),
    [
        ((8, 40, 40), {"step": "resample", "spacing_mm": [1.0, 1.0, 1.0]}),
        ((2, 4, 32000), {"step": "pad_square"}),
        ((900, 4, 4), {"step": "resize", "size": 2048}),
        ((1200, 300, 300), {"step": "neighbors", "reach": 5}),
    ],
)
def test_a_step_that_would_make_too_much_is_refused_before_it_makes_it(shape, step):
    import tracemalloc

    from pydantic import TypeAdapter

    from glioflow.data.case import Case
    from glioflow.data.preprocessing.pipeline import Step, preprocess
    from glioflow.errors import TooLarge

    case = Case("a", "a", np.zeros((*shape, 1), np.uint8), None, ("flair",), tuple(range(shape[0])), (400.0,) * 3)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="after each step"):
            preprocess(case, (TypeAdapter(Step).validate_python(step),))
        assert tracemalloc.get_traced_memory()[1] < 10 * case.image.size
    finally:
        tracemalloc.stop()
