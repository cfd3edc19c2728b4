"""Learning-rate schedules by name, as factors of the peak rate by step."""

import math
from collections.abc import Callable

from glioflow.errors import unknown_name


def _cosine(part: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))


def _constant(part: float) -> float:
    return 1.0


def _polynomial(part: float) -> float:
    return float((1 - part) ** 0.9)


def _one_cycle(part: float) -> float:
    rise = 0.3
    return 0.04 + 0.96 * _cosine(1 - part / rise) if part < rise else _cosine((part - rise) / (1 - rise))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "constant": _constant,
    "polynomial": _polynomial,
    "one_cycle": _one_cycle,
}


def learning_rate_factor(name: str, *, step: int, num_steps: int, warmup_steps: int) -> float:
    """Return the factor in [0, 1] of the peak learning rate at `step` of `num_steps`, linear during the warm-up."""
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return SCHEDULES[name](min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps)))
