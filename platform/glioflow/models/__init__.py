"""Networks and losses by name. Lists its names without importing torch."""

from glioflow.models.losses import build_loss
from glioflow.models.networks import build_network
from glioflow.models.registry import ARCHITECTURES, LOSSES, Architecture
from glioflow.models.settings import LossSettings, LossTerm, ModelSettings

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "LOSSES",
    "LossSettings",
    "LossTerm",
    "ModelSettings",
    "build_loss",
    "build_network",
]
