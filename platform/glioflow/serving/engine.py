"""How a version computes on this machine: the fastest way that answers the golden study as fp32 does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glioflow.errors import UserError
from glioflow.prediction import Prediction
from glioflow.promotion.golden import golden_difference, golden_study, numbers_of
from glioflow.serving.batching import BatchedPredictor

# Of a faster way of computing against fp32, on the golden study.
MIN_DICE, MAX_VOLUME_CHANGE = 0.995, 0.01
# Of this machine against the one where the version was registered, in fp32.
MAX_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Engine:
    """What was chosen.

    Attributes:
        device: Of torch.
        precision: Of the forward pass.
        memory_format: Of the weights.
        dice_to_fp32: Between the masks of this precision and of fp32; None where the model does not take the golden
            study, and fp32 is kept.
    """

    device: str
    precision: str
    memory_format: str
    dice_to_fp32: float | None


def choose_engine(predictor: BatchedPredictor, recorded: Mapping[str, Any] | None = None) -> Engine:
    """Warm a predictor up on the golden study, check its answer, and put it into its fastest way of computing.

    Args:
        predictor: Without a batcher.
        recorded: What `golden_answer` said when the version was registered.

    Raises:
        UserError: If the answer is not finite or not of the study's shape, or is another than the recorded one.
    """
    import torch

    from glioflow.evaluation.inference import resolve_precision
    from glioflow.models import ARCHITECTURES

    device = next(predictor.network.parameters()).device
    planar = ARCHITECTURES[predictor.description.model.architecture].dims == 2
    if planar:
        predictor.network.to(memory_format=torch.channels_last)
    layout = "channels_last" if planar else "contiguous"
    predictor.precision = "fp32"
    exact = _ask(predictor, recorded)
    fastest = resolve_precision("auto", device)
    if exact is None or fastest == "fp32":
        return Engine(str(device), "fp32", layout, None if exact is None else 1.0)
    predictor.precision = fastest
    fast = _ask(predictor, None)
    assert fast is not None
    dice = _same(exact, fast)
    if dice is None:
        predictor.precision, dice = "fp32", 1.0
    return Engine(str(device), predictor.precision, layout, round(dice, 5))


def _ask(predictor: BatchedPredictor, recorded: Mapping[str, Any] | None) -> Prediction | None:
    case = golden_study(predictor.description)
    try:
        answer = predictor.predict(case)
    except UserError:
        if recorded is not None and "refused" not in recorded:
            raise
        return None
    probability = answer.segmentation.probability
    if answer.segmentation.labels.shape != case.shape or probability.shape[:3] != case.shape:
        raise UserError("a version answers the golden study in its shape", answer.segmentation.labels.shape)
    if not np.isfinite(probability).all() or probability.min() < 0 or probability.max() > 1 + 1e-4:
        raise UserError("a version answers the golden study with finite probabilities", "others")
    if answer.survival is not None and not np.isfinite(answer.survival.risk_score):
        raise UserError("a version answers the golden study with a finite risk", answer.survival.risk_score)
    if recorded is not None:
        difference = golden_difference(dict(recorded), numbers_of(answer))
        if difference > MAX_DIFFERENCE:
            rule = f"a version answers the golden study as when it was registered, to {MAX_DIFFERENCE:.0%}"
            raise UserError(rule, f"a difference of {difference:.1%}")
    return answer


def _same(exact: Prediction, fast: Prediction) -> float | None:
    """Return Dice between the two masks, None where they differ too much."""
    one, other = exact.segmentation.labels > 0, fast.segmentation.labels > 0
    sizes = int(one.sum()), int(other.sum())
    dice = 2 * int((one & other).sum()) / sum(sizes) if sum(sizes) else 1.0
    return dice if dice >= MIN_DICE and abs(sizes[0] - sizes[1]) <= MAX_VOLUME_CHANGE * sizes[0] else None
