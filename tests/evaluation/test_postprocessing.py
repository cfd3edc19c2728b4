"""From probabilities to masks, and the choice of how on validation patients."""

import weakref

import numpy as np
import pytest

from glioflow.data.targets import TargetSettings
from glioflow.evaluation import (
    PostprocessSettings,
    apply_postprocessing,
    choose_postprocessing,
    decode,
    dice_per_case,
    postprocessing,
)


def case(seed=0, shape=(6, 32, 32)):
    """A tumor of probability 0.35 and a speck elsewhere of 0.9; the truth is the tumor."""
    rng = np.random.default_rng(seed)
    probability = rng.uniform(0, 0.2, shape)
    row, column = rng.integers(4, 16, 2)
    truth = np.zeros(shape, dtype=bool)
    truth[1:4, row : row + 8, column : column + 8] = True
    probability[truth] = 0.35
    probability[5, 30:32, 30:32] = 0.9
    return {"tumor": probability}, {"tumor": truth}


def apply(probability, **settings):
    return apply_postprocessing({"tumor": probability}, PostprocessSettings(**settings))["tumor"]


def test_the_threshold_is_exclusive():
    assert apply(np.array([[[0.5, 0.51]]])).tolist() == [[[False, True]]]


def test_the_largest_component_is_kept_through_corners_and_slices():
    probability = np.zeros((3, 8, 8))
    probability[0, 0, 0] = probability[1, 1, 1] = probability[2, 2, 2] = 1
    probability[0, 6:8, 6] = 1
    kept = apply(probability, largest_component=True)
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_small_components_are_dropped_and_nothing_left_is_fine():
    probability = np.zeros((1, 8, 8))
    probability[0, 0, :3] = probability[0, 4, :2] = 1
    assert apply(probability, min_size_px=3).sum() == 3
    assert apply(probability, min_size_px=4).sum() == 0
    assert apply(np.zeros((1, 8, 8)), largest_component=True, min_size_px=4).sum() == 0


def test_of_two_largest_components_one_is_kept():
    probability = np.zeros((1, 8, 8))
    probability[0, 0, :3] = probability[0, 4, :3] = 1
    assert np.argwhere(apply(probability, largest_component=True)).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def test_regions_are_cleaned_together():
    whole = np.zeros((1, 8, 8))
    whole[0, 0:3, 0:3] = whole[0, 7, 7] = 1
    core = np.zeros((1, 8, 8))
    core[0, 1, 1] = core[0, 7, 7] = 1
    masks = apply_postprocessing({"WT": whole, "ET": core}, PostprocessSettings(largest_component=True))
    assert masks["WT"].sum() == 9
    assert np.argwhere(masks["ET"]).tolist() == [[0, 1, 1]], "its own largest component may lie outside the tumor's"


def test_small_enhancing_tumor_is_emptied_and_the_rest_stays():
    parts = {"WT": np.ones((1, 8, 8)), "ET": np.eye(8)[None]}
    masks = apply_postprocessing(parts, PostprocessSettings(min_total_px={"ET": 9}))
    assert (masks["WT"].sum(), masks["ET"].sum()) == (64, 0)
    assert apply_postprocessing(parts, PostprocessSettings(min_total_px={"ET": 8}))["ET"].sum() == 8


def test_masks_decided_by_argmax_skip_the_threshold():
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, 0, :2] = mask[0, 3, 3] = True
    settings = PostprocessSettings(threshold=0.9, largest_component=True)
    assert apply_postprocessing({"tumor": mask}, settings, already_decided=True)["tumor"].sum() == 2


def test_the_choice_finds_threshold_and_clean_up():
    cases = [case(seed) for seed in range(3)]
    chosen = choose_postprocessing([c[0] for c in cases], [c[1] for c in cases])
    assert 0.2 <= chosen.threshold < 0.35
    assert chosen.largest_component
    for probability, truth in cases:
        assert dice_per_case(apply_postprocessing(probability, chosen)["tumor"], truth["tumor"]) == 1


@pytest.mark.parametrize("seed", range(6))
def test_what_lies_beyond_all_findings_and_all_tumor_changes_no_choice(seed, monkeypatch):
    rng, cases = np.random.default_rng(seed), []
    for k in range(4):
        whole = rng.random((5, 20, 20)) ** (3 + seed) * (k > 0)  # nobody finds anything in the first one
        truth = np.zeros(whole.shape, bool)
        truth[1:3, 5:12, 5:12] = k < 3  # the last one has no tumor
        whole[truth] = rng.uniform(0.05, 0.7)
        cases.append(({"WT": whole, "ET": whole * rng.random()}, {"WT": truth, "ET": truth & (whole > 0.3)}))
    probabilities, references = zip(*cases, strict=True)
    chosen = choose_postprocessing(probabilities, references)
    monkeypatch.setattr(postprocessing, "_cut", lambda parts, masks, lowest: (parts, masks))
    assert choose_postprocessing(probabilities, references) == chosen


def test_the_choice_keeps_no_patient_whole():
    whole = []

    def probabilities():
        for seed in range(4):
            assert not any(earlier() is not None for earlier in whole[:-1])
            parts, _ = case(seed)
            parts["tumor"][0] = 0
            whole.append(weakref.ref(parts["tumor"]))
            yield parts
            del parts

    choose_postprocessing(probabilities(), (case(seed)[1] for seed in range(4)))
    assert len(whole) == 4


def test_the_choice_keeps_what_is_simple_where_nothing_is_better():
    truth = np.zeros((2, 16, 16), dtype=bool)
    truth[1, 4:9, 4:9] = True
    assert choose_postprocessing([{"tumor": truth * 0.99}], [{"tumor": truth}]) == PostprocessSettings()


def test_the_choice_drops_invented_enhancing_tumor():
    whole = np.zeros((2, 32, 32), dtype=bool)
    whole[1, 4:20, 4:20] = True
    speck = np.zeros_like(whole)
    speck[1, 8:12, 8:12] = True
    truth = {"WT": whole, "ET": whole & False}
    chosen = choose_postprocessing([{"WT": whole * 0.99, "ET": speck * 0.99}], [truth])
    assert chosen.min_total_px == {"ET": 50}


@pytest.mark.parametrize("probabilities", [[], [case()[0]]])
def test_what_is_fixed_stays(probabilities):
    settings = PostprocessSettings(threshold=0.6, choose=False)
    references = [case()[1] for _ in probabilities]
    assert choose_postprocessing(probabilities, references, settings=settings) == settings


def test_voxels_of_a_small_exclusive_class_get_their_next_likeliest_one():
    target = TargetSettings(kind="multiclass", labels=(1, 2, 4))
    probabilities = np.zeros((1, 4, 4, 4), np.float32)
    probabilities[..., 0] = 0.9
    probabilities[0, :2, :2] = [0.1, 0.3, 0.1, 0.5]  # a small enhancing tumor that is necrosis otherwise
    settings = PostprocessSettings(min_total_px={"label_4": 5})
    labels = decode(target, settings, probabilities).labels
    assert labels[0, :2, :2].tolist() == [[1, 1], [1, 1]]
    assert np.count_nonzero(labels) == 4
    assert (decode(target, PostprocessSettings(), probabilities).labels == 4).sum() == 4
