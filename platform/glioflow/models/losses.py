"""How each loss in `registry.LOSSES` is built. Imports torch only to build.

What is one formula of torch is written in `criteria`, since MONAI takes seconds to import in every worker and brings
MLflow with it; tests hold those against MONAI and smp.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glioflow.errors import UserError
from glioflow.models.registry import LOSSES, Task
from glioflow.models.settings import LossSettings, LossTerm

if TYPE_CHECKING:
    from torch import nn

ClassWeights = tuple[float, ...] | None


def _monai(task: Task) -> dict[str, bool]:
    """Return MONAI's options for logits, and for labels that are numbers where the task is multiclass."""
    return {"softmax": True, "to_onehot_y": True} if task == "multiclass" else {"sigmoid": True}


def _overlap(**fixed: Any) -> Callable[..., "nn.Module"]:
    def build(*, task: Task, class_weights: ClassWeights, **options: Any) -> "nn.Module":
        from glioflow.models.criteria import Overlap

        return Overlap(task, class_weights, **fixed, **options)

    return build


def _bce(*, task: Task, class_weights: ClassWeights) -> "nn.Module":
    from glioflow.models.criteria import BinaryCrossEntropy

    return BinaryCrossEntropy(class_weights)


def _cross_entropy(*, task: Task, class_weights: ClassWeights, label_smoothing: float) -> "nn.Module":
    from glioflow.models.criteria import CrossEntropy

    return CrossEntropy(class_weights, label_smoothing=label_smoothing)


def _sum_of(*names: str) -> Callable[..., "nn.Module"]:
    """Return the builder of an even sum of two losses; the options of the first, the Dice, are the sum's."""

    def build(*, task: Task, class_weights: ClassWeights, **options: Any) -> "nn.Module":
        from glioflow.models.criteria import WeightedSum

        dice, entropy = names
        first = BUILDERS[dice](task=task, class_weights=class_weights, **options)
        second = BUILDERS[entropy](task=task, class_weights=class_weights, **LOSSES[entropy].options)
        return WeightedSum([(1.0, first), (1.0, second)])

    return build


def _focal(*, task: Task, class_weights: ClassWeights, gamma: float) -> "nn.Module":
    from glioflow.models.criteria import Focal

    return Focal(task, class_weights, gamma=gamma)


def _lovasz(*, task: Task, class_weights: ClassWeights, per_image: bool) -> "nn.Module":
    from glioflow.models.criteria import Lovasz

    return Lovasz(task, per_image=per_image)


def _generalized_dice(*, task: Task, class_weights: ClassWeights, smooth: float, batch: bool) -> "nn.Module":
    from monai.losses import GeneralizedDiceLoss

    return GeneralizedDiceLoss(smooth_nr=smooth, smooth_dr=smooth, batch=batch, **_monai(task))


def _hausdorff(*, task: Task, class_weights: ClassWeights, alpha: float) -> "nn.Module":
    from monai.losses import HausdorffDTLoss

    return HausdorffDTLoss(alpha=alpha, include_background=task != "multiclass", **_monai(task))


def _boundary(*, task: Task, class_weights: ClassWeights) -> "nn.Module":
    from glioflow.models.criteria import Boundary

    return Boundary(task)


BUILDERS: dict[str, Callable[..., "nn.Module"]] = {
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


def build_loss(settings: LossSettings, *, task: Task) -> "nn.Module":
    """Build the loss that an experiment names.

    Args:
        settings: One loss, or the terms of a weighted sum.
        task: `binary` (K = 1) and `multilabel` take a target (B, K, ...) of zeros and ones; `multiclass` takes labels
            (B, ...) in 0..K-1.

    Returns:
        A module from logits (B, K, ...), 2D or 3D, and target to a scalar; in float32 even under autocast.

    Raises:
        UserError: If a loss is not defined for the task.
    """
    from glioflow.models.criteria import Criterion, WeightedSum

    settings.check(task)
    terms = settings.summands
    if len(terms) == 1 and terms[0].weight == 1:
        loss = _build_term(terms[0], task)
    else:
        loss = WeightedSum([(term.weight, _build_term(term, task)) for term in terms])
    return Criterion(loss, task=task, on_device=all(LOSSES[term.name].on_device for term in terms))


def _build_term(term: LossTerm, task: Task) -> "nn.Module":
    loss = LOSSES[term.name]
    try:
        return BUILDERS[term.name](task=task, class_weights=term.class_weights, **{**loss.options, **term.options})
    except (TypeError, ValueError) as error:
        raise UserError(f"loss {term.name} with options {term.options} cannot be built: {error}") from error
