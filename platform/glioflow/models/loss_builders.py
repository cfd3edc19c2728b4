"""Builders of the losses in `registry.LOSSES`.

Losses that are one formula in torch are in `criteria`; tests compare them with MONAI and smp.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from glioflow.errors import UserError
from glioflow.models.criteria import (
    BinaryCrossEntropy,
    Boundary,
    CrossEntropy,
    Focal,
    Lovasz,
    Overlap,
    WeightedSum,
)
from glioflow.models.registry import LOSSES, Task
from glioflow.models.settings import LossTerm

ClassWeights = tuple[float, ...] | None


def _of_monai() -> Any:
    """Return MONAI's losses; imported only when needed, since the import takes seconds and loads MLflow."""
    from monai import losses

    return losses


def _monai_options(task: Task) -> dict[str, bool]:
    """Return MONAI's options for logits, and for integer labels if the task is multiclass."""
    return {"softmax": True, "to_onehot_y": True} if task == "multiclass" else {"sigmoid": True}


def _overlap(**fixed: Any) -> Callable[..., nn.Module]:
    def build(*, task: Task, class_weights: ClassWeights, **options: Any) -> nn.Module:
        return Overlap(task, class_weights, **fixed, **options)

    return build


def _bce(*, task: Task, class_weights: ClassWeights) -> nn.Module:
    return BinaryCrossEntropy(class_weights)


def _cross_entropy(*, task: Task, class_weights: ClassWeights, label_smoothing: float) -> nn.Module:
    return CrossEntropy(class_weights, label_smoothing=label_smoothing)


def _sum_of(*names: str) -> Callable[..., nn.Module]:
    """Return the builder of an equal sum of two losses, whose options are those of the first, the Dice."""

    def build(*, task: Task, class_weights: ClassWeights, **options: Any) -> nn.Module:
        dice, entropy = names
        first = BUILDERS[dice](task=task, class_weights=class_weights, **options)
        second = BUILDERS[entropy](task=task, class_weights=class_weights, **LOSSES[entropy].options)
        return WeightedSum([(1.0, first), (1.0, second)])

    return build


def _focal(*, task: Task, class_weights: ClassWeights, gamma: float) -> nn.Module:
    return Focal(task, class_weights, gamma=gamma)


def _lovasz(*, task: Task, class_weights: ClassWeights, per_image: bool) -> nn.Module:
    return Lovasz(task, per_image=per_image)


def _generalized_dice(*, task: Task, class_weights: ClassWeights, smooth: float, batch: bool) -> nn.Module:
    return _of_monai().GeneralizedDiceLoss(smooth_nr=smooth, smooth_dr=smooth, batch=batch, **_monai_options(task))


def _hausdorff(*, task: Task, class_weights: ClassWeights, alpha: float) -> nn.Module:
    return _of_monai().HausdorffDTLoss(alpha=alpha, include_background=task != "multiclass", **_monai_options(task))


def _boundary(*, task: Task, class_weights: ClassWeights) -> nn.Module:
    return Boundary(task)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "dice": _overlap(),
    "dice_batch": _overlap(batch=True),
    "jaccard": _overlap(alpha=1.0, beta=1.0),
    "tversky": _overlap(),
    "focal_tversky": _overlap(),
    "bce": _bce,
    "cross_entropy": _cross_entropy,
    "dice_bce": _sum_of("dice", "bce"),
    "dice_ce": _sum_of("dice", "cross_entropy"),
    "focal": _focal,
    "lovasz": _lovasz,
    "generalized_dice": _generalized_dice,
    "hausdorff": _hausdorff,
    "boundary": _boundary,
}


def build_term(term: LossTerm, task: Task) -> nn.Module:
    """Build one loss of a sum; raises `UserError` if it does not support its options."""
    loss = LOSSES[term.name]
    try:
        return BUILDERS[term.name](task=task, class_weights=term.class_weights, **{**loss.options, **term.options})
    except (TypeError, ValueError) as error:
        raise UserError(f"loss {term.name} with options {term.options} cannot be built: {error}") from error
