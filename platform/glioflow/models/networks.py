"""How each network in `registry.ARCHITECTURES` is built. Imports torch only to build."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from glioflow.errors import UserError
from glioflow.models.registry import ARCHITECTURES
from glioflow.models.settings import ModelSettings

if TYPE_CHECKING:
    from torch import nn

    from glioflow.models.network import Network

_log = logging.getLogger(__name__)

# Our name to the class of segmentation-models-pytorch.
_SMP = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "pan": "PAN",
    "upernet": "UPerNet",
    "segformer": "Segformer",
    "dpt": "DPT",
}


def _smp_builder(class_name: str) -> Any:
    def build(encoder: str, *, in_channels: int, num_outputs: int, **options: Any) -> "nn.Module":
        import segmentation_models_pytorch as smp

        if class_name == "DPT":
            options["dynamic_img_size"] = True
        network: nn.Module = getattr(smp, class_name)(
            encoder_name=encoder, in_channels=in_channels, classes=num_outputs, **options
        )
        return network

    return build


def _fcn32(encoder: str, **numbers: Any) -> "nn.Module":
    from glioflow.models.planar import Fcn32

    return Fcn32(encoder, **numbers)


def _resunet(encoder: None, **numbers: Any) -> "nn.Module":
    from glioflow.models.planar import ResUNet

    return ResUNet(**numbers)


def _buda_unet(encoder: None, **numbers: Any) -> "nn.Module":
    from glioflow.models.planar import BudaUNet

    return BudaUNet(**numbers, batch_norm=True)


def _buda_unet_nobn(encoder: None, **numbers: Any) -> "nn.Module":
    from glioflow.models.planar import BudaUNet

    return BudaUNet(**numbers, batch_norm=False)


def _attention_unet(dims: int) -> Any:
    def build(encoder: None, *, in_channels: int, num_outputs: int, features: Any, dropout: float) -> "nn.Module":
        from monai.networks.nets import AttentionUnet

        strides = [2] * (len(features) - 1)
        return AttentionUnet(dims, in_channels, num_outputs, channels=features, strides=strides, dropout=dropout)

    return build


def _unet3d(
    encoder: None, *, in_channels: int, num_outputs: int, features: Any, num_res_units: int, norm: str, dropout: float
) -> "nn.Module":
    from monai.networks.nets import UNet

    strides = [2] * (len(features) - 1)
    return UNet(3, in_channels, num_outputs, features, strides, num_res_units=num_res_units, norm=norm, dropout=dropout)


def _segresnet(encoder: None, *, in_channels: int, num_outputs: int, **options: Any) -> "nn.Module":
    from monai.networks.nets import SegResNet

    return SegResNet(3, in_channels=in_channels, out_channels=num_outputs, **options)


def _dynunet(encoder: None, *, in_channels: int, num_outputs: int, features: Any, res_block: bool) -> "nn.Module":
    from monai.networks.nets import DynUNet

    levels = len(features)
    strides = [1] + [2] * (levels - 1)
    return DynUNet(
        3, in_channels, num_outputs, [3] * levels, strides, strides[1:], filters=features, res_block=res_block
    )


def _swinunetr(encoder: None, *, in_channels: int, num_outputs: int, **options: Any) -> "nn.Module":
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(in_channels, num_outputs, **options)


BUILDERS: dict[str, Callable[..., "nn.Module"]] = {
    **{name: _smp_builder(class_name) for name, class_name in _SMP.items()},
    "fcn32": _fcn32,
    "resunet": _resunet,
    "buda-unet": _buda_unet,
    "buda-unet-nobn": _buda_unet_nobn,
    "attention-unet": _attention_unet(2),
    "unet3d": _unet3d,
    "segresnet": _segresnet,
    "dynunet": _dynunet,
    "attention-unet3d": _attention_unet(3),
    "swinunetr": _swinunetr,
}


def build_network(
    settings: ModelSettings, *, in_channels: int, num_outputs: int, load_weights: bool = True
) -> "Network":
    """Build the network that an experiment names.

    Args:
        settings: Architecture, encoder, weights, what stays frozen.
        in_channels: C of the input (B, C, H, W) or (B, C, D, H, W); float, unit range or z-scored.
        num_outputs: K of the logits (B, K, ...): classes, regions, or 1.
        load_weights: False where a state dict is about to be loaded, the input scaling is in it: nothing is fetched.

    Returns:
        A module from images to logits of the same spatial size, whatever that size is.

    Raises:
        UserError: If encoder, weights and architecture do not go together, or the weights are not found.
    """
    from glioflow.models.network import Network
    from glioflow.models.weights import SCALINGS, load_into_encoder, read_weights, scaling_of

    settings = settings.resolved
    architecture = ARCHITECTURES[settings.architecture]
    weights = settings.weights
    from_file = weights is not None and weights != "imagenet"
    state, digest = read_weights(str(weights)) if from_file and load_weights else ({}, None)
    arguments = {key: value for key, value in architecture.options.items() if value is not None} | settings.options
    if architecture.uses_encoder:
        arguments |= _encoder_arguments(settings, state) if load_weights else {"encoder_weights": None}
    try:
        body = BUILDERS[settings.architecture](
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
        raise UserError(f"{named} cannot be built: {' '.join(str(error).split())}") from error
    if state:
        load_into_encoder(body.encoder, state, name=str(settings.encoder), in_channels=in_channels)
    if settings.freeze != "none" and weights is None:
        _log.warning("model.freeze: %s freezes random weights, because model.weights is null", settings.freeze)
    if weights is not None and not load_weights and settings.input_scaling != "none":
        scaling = SCALINGS["imagenet"]  # of the right shape; its numbers come with the state dict
    halvings = len(arguments["features"]) - 1 if "features" in arguments else None
    own = architecture.multiple if halvings is None else 2**halvings
    multiple = math.lcm(own, getattr(getattr(body, "encoder", None), "output_stride", 1))
    minimum = architecture.least * multiple
    network = Network(body, multiple=multiple, minimum=minimum, in_channels=in_channels, scaling=scaling)
    network.freeze(settings.freeze)
    return network


def _encoder_arguments(settings: ModelSettings, state: Mapping[str, object]) -> dict[str, object]:
    """Return the keywords that make smp fetch the encoder's weights, or timm take `state` for them."""
    of_timm = str(settings.encoder).startswith("tu-")
    if settings.weights == "imagenet":
        return {"encoder_weights": True if of_timm else "imagenet"}
    if state and of_timm:
        return {"encoder_weights": True, "pretrained_cfg_overlay": {"state_dict": state}}
    return {"encoder_weights": None}
