"""Every registered loss keeps the one contract, and agrees with numbers by hand and with MONAI."""

import math

import pytest
import torch
from pydantic import ValidationError

from glioflow.errors import UserError
from glioflow.models import LOSSES, LossSettings, build_loss, criteria
from glioflow.models.criteria import gathered_entropy

SHAPES = {2: (12, 10), 3: (6, 8, 7)}
CASES = [(name, task, dims) for name, loss in LOSSES.items() for task in loss.tasks for dims in (2, 3)]


def example(task, dims=2, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    num_outputs = 1 if task == "binary" else 3
    logits = torch.randn(batch, num_outputs, *SHAPES[dims], generator=generator)
    if task == "multiclass":
        return logits, torch.randint(3, (batch, *SHAPES[dims]), generator=generator)
    return logits, (torch.rand(logits.shape, generator=generator) > 0.6).float()


def sure(task, target):
    """Logits that are surely right."""
    if task == "multiclass":
        return (torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float() * 2 - 1) * 30
    return (target * 2 - 1) * 30


def loss_of(name, task, **settings):
    return build_loss(LossSettings(name=name, **settings), task=task)


@pytest.mark.parametrize(("name", "task", "dims"), CASES)
def test_a_right_answer_costs_nothing_and_a_wrong_one_more(name, task, dims):
    loss = loss_of(name, task)
    logits, target = example(task, dims)
    wrong = sure(task, (target + 1) % 3) if task == "multiclass" else -sure(task, target)
    assert loss(sure(task, target), target) < 0.01 < loss(logits, target)
    assert loss(wrong, target) > 0.25


@pytest.mark.parametrize(("name", "task", "dims"), CASES)
def test_gradients_are_finite_for_empty_full_and_perfect_targets(name, task, dims):
    logits, target = example(task, dims)
    for truth in (torch.zeros_like(target), torch.ones_like(target), target):
        start = sure(task, truth) if truth is target else logits
        start = start.clone().requires_grad_()
        loss_of(name, task)(start, truth).backward()
        assert start.grad.isfinite().all()


@pytest.mark.parametrize(("name", "task"), [(name, task) for name, task, dims in CASES if dims == 2])
def test_half_precision_logits_are_judged_in_full(name, task):
    logits, target = example(task)
    logits = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss_of(name, task)(logits, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss_of(name, task)(logits.float(), target))


# Two cases of four voxels; probabilities 1/2 everywhere, so the soft counts are halves.
HALF = torch.zeros(2, 1, 2, 2)
TRUTH = torch.tensor([[[[1.0, 1], [0, 0]]], [[[0, 0], [0, 0]]]])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # Case 1: TP 1, FP 1, FN 1. Case 2: TP 0, FP 2, FN 0.
        ("dice", {"smooth": 1.0}, 1 - (3 / 5 + 1 / 3) / 2),
        ("dice_batch", {"smooth": 1.0}, 1 - 3 / 7),
        ("jaccard", {"smooth": 0.0}, 1 - (1 / 3 + 0) / 2),
        ("tversky", {"smooth": 0.0, "alpha": 0.3, "beta": 0.7}, 1 - (1 / 2 + 0) / 2),
        ("focal_tversky", {"smooth": 0.0, "alpha": 0.3, "beta": 0.7, "gamma": 2.0}, (0.5**2 + 1) / 2),
        ("bce", {}, math.log(2)),
        ("dice_bce", {"smooth": 1.0}, 1 - (3 / 5 + 1 / 3) / 2 + math.log(2)),
        ("focal", {"gamma": 2.0}, 0.25 * math.log(2)),
    ],
)
def test_binary_losses_by_hand(name, options, expected):
    assert loss_of(name, "binary", options=options)(HALF, TRUTH).item() == pytest.approx(expected, abs=1e-6)


def test_the_boundary_loss_by_hand():
    # Tumor in the middle three of seven voxels: two voxels from its edge inside, one and two outside.
    truth = torch.tensor([[[[0.0, 0, 1, 1, 1, 0, 0]]]])
    distance = torch.tensor([2.0, 1, 0, -1, 0, 1, 2])
    loss = loss_of("boundary", "binary")
    assert loss(torch.zeros(1, 1, 1, 7), truth).item() == pytest.approx(float((distance * (0.5 - truth)).mean()))
    far, near = (sure("binary", truth + torch.eye(7)[k]) for k in (0, 1))
    assert loss(far, truth).item() == pytest.approx(2 / 7)
    assert loss(near, truth).item() == pytest.approx(1 / 7)
    assert loss(near, torch.zeros_like(truth)) == 0  # no boundary, nothing to say


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_boundary_loss_has_the_gradient_of_monais(task):
    from monai.losses import BoundaryLoss

    how = {"softmax": True, "to_onehot_y": True} if task == "multiclass" else {"sigmoid": True}
    theirs = BoundaryLoss(include_background=task != "multiclass", **how)
    logits, target = example(task)
    gradients = []
    for loss, truth in ((loss_of("boundary", task), target), (theirs, target[:, None] if target.dim() < 4 else target)):
        start = logits.clone().requires_grad_()
        loss(start, truth).backward()
        gradients.append(start.grad)
    torch.testing.assert_close(*gradients)


def test_multiclass_losses_by_hand():
    logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]])
    assert loss_of("cross_entropy", "multiclass")(logits, target).item() == pytest.approx(math.log(2))
    assert loss_of("focal", "multiclass")(logits, target).item() == pytest.approx(math.log(2) / 4)
    # Background: TP 1.5, FP .5, FN 1.5; tumor: TP .5, FP 1.5, FN .5.
    both = 1 - (3 / 5 + 1 / 3) / 2
    assert loss_of("dice", "multiclass", options={"smooth": 0.0})(logits, target).item() == pytest.approx(both)
    tumor = loss_of("dice", "multiclass", options={"smooth": 0.0, "include_background": False})
    assert tumor(logits, target).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_overlap_losses_agree_with_monai(task, dims):
    from monai import losses as monai

    how = {"softmax": True, "to_onehot_y": True} if task == "multiclass" else {"sigmoid": True}
    logits, target = example(task, dims)
    theirs_target = target[:, None] if task == "multiclass" else target
    smooth = {"smooth_nr": 1.0, "smooth_dr": 1.0}
    half = {"smooth_nr": 0.5, "smooth_dr": 0.5}  # its Tversky index counts TP once, ours twice
    pairs = {
        "dice": monai.DiceLoss(**how, **smooth),
        "dice_batch": monai.DiceLoss(**how, **smooth, batch=True),
        "tversky": monai.TverskyLoss(**how, **half, alpha=0.3, beta=0.7),
    }
    for name, theirs in pairs.items():
        torch.testing.assert_close(loss_of(name, task)(logits, target), theirs(logits, theirs_target), msg=name)
    unsmoothed = loss_of("jaccard", task, options={"smooth": 0.0})(logits, target)
    theirs = monai.DiceLoss(**how, jaccard=True, smooth_nr=0, smooth_dr=0)(logits, theirs_target)
    torch.testing.assert_close(unsmoothed, theirs)


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dims", [2, 3])
def test_cross_entropy_that_repeats_on_gpus_is_pytorchs_with_its_gradient(dims, smoothing, weights):
    logits, labels = example("multiclass", dims)
    logits.requires_grad_()
    of_classes = None if weights is None else torch.tensor(weights)
    ours = gathered_entropy(logits, labels, of_classes, smoothing)
    theirs = torch.nn.functional.cross_entropy(logits, labels, of_classes, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("name", ["cross_entropy", "dice_ce", "focal"])
def test_losses_of_classes_are_the_same_where_they_must_repeat(name, monkeypatch):
    logits, labels = example("multiclass")
    usual = loss_of(name, "multiclass")(logits, labels)
    monkeypatch.setattr(criteria, "_must_repeat", lambda _: True)
    monkeypatch.setattr(criteria.functional, "cross_entropy", None)
    torch.testing.assert_close(loss_of(name, "multiclass")(logits, labels), usual)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_focal_agrees_with_monai(task):
    from monai.losses import FocalLoss

    logits, target = example(task)
    torch.testing.assert_close(loss_of("focal", task)(logits, target), FocalLoss(gamma=2.0)(logits, target))


def test_dice_over_the_batch_agrees_with_smp():
    from segmentation_models_pytorch.losses import DiceLoss

    logits, target = example("binary")
    torch.testing.assert_close(
        loss_of("dice_batch", "binary", options={"smooth": 0.0})(logits, target), DiceLoss("binary")(logits, target)
    )


def test_jaccard_follows_from_dice():
    logits, target = example("binary", batch=1)
    dice, jaccard = (
        1 - loss_of(name, "binary", options={"smooth": 0.0})(logits, target) for name in ("dice", "jaccard")
    )
    torch.testing.assert_close(jaccard, dice / (2 - dice))


@pytest.mark.parametrize("name", ["focal", "focal_tversky"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_root_of_a_perfect_answer_has_a_finite_slope(name, task):
    _, target = example(task)
    logits = (sure(task, target) * 10).requires_grad_()
    loss_of(name, task, options={"gamma": 0.5})(logits, target).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": -1}),
        ("focal", {"gamma": float("nan")}),
        ("focal", {"gamma": "2"}),
        ("focal", {"gamma": True}),
        ("dice", {"smooth": -1}),
        ("dice", {"include_background": 1}),
        ("tversky", {"alpha": float("inf")}),
        ("cross_entropy", {"label_smoothing": 1.5}),
    ],
)
def test_the_value_of_an_option_is_checked_when_it_is_read(name, options):
    (option,) = options
    with pytest.raises(ValidationError, match=f"option {option} of loss {name} must be"):
        LossSettings(name=name, options=options)


def test_a_weighted_sum_is_the_sum_of_its_terms():
    logits, target = example("binary")
    terms = [{"name": "dice", "weight": 0.3}, {"name": "bce", "weight": 2.0}]
    both = build_loss(LossSettings(terms=terms), task="binary")(logits, target)
    alone = [loss_of(term["name"], "binary")(logits, target) for term in terms]
    torch.testing.assert_close(both, 0.3 * alone[0] + 2.0 * alone[1])


def test_class_weights_favor_their_class():
    logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]])
    logits[:, 1] = -2
    for name in ("cross_entropy", "focal", "dice"):
        even, tumor = (loss_of(name, "multiclass", class_weights=w)(logits, target) for w in ((1.0, 1.0), (1.0, 10.0)))
        assert tumor > even, name


def test_a_target_of_the_wrong_shape_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 1, 12, 10\) must have the shape \(2, 1, 12, 10\); got \(2, 12, 10\)"):
        loss_of("dice", "binary")(torch.zeros(2, 1, 12, 10), torch.zeros(2, 12, 10))


def test_a_loss_of_another_task_lists_those_that_fit():
    with pytest.raises(UserError, match=r"bce is not defined for a multiclass task; choose one of: .*cross_entropy"):
        loss_of("bce", "multiclass")


def test_class_weights_are_one_for_each_output_with_or_without_the_background_that_is_left_out():
    LossSettings(name="dice_bce", class_weights=[2]).check("binary", 1)
    with pytest.raises(UserError, match=r"class_weights must have 1 value, one for each output; got \[1\.0, 10\.0\]"):
        LossSettings(name="dice_bce", class_weights=[1, 10]).check("binary", 1)
    with pytest.raises(UserError, match=r"must have 3 values, one for each class, the background first"):
        LossSettings(terms=[{"name": "dice_ce", "class_weights": [1, 10]}]).check("multiclass", 3)
    logits, target = torch.zeros(1, 3, 1, 4), torch.tensor([[[0, 0, 2, 1]]])
    options = {"include_background": False}
    values = []
    for weights in ((5.0, 1.0, 2.0), (1.0, 2.0)):
        LossSettings(name="dice", class_weights=weights, options=options).check("multiclass", 3)
        values.append(loss_of("dice", "multiclass", class_weights=weights, options=options)(logits, target))
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "dise"}, r"unknown loss 'dise'; did you mean dice\? Choose one of: bce"),
        ({"name": "dice", "options": {"smoth": 1}}, r"unknown option of dice 'smoth'.*smooth"),
        ({"name": "dice", "terms": [{"name": "bce"}]}, "either terms, or a name"),
        ({"terms": [{"name": "dise"}]}, "unknown loss 'dise'"),
        ({"name": "lovasz", "class_weights": [1, 2]}, "does not take class_weights"),
        ({"name": "dice", "class_weights": [1, -1]}, "class_weights must be at least 0"),
        ({"name": "dice", "class_weights": [0, 0]}, "class_weights must be at least 0"),
        ({"name": "tversky", "options": {"alpha": 0, "beta": 0}}, "must not both be 0"),
        ({"name": "focal_tversky", "options": {"gamma": 0}}, "gamma of loss focal_tversky must be above 0"),
        ({"name": "generalized_dice", "options": {"smooth": 0}}, "must be above 0"),
    ],
)
def test_a_loss_that_makes_no_sense_is_refused(settings, expected):
    with pytest.raises(ValidationError, match=expected):
        LossSettings(**settings)
