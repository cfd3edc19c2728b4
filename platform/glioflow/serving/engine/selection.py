"""Choice of the fastest computation on this machine whose answer to the golden study agrees with fp32."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from glioflow.bundle.prediction import Prediction
from glioflow.errors import UserError
from glioflow.evaluation import dice_per_case
from glioflow.evaluation.settings import Precision
from glioflow.models import ARCHITECTURES
from glioflow.promotion.golden import golden_difference, golden_study, numbers_of
from glioflow.serving.engine.batching import BatchedPredictor

if TYPE_CHECKING:
    import torch

# Limits for a faster computation against fp32 on the golden study; the last is the mean change of voxel probability.
MIN_DICE, MAX_VOLUME_CHANGE, MAX_PROBABILITY_CHANGE = 0.995, 0.01, 0.01
# Limit for this machine against the one where the version was registered, in fp32.
MAX_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Engine:
    """Settings of a version's computation.

    Attributes:
        runtime: `torch` or `openvino`.
        device: Device, as torch names it.
        precision: Precision of the forward pass.
        memory_format: Memory format of the weights.
        passed_over: Faster settings that were rejected, and why.
        dice_to_fp32: Between the masks of this precision and of fp32; None where the model does not take the golden
            study, and fp32 is kept.
    """

    runtime: str
    device: str
    precision: str
    memory_format: str
    dice_to_fp32: float | None
    passed_over: dict[str, str] = field(default_factory=dict)


def choose_engine(predictor: BatchedPredictor, recorded: Mapping[str, Any] | None = None) -> Engine:
    """Warm a predictor up on the golden study, check its answer, and switch to its fastest computation.

    Args:
        predictor: Without a batcher.
        recorded: Result of `golden_answer` at the version's registration.

    Raises:
        UserError: If the answer is not finite, not of the study's shape, or differs from the recorded one.
    """
    import torch

    network = predictor.network
    device = next(network.parameters()).device
    planar = ARCHITECTURES[predictor.description.model.architecture].dims == 2
    if planar:
        network.to(memory_format=torch.channels_last)
    layout = "channels_last" if planar else "contiguous"
    predictor.precision = "fp32"
    exact = _ask(predictor, recorded)
    passed_over: dict[str, str] = {}
    for runtime, precision in _faster(device, planar):
        if exact is None:
            break
        try:
            predictor.precision = precision
            predictor.network = _compiled(network, precision) if runtime == "openvino" else network
            fast = _ask(predictor, None)
            dice = None if fast is None else _same(exact, fast)
        except Exception as error:  # not installed, or an unsupported layer
            passed_over[f"{runtime} {precision}"] = type(error).__name__
            continue
        if dice is not None:
            if runtime == "openvino":
                _get_ready(predictor)
            return Engine(runtime, str(device), precision, layout, round(dice, 5), passed_over)
        passed_over[f"{runtime} {precision}"] = "its masks differ from those of fp32"
    predictor.network, predictor.precision = network, "fp32"
    return Engine("torch", str(device), "fp32", layout, None if exact is None else 1.0, passed_over)


def _get_ready(predictor: BatchedPredictor) -> None:
    """Compute one slice of each size of the training images, since compiling a new size takes seconds."""
    for size in predictor.description.input_sizes:
        predictor.probabilities(np.zeros((1, *size, len(predictor.description.network_channels)), np.float32))


def _faster(device: "torch.device", planar: bool) -> Iterator[tuple[str, Precision]]:
    """Yield settings that may be faster than torch in fp32, the fastest first (benchmarks/serving.md)."""
    from glioflow.evaluation.inference import resolve_precision

    fastest = resolve_precision("auto", device)
    compiles = planar and device.type == "cpu"
    if compiles and fastest == "bf16":
        yield "openvino", "bf16"
    if fastest != "fp32":
        yield "torch", fastest
    if compiles:
        yield "openvino", "fp32"


def _compiled(network: "torch.nn.Module", precision: Precision) -> "torch.nn.Module":
    from glioflow.serving.engine.compiled_network import Compiled

    return Compiled(network, "bf16" if precision == "bf16" else "fp32")


def _ask(predictor: BatchedPredictor, recorded: Mapping[str, Any] | None) -> Prediction | None:
    case = golden_study(predictor.description)
    try:
        answer = predictor.predict(case, made_up=True)
    except UserError:
        if recorded is not None and "refused" not in recorded:
            raise
        return None
    probability = answer.segmentation.probability
    if answer.segmentation.labels.shape != case.shape or probability.shape[:3] != case.shape:
        raise UserError("a version must answer the golden study in its shape", answer.segmentation.labels.shape)
    if not np.isfinite(probability).all() or probability.min() < 0 or probability.max() > 1 + 1e-4:
        raise UserError("a version must answer the golden study with finite probabilities from 0 to 1")
    if answer.survival is not None and not np.isfinite(answer.survival.risk_score):
        raise UserError("a version must answer the golden study with a finite risk", answer.survival.risk_score)
    if recorded is not None:
        difference = golden_difference(dict(recorded), numbers_of(answer))
        if difference > MAX_DIFFERENCE:
            rule = f"a version must answer the golden study as when it was registered, to {MAX_DIFFERENCE:.0%}"
            raise UserError(rule, f"a difference of {difference:.1%}")
    return answer


def _same(exact: Prediction, fast: Prediction) -> float | None:
    """Return Dice between the two masks; None if they or the probabilities differ too much."""
    one, other = exact.segmentation.labels > 0, fast.segmentation.labels > 0
    sizes = int(one.sum()), int(other.sum())
    dice = dice_per_case(one, other)
    change = float(np.abs(exact.segmentation.probability - fast.segmentation.probability).mean())
    near = abs(sizes[0] - sizes[1]) <= MAX_VOLUME_CHANGE * sizes[0] and change <= MAX_PROBABILITY_CHANGE
    return dice if dice >= MIN_DICE and near else None
