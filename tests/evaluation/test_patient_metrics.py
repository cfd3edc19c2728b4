"""Metrics of one patient, by hand and against other libraries."""

import json
import math

import numpy as np
import pytest

from glioflow.evaluation import auroc, dice_per_case, evaluate_case, evaluate_parts, split_regions, summarize

EMPTY = np.zeros((3, 8, 8), dtype=bool)


def box(*extents, shape=(3, 8, 8)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*extent) for extent in extents)] = True
    return mask


def blobs(seed, shape=(12, 40, 40)):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return noise > np.quantile(noise, 0.9)


def test_overlap_by_hand():
    # 16 voxels against 16, 8 of them shared, in 192.
    found, true = box((1, 2), (0, 4), (0, 4)), box((1, 2), (2, 6), (0, 4))
    metrics = evaluate_case(found, true)
    assert metrics["dice"] == 0.5
    assert metrics["iou"] == pytest.approx(1 / 3)
    assert (metrics["precision"], metrics["sensitivity"]) == (0.5, 0.5)
    assert metrics["specificity"] == pytest.approx(168 / 176)
    assert metrics["accuracy"] == pytest.approx(176 / 192)
    assert metrics["volume_error_px"] == 0
    assert metrics["num_true_positive"] == 8


def test_iou_follows_from_dice():
    metrics = evaluate_case(blobs(1), blobs(2) | blobs(1))
    assert metrics["iou"] == pytest.approx(metrics["dice"] / (2 - metrics["dice"]))


def test_overlap_and_surfaces_agree_with_other_libraries():
    import torch
    from medpy.metric import binary as medpy
    from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric
    from torchmetrics.functional.classification import binary_f1_score

    spacing = (3.0, 1.0, 0.7)
    for seed in range(3):
        found, true = blobs(seed), np.roll(blobs(seed), (1, 3, -2), axis=(0, 1, 2)) | blobs(seed + 10)
        metrics = evaluate_case(found, true, spacing_mm=spacing)
        a, b = (torch.from_numpy(mask)[None, None].float() for mask in (found, true))
        assert metrics["dice"] == pytest.approx(medpy.dc(found, true))
        assert metrics["dice"] == pytest.approx(DiceMetric(ignore_empty=False)(a, b).item())
        assert metrics["dice"] == pytest.approx(binary_f1_score(a.flatten(), b.flatten().int()).item())
        assert metrics["sensitivity"] == pytest.approx(medpy.recall(found, true))
        assert metrics["precision"] == pytest.approx(medpy.precision(found, true))
        assert metrics["specificity"] == pytest.approx(medpy.specificity(found, true))
        hd95 = HausdorffDistanceMetric(include_background=True, percentile=95)(a, b, spacing=list(spacing)).item()
        assert metrics["hd95_mm"] == pytest.approx(hd95, rel=1e-5)
        nsd = SurfaceDiceMetric([1.0], include_background=True)(a, b, spacing=list(spacing)).item()
        assert metrics["nsd_1mm"] == pytest.approx(nsd, rel=1e-5)


def test_monai_counts_empty_cases_as_we_do():
    import torch
    from monai.metrics import DiceMetric

    metric = DiceMetric(ignore_empty=False)
    for found, true in ((EMPTY, EMPTY), (EMPTY, box((1, 2), (0, 4), (0, 4))), (box((1, 2), (0, 4), (0, 4)), EMPTY)):
        a, b = (torch.from_numpy(mask)[None, None].float() for mask in (found, true))
        assert dice_per_case(found, true) == metric(a, b).item()


def test_hd95_by_hand():
    # One voxel against the same voxel 3 to the right and 4 down.
    found, true = box((1, 2), (1, 2), (1, 2)), box((1, 2), (5, 6), (4, 5))
    assert evaluate_case(found, true, spacing_mm=(1, 1, 1))["hd95"] == 5
    assert evaluate_case(found, true, spacing_mm=(1, 0.5, 2))["hd95_mm"] == pytest.approx(math.hypot(2, 6))
    assert evaluate_case(found, true)["hd95_inplane_px"] == 5


def test_hd95_takes_the_worse_direction():
    true = box((0, 1), (0, 1), (0, 1), shape=(1, 1, 100))
    found = true | box((0, 1), (0, 1), (99, 100), shape=(1, 1, 100))
    # Back is 0; there is 0 and 99, whose 95th percentile is 94.05. Pooling both directions would give 89.1.
    assert evaluate_case(found, true, spacing_mm=(1, 1, 1))["hd95"] == pytest.approx(94.05)


def test_surface_tolerance_by_hand_and_in_the_name():
    true = box((0, 3), (2, 6), (2, 6))
    grown = box((0, 3), (1, 7), (1, 7))
    assert evaluate_case(grown, true)["nsd_inplane_1px"] == pytest.approx((20 - 4 + 12) / 32)  # corners are sqrt 2 away
    assert evaluate_case(grown, true, tolerance=2)["nsd_inplane_2px"] == 1


def test_slices_with_tumor_in_one_mask_alone_are_counted_and_have_no_distance():
    found, true = box((0, 1), (2, 6), (2, 6)), box((2, 3), (2, 6), (2, 6))
    metrics = evaluate_case(found, true)
    assert metrics["hd95_inplane_px"] is None
    assert metrics["num_one_sided_slices"] == 2
    assert metrics["nsd"] == 0
    assert evaluate_case(EMPTY, EMPTY)["hd95_inplane_px"] == 0
    both = evaluate_parts({"WT": found, "ET": found}, {"WT": true, "ET": true})
    assert both["hd95"] is None


@pytest.mark.parametrize("spacing", [(0.1 + 0.2) * np.ones(3), np.full(3, 0.3)])
def test_a_distance_of_exactly_the_tolerance_counts_in_every_orientation(spacing):
    true = box((1, 2), (1, 5), (1, 5), shape=(8, 8, 8))
    for axis in range(3):
        moved = np.roll(true, 1, axis=axis)
        for tolerance in (0.3, 0.1 * 3, 0.1 + 0.2):
            found = evaluate_case(moved, true, spacing_mm=tuple(spacing), tolerance=tolerance)
            assert found["nsd"] == 1, (axis, tolerance)


def test_unknown_slice_spacing_compares_slice_by_slice():
    # The same square one slice off: in 3D a step away, in-plane a miss in each of the two slices.
    found, true = box((0, 2), (2, 6), (2, 6)), box((1, 3), (2, 6), (2, 6))
    metrics = evaluate_case(found, true)
    assert metrics["hd95_inplane_px"] == 0
    assert metrics["num_one_sided_slices"] == 2
    assert metrics["nsd_inplane_1px"] == pytest.approx(1 / 3)
    assert "hd95_mm" not in metrics


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        (EMPTY, EMPTY, {"dice": 1, "iou": 1, "hd95": 0, "nsd": 1, "precision": None, "sensitivity": None}),
        (EMPTY, box((1, 2), (0, 4), (0, 4)), {"dice": 0, "iou": 0, "nsd": 0, "precision": None, "sensitivity": 0}),
        (box((1, 2), (0, 4), (0, 4)), EMPTY, {"dice": 0, "iou": 0, "nsd": 0, "precision": 0, "sensitivity": None}),
    ],
)
def test_empty_masks_follow_the_stated_rule(found, true, expected):
    metrics = evaluate_case(found, true, spacing_mm=(1, 1, 1))
    assert {key: metrics[key] for key in expected} == expected
    assert (metrics["empty_prediction"], metrics["empty_reference"]) == (float(not found.any()), float(not true.any()))
    json.dumps(metrics, allow_nan=False)


def test_a_missed_brats_region_costs_the_images_diagonal():
    true = np.zeros((155, 240, 240), dtype=bool)
    true[70:80, 100:120, 100:120] = True
    assert evaluate_case(true & False, true, spacing_mm=(1, 1, 1))["hd95_mm"] == pytest.approx(373.13, abs=0.005)


def test_lesions_touching_at_a_corner_are_one_and_any_voxel_finds_it():
    true = box((0, 1), (0, 2), (0, 2)) | box((1, 2), (2, 4), (2, 4)) | box((2, 3), (7, 8), (7, 8))
    found = box((1, 2), (3, 5), (3, 5)) | box((0, 1), (7, 8), (0, 1))
    metrics = evaluate_case(found, true)
    assert metrics["num_lesions_reference"] == 2
    assert metrics["lesion_sensitivity_any_voxel"] == 0.5
    assert metrics["lesion_precision_any_voxel"] == 0.5
    assert (metrics["num_lesions_missed"], metrics["num_lesions_invented"]) == (1, 1)


def test_tumor_slices_and_tumor_free_slices_are_judged_apart():
    true = box((1, 2), (0, 4), (0, 4))
    found = box((1, 3), (2, 6), (0, 4))
    metrics = evaluate_case(found, true, probability=found * 0.9)
    assert metrics["dice_tumor_slices"] == 0.5
    assert metrics["iou_tumor_free_slices"] == metrics["false_positive_slice_rate"] == 0.5
    assert metrics["slice_sensitivity"] == 1
    assert metrics["slice_auroc"] == 0.75
    assert metrics["study_score"] == 0.9


def test_auroc_agrees_with_scikit_learn_and_needs_both_kinds():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    truths = rng.random(60) > 0.4
    scores = np.round(rng.random(60) + truths * 0.3, 1)
    assert auroc(scores, truths) == pytest.approx(roc_auc_score(truths, scores))
    assert auroc(scores[:3], np.ones(3, dtype=bool)) is None


def test_brats_regions_nest_and_are_measured_each():
    labels = np.zeros((3, 8, 8), dtype=np.uint8)
    labels[1, 1:7, 1:7], labels[1, 2:6, 2:6], labels[1, 3:5, 3:5] = 2, 1, 4
    regions = split_regions(labels, "brats-2021")
    assert [int(mask.sum()) for mask in regions.values()] == [36, 16, 4]
    without_et = {**regions, "ET": regions["ET"] & False}
    metrics = evaluate_parts(without_et, regions, spacing_mm=(1, 1, 1))
    assert (metrics["dice_WT"], metrics["dice_TC"], metrics["dice_ET"]) == (1, 1, 0)
    assert metrics["dice"] == pytest.approx(2 / 3)
    assert metrics["hd95_ET"] == pytest.approx(math.hypot(3, 8, 8))
    assert metrics["mean_iou"] == pytest.approx(3 / 4)
    assert split_regions(np.where(labels == 4, 3, labels), "brats-2023")["ET"].sum() == 4


def test_shape_mismatch_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 8, 8\) and \(3, 8, 9\)"):
        evaluate_case(EMPTY, np.zeros((3, 8, 9), dtype=bool))


def test_a_summary_counts_what_is_undefined_and_drops_no_miss():
    true = box((1, 2), (0, 4), (0, 4))
    rows = [
        {"id": "a", **evaluate_case(true, true)},
        {"id": "b", **evaluate_case(EMPTY, true)},
        {"id": "c", **evaluate_case(EMPTY, EMPTY)},
        {"id": "d", **evaluate_case(true, EMPTY), "features": {"asd": 1.0}},
    ]
    summary = summarize(rows)
    assert summary["num_patients"] == 4
    assert (summary["dice_mean"], summary["dice_median"]) == (0.5, 0.5)
    assert summary["dice_ci95"] == [0.0, 1.0]
    assert (summary["sensitivity_mean"], summary["sensitivity_num_undefined"]) == (0.5, 2)
    assert (summary["num_empty_reference"], summary["num_empty_prediction"], summary["num_empty_both"]) == (2, 2, 1)
    assert summary["dice_pooled"] == 0.5
    assert (summary["study_sensitivity"], summary["study_false_positive_rate"]) == (0.5, 0.5)
    assert summary["false_positive_slice_rate_pooled"] == pytest.approx(1 / 10)
    json.dumps(summary, allow_nan=False)


def test_an_unknown_institution_is_no_metric():
    rows = [{"id": "a", "patient": "a", "institution": None, "dice": 0.5}]
    assert not [key for key in summarize(rows) if "institution" in key]


def test_a_summary_of_regions_counts_the_empty_ones_by_region():
    labels = np.zeros((3, 8, 8), dtype=np.uint8)
    labels[1, 1:7, 1:7] = 2
    regions = split_regions(labels, "brats-2021")
    summary = summarize([evaluate_parts(regions, regions, probabilities={k: v * 0.8 for k, v in regions.items()})])
    assert (summary["num_empty_both_ET"], summary["num_empty_both"], summary["dice_ET_mean"]) == (1, 0, 1)
