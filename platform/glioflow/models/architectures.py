"""Builders of the networks in `registry.ARCHITECTURES`, from smp, MONAI or `planar`."""

from collections.abc import Callable
from typing import Any

from torch import nn

from glioflow.models.planar import BudaUNet, Fcn32, ResUNet

# Class of segmentation-models-pytorch by our name.
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


def _of_monai() -> Any:
    """Return MONAI's networks; imported only when needed, since the import takes seconds."""
    from monai.networks import nets

    return nets


def _smp_builder(class_name: str) -> Any:
    def build(encoder: str, *, in_channels: int, num_outputs: int, **options: Any) -> nn.Module:
        import segmentation_models_pytorch as smp  # takes seconds, for it loads PyTorch's compiler

        if class_name == "DPT":
            options["dynamic_img_size"] = True
        network: nn.Module = getattr(smp, class_name)(
            encoder_name=encoder, in_channels=in_channels, classes=num_outputs, **options
        )
        return network

    return build


def _resunet(encoder: None, **numbers: Any) -> nn.Module:
    return ResUNet(**numbers)


def _buda_unet(encoder: None, **numbers: Any) -> nn.Module:
    return BudaUNet(**numbers, batch_norm=True)


def _buda_unet_nobn(encoder: None, **numbers: Any) -> nn.Module:
    return BudaUNet(**numbers, batch_norm=False)


def _attention_unet(dims: int) -> Any:
    def build(encoder: None, *, in_channels: int, num_outputs: int, features: Any, dropout: float) -> nn.Module:
        strides = [2] * (len(features) - 1)
        return _of_monai().AttentionUnet(
            dims, in_channels, num_outputs, channels=features, strides=strides, dropout=dropout
        )

    return build


def _unet3d(
    encoder: None, *, in_channels: int, num_outputs: int, features: Any, num_res_units: int, norm: str, dropout: float
) -> nn.Module:
    strides = [2] * (len(features) - 1)
    return _of_monai().UNet(
        3, in_channels, num_outputs, features, strides, num_res_units=num_res_units, norm=norm, dropout=dropout
    )


def _segresnet(encoder: None, *, in_channels: int, num_outputs: int, **options: Any) -> nn.Module:
    return _of_monai().SegResNet(3, in_channels=in_channels, out_channels=num_outputs, **options)


def _dynunet(encoder: None, *, in_channels: int, num_outputs: int, features: Any, res_block: bool) -> nn.Module:
    levels = len(features)
    strides = [1] + [2] * (levels - 1)
    return _of_monai().DynUNet(
        3, in_channels, num_outputs, [3] * levels, strides, strides[1:], filters=features, res_block=res_block
    )


def _swinunetr(encoder: None, *, in_channels: int, num_outputs: int, **options: Any) -> nn.Module:
    return _of_monai().SwinUNETR(in_channels, num_outputs, **options)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{name: _smp_builder(class_name) for name, class_name in _SMP.items()},
    "fcn32": Fcn32,
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
