"""The modules of the losses, and the wrapper around every loss. Takes only tensors; independent of settings."""

# mypy: disallow-subclassing-any=False

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from glioflow.models.registry import Task


class Criterion(nn.Module):
    """Wrapper of any loss: computes in float32 even under autocast, with the target in the library's shape.

    Attributes:
        on_device: As in `registry.Loss`, for all terms.
    """

    def __init__(self, loss: nn.Module, *, task: Task, on_device: bool = True) -> None:
        super().__init__()
        self.loss = loss
        self.task = task
        self.on_device = on_device

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of logits (B, K, ...) against labels (B, ...) or zeros and ones (B, K, ...)."""
        multiclass = self.task == "multiclass"
        expected = (logits.shape[0], *logits.shape[2:]) if multiclass else logits.shape
        if target.shape != expected:
            rule = f"a {self.task} target for logits {tuple(logits.shape)} must have the shape {tuple(expected)}"
            raise ValueError(f"{rule}; got {tuple(target.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            shaped = target.unsqueeze(1).long() if multiclass else target.float()
            value: Tensor = self.loss(logits.float(), shaped)
        return value


class WeightedSum(nn.Module):
    """Weighted sum of losses."""

    def __init__(self, terms: Iterable[tuple[float, nn.Module]]) -> None:
        super().__init__()
        pairs = list(terms)
        self.weights = [weight for weight, _ in pairs]
        self.losses = nn.ModuleList(loss for _, loss in pairs)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum."""
        values = [weight * loss(logits, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(values).sum()


class _Weighted(nn.Module):
    """A loss with a weight per class or output, or none."""

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def _per_output(self, dims: int) -> Tensor | None:
        """Return the weights with `dims` axes, classes along the second."""
        return None if self.class_weights is None else self.class_weights.reshape(1, -1, *[1] * (dims - 2))


class BinaryCrossEntropy(_Weighted):
    """Mean binary cross-entropy; the weights multiply the tumor voxels of each output."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over everything."""
        weights = self._per_output(logits.dim())
        return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)


class CrossEntropy(_Weighted):
    """Mean categorical cross-entropy against labels (B, 1, ...)."""

    def __init__(self, class_weights: Sequence[float] | None, *, label_smoothing: float) -> None:
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted mean over everything."""
        labels, smoothing = target.squeeze(1), self.label_smoothing
        if _must_repeat(logits):
            return gathered_entropy(logits, labels, self.class_weights, smoothing)
        return functional.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=smoothing)


def _must_repeat(logits: Tensor) -> bool:
    """Return whether PyTorch would refuse its cross-entropy, which has no deterministic form on a GPU."""
    return bool(logits.is_cuda and torch.are_deterministic_algorithms_enabled())


def gathered_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the result of `functional.cross_entropy`, up to rounding, by deterministic operations."""
    logs = logits.log_softmax(1)
    if class_weights is None:
        class_weights = logs.new_ones(logs.shape[1])
    weighted = logs * class_weights.reshape(1, -1, *[1] * (logs.dim() - 2))
    right, total = weighted.gather(1, labels[:, None]).sum(), class_weights[labels].sum()
    return -((1 - label_smoothing) * right + label_smoothing / logs.shape[1] * weighted.sum()) / total


class Focal(_Weighted):
    """Mean of cross-entropy times (1 - p) ** gamma, with p the probability of the true class.

    The weights multiply the voxels of each true class (multiclass), or all voxels of each output.

    Source: Lin et al. 2017.
    """

    def __init__(self, task: Task, class_weights: Sequence[float] | None, *, gamma: float) -> None:
        super().__init__(class_weights)
        self.multiclass = task == "multiclass"
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over all voxels."""
        if self.multiclass:
            if _must_repeat(logits):
                entropy = -logits.log_softmax(1).gather(1, target).squeeze(1)
            else:
                entropy = functional.cross_entropy(logits, target.squeeze(1), reduction="none")
            weights = 1.0 if self.class_weights is None else self.class_weights[target.squeeze(1)]
        else:
            entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            weights = 1.0 if self.class_weights is None else self._per_output(logits.dim())
        wrong = -torch.expm1(-entropy)
        if self.gamma < 1:  # the power has an infinite slope at 0, which a certain and correct voxel reaches
            wrong = wrong.clamp_min(1e-6)
        return (wrong**self.gamma * entropy * weights).mean()


class Overlap(_Weighted):
    """Mean of (1 - Tversky index) ** gamma over cases (or of the batch as one) and outputs.

    The index is (2 TP + s) / (2 TP + 2 alpha FP + 2 beta FN + s) of soft counts: Dice at 0.5 and 0.5, Jaccard at 1 and
    1, so that `smooth` s is that of the usual Dice loss.

    Source: Milletari 2016 (Dice), Salehi 2017 (Tversky), Abraham and Khan 2018 (focal; their 4/3 is 1 / gamma here).
    """

    def __init__(
        self,
        task: Task,
        class_weights: Sequence[float] | None,
        *,
        smooth: float,
        include_background: bool,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        batch: bool = False,
    ) -> None:
        super().__init__(class_weights)
        self.multiclass = task == "multiclass"
        self.first = 1 if self.multiclass and not include_background else 0
        self.smooth, self.alpha, self.beta, self.gamma = smooth, alpha, beta, gamma
        self.batch = batch

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean."""
        probability, target = _compared(logits, target, multiclass=self.multiclass)
        probability, target = probability[:, self.first :], target[:, self.first :]
        axes = [axis for axis in range(logits.dim()) if axis > 1 or (self.batch and axis == 0)]
        hits = (probability * target).sum(axes)
        false_alarms, misses = probability.sum(axes) - hits, target.sum(axes) - hits
        top = 2 * hits + self.smooth
        bottom = top + 2 * self.alpha * false_alarms + 2 * self.beta * misses
        loss = 1 - top / bottom.clamp_min(1e-7)
        if self.gamma != 1:
            # The power has an infinite slope at 0, which a perfectly segmented case reaches.
            loss = loss.clamp_min(1e-6) ** self.gamma
        # Weights may include the background even if it is excluded from the loss.
        return (loss if self.class_weights is None else loss * self.class_weights[-loss.shape[1] :]).mean()


class Boundary(nn.Module):
    """Mean of the signed distance (voxels) to the true boundary times the error of the probability.

    That is the boundary loss minus its constant value for the truth, so that the truth has loss 0. An
    output that is empty or full in a case has no boundary and counts 0 there, so combine it with a Dice loss.

    Source: Kervadec et al. 2019.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        from monai.losses import BoundaryLoss

        self.multiclass = task == "multiclass"
        self.distances = BoundaryLoss().compute_distance_map

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over everything except the background class."""
        probability, target = _compared(logits, target, multiclass=self.multiclass)
        first = 1 if self.multiclass else 0
        error: Tensor = (probability - target)[:, first:]
        return (self.distances(target[:, first:]) * error).mean()


def _compared(logits: Tensor, target: Tensor, *, multiclass: bool) -> tuple[Tensor, Tensor]:
    """Return probabilities and truth as zeros and ones, both (B, K, ...)."""
    if not multiclass:
        return logits.sigmoid(), target
    probability = logits.softmax(1)
    return probability, torch.zeros_like(probability).scatter_(1, target, 1.0)


class Lovasz(nn.Module):
    """smp's Lovasz loss, separately for each output if they overlap; also for volumes."""

    def __init__(self, task: Task, *, per_image: bool) -> None:
        from segmentation_models_pytorch.losses import LovaszLoss  # takes seconds

        super().__init__()
        self.multiclass = task == "multiclass"
        self.loss = LovaszLoss("multiclass" if self.multiclass else "binary", per_image=per_image)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the outputs (binary, multilabel) or the classes present (multiclass)."""
        if self.multiclass:
            value: Tensor = self.loss(logits.flatten(2).unsqueeze(-1), target.flatten(1).unsqueeze(-1))
            return value
        return torch.stack([self.loss(logits[:, k], target[:, k]) for k in range(logits.shape[1])]).mean()
