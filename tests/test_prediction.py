"""From a study to an answer: geometry, channels, kinds of targets, and what is said of nothing found."""

import re
from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from bundles import Bright, changed, describe
from glioflow.bundle.measurement import measure, measure_empty, measure_flair_threshold
from glioflow.bundle.prediction import Ensemble, Predictor
from glioflow.config import load_experiment
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.errors import UserError
from glioflow.evaluation import Segmentation, decode, flatten_summary


@pytest.fixture
def case(lgg):
    cohort = open_cohort(lgg)
    return cohort.read(cohort.cases[0].id)


@pytest.mark.parametrize("size", [24, 48, 96])
def test_the_mask_lies_in_the_original_geometry(tiny, case, size):
    experiment = changed(tiny, preprocess=[{"step": "unit"}, {"step": "resize", "size": size}])
    image = np.zeros_like(case.image)
    image[1:3, 10:20, 30:44, 1] = 255
    answer = Predictor(describe(experiment), Bright()).predict(replace(case, image=image))
    mask = answer.segmentation.labels
    assert mask.shape == case.shape
    truth = image[..., 1] > 0
    assert 2 * np.count_nonzero(mask.astype(bool) & truth) / (mask.sum() + truth.sum()) > 0.95
    assert answer.tumor["detected"]
    assert answer.tumor["slices"] == list(case.slice_numbers[1:3])
    assert answer.features.volume["volume_px"] == mask.sum()


def test_a_study_with_other_channels_is_refused_with_both_lists(tiny, case):
    predictor = Predictor(describe(tiny), Bright())
    for channels in (("flair", "pre", "post"), ("pre", "flair")):
        with pytest.raises(UserError) as error:
            predictor.predict(replace(case, image=case.image[..., : len(channels)], channels=channels))
        assert "['pre', 'flair', 'post']" in error.value.rule
        assert str(list(channels)) in str(error.value.value)


def test_a_study_without_a_tumor_gives_features_with_their_reasons(tiny, case):
    answer = Predictor(describe(tiny), Bright(above=2)).predict(case)
    assert not answer.segmentation.labels.any()
    assert answer.tumor == {
        "detected": False,
        "probability": pytest.approx(0, abs=1e-6),
        "slices": [],
        "positions": [],
        "positions_mm": None,
        "regions": {"tumor": {"volume_px": 0, "volume_mm3": None, "interval": None, "no_interval": ANY}},
        "volume": {"value": 0, "unit": "px", "interval": None, "level": None, "no_interval": ANY},
    }
    assert "this model has none" in answer.tumor["volume"]["no_interval"]
    assert answer.features.volume["volume_px"] == 0
    assert answer.features.volume["bevr"] is None
    assert "bevr" in answer.features.model_dump_json()
    assert answer.survival is None


def test_every_stage_is_timed_and_the_reader_is_warned(tiny, case):
    answer = Predictor(describe(tiny), Bright()).predict(replace(case, warnings=("post is a copy of FLAIR",)))
    assert set(answer.timing_ms) == {"preprocess", "segment", "features", "survival"}
    assert answer.warnings == ("post is a copy of FLAIR",)


def test_a_mirrored_prediction_is_averaged_where_asked(tiny):
    class Left(nn.Module):
        """Fires in the left half, whatever is shown."""

        def __init__(self):
            super().__init__()
            self.device = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            out = torch.full_like(images[:, :1], -100.0)
            out[..., : images.shape[-1] // 2] = 100.0
            return out

    image = np.zeros((2, 8, 8, 3), np.float32)
    plain = Predictor(describe(tiny), Left()).probabilities(image)
    assert plain[..., :4, 0].min() == pytest.approx(1)
    assert plain[..., 4:, 0].max() == pytest.approx(0)
    flipped = Predictor(describe(changed(tiny, inference={"flip": True})), Left()).probabilities(image)
    assert flipped == pytest.approx(np.full_like(flipped, 0.5))


VOLUMETRIC = {
    "model": {"architecture": "unet3d", "encoder": None, "weights": None},
    "training": {"sampling": {"patch": [4, 16, 16]}},
}


def test_windows_of_a_3d_network_meet_without_a_seam(tiny):
    image = np.random.default_rng(0).uniform(size=(9, 40, 24, 3)).astype(np.float32)
    whole = Predictor(describe(tiny), Bright()).probabilities(image)
    windows = Predictor(describe(changed(tiny, **VOLUMETRIC)), Bright()).probabilities(image)
    assert windows.shape == (9, 40, 24, 1)
    assert windows == pytest.approx(whole, abs=1e-5)


def test_a_3d_network_sees_at_most_its_window(tiny):
    class Sizes(Bright):
        """Notes what it is shown."""

        seen: set

        def forward(self, images):
            self.seen.add(tuple(images.shape[2:]))
            return super().forward(images)

    network = Sizes()
    network.seen = set()
    Predictor(describe(changed(tiny, **VOLUMETRIC)), network).probabilities(np.zeros((2, 40, 24, 3), np.float32))
    assert network.seen == {(4, 16, 16)}  # also where the volume is thinner than the window


@pytest.mark.parametrize(
    ("sections", "rule"),
    [
        (
            {"model": {"architecture": "unet3d"}},
            "must be a patch along S, H, W: unet3d is a 3D network",
        ),
        (
            {"training": {"sampling": {"patch": [4, 8, 8]}}},
            "training.sampling.patch must be null: unet is a 2D network",
        ),
    ],
)
def test_patches_are_for_3d_networks_and_only_for_them(experiment_file, sections, rule):
    path = experiment_file(yaml.safe_dump(sections))
    with pytest.raises(UserError, match=re.escape(rule)):
        load_experiment(path)


def test_an_ensemble_answers_the_mean_and_names_what_does_not_fit(tiny):
    class Says(nn.Module):
        """Gives the same logit everywhere."""

        def __init__(self, logit):
            super().__init__()
            self.logit = nn.Parameter(torch.tensor(logit))

        def forward(self, images):
            return self.logit.expand_as(images[:, :1])

    description = describe(tiny)
    both = Ensemble(
        [Predictor(description, Says(100.0)), Predictor(description, Says(-100.0)), Predictor(description, Says(0.0))]
    )
    assert both.probabilities(np.zeros((1, 4, 4, 3), np.float32)) == pytest.approx(np.full((1, 4, 4, 1), 0.5))
    other = describe(changed(tiny, preprocess=[{"step": "unit"}]))
    with pytest.raises(UserError, match="same preprocess"):
        Ensemble([Predictor(description, Bright()), Predictor(other, Bright())])


def probabilities(*voxels):
    """Return (1, 1, n, K) float32."""
    return np.asarray([[voxels]], np.float32)


def test_a_binary_probability_is_tumor_above_the_threshold(tiny):
    description = describe(changed(tiny, postprocess={"threshold": 0.4}))
    got = decode(description.target, description.postprocess, probabilities([0.39], [0.41], [1.0]))
    assert got.labels.tolist() == [[[0, 1, 1]]]
    assert list(got.parts) == ["tumor"]


def test_the_most_probable_class_wins_and_keeps_the_cohorts_number(tiny):
    description = describe(changed(tiny, target={"kind": "multiclass", "labels": [1, 2, 4]}))
    got = decode(
        description.target,
        description.postprocess,
        probabilities([0.1, 0.3, 0.4, 0.2], [0.4, 0.2, 0.2, 0.2], [0.1, 0.2, 0.2, 0.5]),
    )
    assert got.labels.tolist() == [[[2, 0, 4]]]
    assert got.probability.shape == (1, 1, 3, 3)
    # Classes exclude each other: that there is any tumor is all that is not background.
    assert got.tumor_probability[0, 0] == pytest.approx([0.9, 0.6, 0.9])


REGIONS = {
    "kind": "regions",
    "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
    "decode": {"WT": 2, "TC": 1, "ET": 4},
}


def test_nested_regions_become_the_label_of_the_innermost(tiny):
    description = describe(changed(tiny, target=REGIONS))
    got = decode(
        description.target,
        description.postprocess,
        probabilities([0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9]),
    )
    assert got.labels.tolist() == [[[0, 2, 1, 4]]]


def test_a_core_outside_the_tumor_is_neither_answered_nor_measured(tiny):
    description = describe(changed(tiny, target=REGIONS))
    got = decode(
        description.target, description.postprocess, probabilities([0.1, 0.9, 0.9], [0.9, 0.1, 0.9], [0.9, 0.9, 0.9])
    )
    assert got.labels.tolist() == [[[0, 2, 4]]]
    split = description.target.split(got.labels)
    assert all(np.array_equal(split[name], got.parts[name]) for name in ("WT", "TC", "ET"))


def test_clean_up_happens_before_anything_is_said(tiny):
    description = describe(changed(tiny, postprocess={"largest_component": True, "choose": False}))
    grid = np.zeros((1, 5, 5, 1), np.float32)
    grid[0, 0, 0], grid[0, 3:, 3:] = 0.9, 0.9
    assert decode(description.target, description.postprocess, grid).labels.sum() == 4


def test_a_perfect_model_scores_one_on_prepared_cases_and_the_empty_one_nothing(tiny, prepared):
    class Oracle(Predictor):
        def segment(self, image, moves, *, spread=False):
            case = next(case for case in cases if case.image is image)
            truth = case.reference()
            whole = truth[..., None].astype(np.float32)
            return Segmentation(truth, {"tumor": truth > 0}, whole, whole[..., 0])

    cases = PreparedCohort(prepared.path).cases(record.id for record in prepared.records[:3])
    rows = measure(Oracle(describe(tiny), Bright()), cases)
    assert [row["id"] for row in rows] == [case.record.id for case in cases]
    assert [row["dice"] for row in rows] == [1, 1, 1]
    assert all(row["patient"] == row["id"].rpartition("_")[0] for row in rows)
    empty = measure_empty(tiny.target, cases)
    assert [row["dice"] for row in empty] == [0, 0, 0]


def test_the_flair_baseline_needs_flair_and_one_part(tiny, prepared):
    cases = PreparedCohort(prepared.path).cases([prepared.records[0].id])
    assert measure_flair_threshold(describe(tiny), cases) is None
    rows = measure_flair_threshold(describe(tiny, flair_threshold=0.5), cases)
    assert rows is not None
    assert 0 <= rows[0]["dice"] <= 1
    for other in ({"network_channels": ("pre",)}, {"target": changed(tiny, target=REGIONS).target}):
        assert measure_flair_threshold(describe(tiny, flair_threshold=0.5, **other), cases) is None


def test_a_summary_becomes_plain_numbers_with_its_interval():
    summary = flatten_summary({"dice_mean": 0.5, "dice_ci95": (0.4, 0.6), "hd95_mean": None, "name": "x"}, "val")
    assert summary == {
        "val/dice_mean": 0.5,
        "val/dice_ci95_low": 0.4,
        "val/dice_ci95_high": 0.6,
        "val/hd95_mean": None,
    }
