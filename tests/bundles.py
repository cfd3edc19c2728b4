"""A tiny experiment, and bundles of made-up origin, for tests."""

from typing import Any

import torch
from torch import Tensor, nn

from glioflow import bundle
from glioflow.config import Experiment

# Said once for every test: small enough that a network trains in a second.
TINY: dict[str, Any] = {
    "name": "tiny",
    "preprocess": [{"step": "unit"}, {"step": "resize", "size": 32}],
    "split": {"method": "counts", "counts": [4, 2, 2]},
    "model": {"architecture": "buda-unet", "options": {"features": [8, 8, 16, 16, 16]}},
    "training": {"epochs": 2, "steps_per_epoch": 2, "batch_size": 4, "precision": "fp32"},
    "gate": {"min_patients": 2},
}

ORIGIN = bundle.Origin(
    experiment="tiny",
    cohort_format="lgg",
    fingerprint="f",
    source_fingerprint="s",
    split="d",
    test="t",
    num_patients={"train": 4, "val": 2, "test": 2},
    fitted_on={"weights": "train"},
    created="2026-01-01T00:00:00+00:00",
)


def describe(experiment: Experiment, **values: Any) -> bundle.Description:
    """Return the description of a model of `experiment` for LGG's channels, with `values` put in."""
    settings: dict[str, Any] = {
        "postprocess": experiment.postprocess,
        "channels": ("pre", "flair", "post"),
        "network_channels": ("pre", "flair", "post"),
        "origin": ORIGIN,
        "num_parameters": 1,
    }
    return bundle.describe(experiment, **{**settings, **values})


def changed(experiment: Experiment, **sections: Any) -> Experiment:
    """Return the experiment with whole sections replaced."""
    return Experiment.model_validate({**experiment.model_dump(mode="json"), **sections})


class Bright(nn.Module):
    """A network whose logit is high where a channel is bright."""

    def __init__(self, channel: int = 1, above: float = 0.5) -> None:
        super().__init__()
        self.channel, self.above = channel, above
        self.device = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return 100 * (images[:, self.channel : self.channel + 1] - self.above)
