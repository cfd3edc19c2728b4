"""Construction of the network from an experiment's settings. Imports torch only to build."""

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from glioflow.errors import UserError, one_line
from glioflow.models.registry import ARCHITECTURES
from glioflow.models.settings import ModelSettings
from glioflow.models.weights import SCALINGS, load_into_encoder, read_weights, scaling_of

if TYPE_CHECKING:
    from glioflow.models.network import Network

_log = logging.getLogger(__name__)


def build_network(
    settings: ModelSettings, *, in_channels: int, num_outputs: int, load_weights: bool = True
) -> "Network":
    """Build the network that an experiment names.

    Args:
        settings: Architecture, encoder, weights, frozen parts.
        in_channels: C of the input (B, C, H, W) or (B, C, D, H, W); float, unit range or z-scored.
        num_outputs: K of the logits (B, K, ...): classes, regions, or 1.
        load_weights: False if a state dict, which has the input scaling, will be loaded: nothing is fetched.

    Returns:
        A module from images to logits of the same spatial size, for any size.

    Raises:
        UserError: If encoder, weights and architecture are incompatible, or the weights are not found.
    """
    from glioflow.models import architectures
    from glioflow.models.network import Network

    settings = settings.resolved
    architecture = ARCHITECTURES[settings.architecture]
    weights = settings.weights
    from_file = weights is not None and weights != "imagenet"
    state, digest = read_weights(str(weights)) if from_file and load_weights else ({}, None)
    arguments = {key: value for key, value in architecture.options.items() if value is not None} | settings.options
    if architecture.uses_encoder:
        arguments |= _encoder_arguments(settings, state) if load_weights else {"encoder_weights": None}
    try:
        body = architectures.BUILDERS[settings.architecture](
            settings.encoder, in_channels=in_channels, num_outputs=num_outputs, **arguments
        )
        scaling = None if weights is None or not load_weights else scaling_of(settings, digest=digest)
    except OSError as error:
        raise UserError(
            f"the imagenet weights of {settings.encoder} are neither on huggingface.co nor in its cache ($HF_HOME)",
            hint="set model.weights to a file, or to null for random weights",
        ) from error
    except (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError, AssertionError) as error:
        named = f"{settings.architecture} on encoder {settings.encoder} with options {settings.options}"
        raise UserError(f"{named} cannot be built: {one_line(error, most=1000)}") from error
    if state:
        load_into_encoder(
            body.encoder, state, name=str(settings.encoder), in_channels=in_channels, source=settings.weights
        )
    if settings.freeze != "none" and weights is None:
        _log.warning("model.freeze: %s freezes random weights, because model.weights is null", settings.freeze)
    if weights is not None and not load_weights and settings.input_scaling != "none":
        scaling = SCALINGS["imagenet"]  # of the right shape; the state dict has the values
    halvings = len(arguments["features"]) - 1 if "features" in arguments else None
    own = architecture.multiple if halvings is None else 2**halvings
    multiple = math.lcm(own, getattr(getattr(body, "encoder", None), "output_stride", 1))
    minimum = architecture.least * multiple
    network = Network(body, multiple=multiple, minimum=minimum, in_channels=in_channels, scaling=scaling)
    network.freeze(settings.freeze)
    return network


def _encoder_arguments(settings: ModelSettings, state: Mapping[str, object]) -> dict[str, object]:
    """Return the keywords that make smp fetch the encoder's weights, or timm load `state`."""
    of_timm = str(settings.encoder).startswith("tu-")
    if settings.weights == "imagenet":
        return {"encoder_weights": True if of_timm else "imagenet"}
    if state and of_timm:
        return {"encoder_weights": True, "pretrained_cfg_overlay": {"state_dict": state}}
    return {"encoder_weights": None}
