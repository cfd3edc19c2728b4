"""Construction of the loss from an experiment's settings. Imports torch only to build."""

from typing import TYPE_CHECKING

from glioflow.models.registry import LOSSES, Task
from glioflow.models.settings import LossSettings

if TYPE_CHECKING:
    from torch import nn


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
    from glioflow.models.loss_builders import build_term

    settings.check(task)
    terms = settings.summands
    if len(terms) == 1 and terms[0].weight == 1:
        loss = build_term(terms[0], task)
    else:
        loss = WeightedSum([(term.weight, build_term(term, task)) for term in terms])
    return Criterion(loss, task=task, on_device=all(LOSSES[term.name].on_device for term in terms))
