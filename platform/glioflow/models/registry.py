"""Names, options and defaults of all architectures, encoders and losses. Builds nothing, imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from glioflow.errors import UserError, unknown_name

Task = Literal["binary", "multiclass", "multilabel"]

# Encoders of segmentation-models-pytorch 0.6; timm's are `tu-NAME`. A test compares this list with the library.
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_RESNEXTS = (
    "resnext50_32x4d",
    *(f"resnext101_32x{width}d" for width in (4, 8, 16, 32, 48)),
)
_SENETS = (
    "senet154",
    "se_resnet50",
    "se_resnet101",
    "se_resnet152",
    "se_resnext50_32x4d",
    "se_resnext101_32x4d",
)
ENCODERS: tuple[str, ...] = (
    *_RESNETS,
    *_RESNEXTS,
    *("dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *_SENETS,
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *("inceptionresnetv2", "inceptionv4", "mobilenet_v2", "xception"),
    *(f"efficientnet-b{size}" for size in range(8)),
    *(f"timm-efficientnet-{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")),
    *(f"timm-tf_efficientnet_lite{size}" for size in range(5)),
    *("timm-skresnet18", "timm-skresnet34", "timm-skresnext50_32x4d"),
    *(f"mit_b{size}" for size in range(6)),
    *(f"mobileone_s{size}" for size in range(5)),
)


@dataclass(frozen=True)
class Architecture:
    """One network that an experiment can name.

    Attributes:
        name: Key in `ARCHITECTURES`.
        dims: 2 for slices (B, C, H, W), 3 for volumes (B, C, D, H, W).
        encoder: The default encoder; None if the architecture has no exchangeable one.
        multiple: Every spatial size that the network computes on is a multiple of this; other sizes are padded to it.
            The option `features`, if there is one, takes precedence: it halves the size at each entry but the first.
        options: Numbers that an experiment may set, with the values used otherwise (None: the library's own).
        least: The smallest spatial size that the network computes on, in multiples; smaller ones are padded to it.
    """

    name: str
    dims: Literal[2, 3]
    encoder: str | None
    multiple: int
    options: Mapping[str, Any]
    least: int = 1

    @property
    def uses_encoder(self) -> bool:
        """Whether `model.encoder`, `model.weights` and `model.freeze` apply to it."""
        return self.encoder is not None


@dataclass(frozen=True)
class Loss:
    """One loss that an experiment can name.

    Attributes:
        name: Key in `LOSSES`.
        options: Numbers that an experiment may set, with the values used otherwise.
        tasks: Tasks for which it is defined.
        weighted: Whether it accepts a weight per class.
        on_device: Whether all of it is computed on the logits' device, without waiting for values on the host.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ("binary", "multiclass", "multilabel")
    weighted: bool = False
    on_device: bool = True


# Options that an experiment may pass to segmentation-models-pytorch, which has its own defaults.
_SMP_OPTIONS = {
    "unet": "encoder_depth decoder_channels decoder_use_norm decoder_attention_type decoder_interpolation",
    "unetplusplus": "encoder_depth decoder_channels decoder_use_norm decoder_attention_type",
    "manet": "encoder_depth decoder_channels decoder_use_norm decoder_pab_channels",
    "linknet": "encoder_depth decoder_use_norm",
    "fpn": "encoder_depth decoder_pyramid_channels decoder_segmentation_channels decoder_dropout",
    "pspnet": "encoder_depth psp_out_channels psp_dropout decoder_use_norm",
    "deeplabv3": "encoder_depth encoder_output_stride decoder_channels decoder_atrous_rates decoder_aspp_dropout",
    "deeplabv3plus": "encoder_depth encoder_output_stride decoder_channels decoder_atrous_rates decoder_aspp_dropout",
    "pan": "decoder_channels",
    "upernet": "encoder_depth decoder_channels decoder_use_norm",
    "segformer": "encoder_depth decoder_segmentation_channels",
    "dpt": "encoder_depth decoder_readout decoder_intermediate_channels decoder_fusion_channels",
}
_DEFAULT_ENCODER = {"segformer": "mit_b0", "dpt": "tu-vit_tiny_patch16_224"}
_LEAST = {"pan": 4}  # it pools three times after its encoder
_NORMALIZED = 2  # instance norm at the bottleneck cannot train on a single voxel

_WIDTHS_2D = (32, 64, 128, 256, 512)
_WIDTHS_3D = (16, 32, 64, 128, 256)

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        *(
            Architecture(
                name,
                dims=2,
                encoder=_DEFAULT_ENCODER.get(name, "resnet18"),
                multiple=32,
                options=dict.fromkeys(options.split()),
                least=_LEAST.get(name, 1),
            )
            for name, options in _SMP_OPTIONS.items()
        ),
        Architecture("fcn32", 2, "vgg16", 32, {"head_channels": 4096, "head_kernel": 7, "dropout": 0.5}),
        Architecture("resunet", 2, None, 8, {"features": (64, 128, 256, 512)}),
        Architecture("buda-unet", 2, None, 16, {"features": _WIDTHS_2D}),
        Architecture("buda-unet-nobn", 2, None, 16, {"features": _WIDTHS_2D}),
        Architecture("attention-unet", 2, None, 16, {"features": _WIDTHS_2D, "dropout": 0.0}),
        Architecture(
            "unet3d",
            3,
            None,
            16,
            {"features": _WIDTHS_3D, "num_res_units": 2, "norm": "instance", "dropout": 0.0},
            _NORMALIZED,
        ),
        Architecture("segresnet", 3, None, 8, {"init_filters": 16, "dropout_prob": None}),
        Architecture("dynunet", 3, None, 16, {"features": (32, 64, 128, 256, 320), "res_block": False}, _NORMALIZED),
        Architecture("attention-unet3d", 3, None, 16, {"features": _WIDTHS_3D, "dropout": 0.0}),
        Architecture("swinunetr", 3, None, 32, {"feature_size": 24, "use_checkpoint": False}, _NORMALIZED),
    )
}

_OVERLAP = {"smooth": 1.0, "include_background": True}
_TVERSKY = {**_OVERLAP, "alpha": 0.3, "beta": 0.7, "batch": False}

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("dice", _OVERLAP, weighted=True),
        Loss("dice_batch", _OVERLAP, weighted=True),
        Loss("jaccard", _OVERLAP, weighted=True),
        Loss("tversky", _TVERSKY, weighted=True),
        Loss("focal_tversky", {**_TVERSKY, "gamma": 0.75}, weighted=True),
        Loss("bce", tasks=("binary", "multilabel"), weighted=True),
        Loss("cross_entropy", {"label_smoothing": 0.0}, tasks=("multiclass",), weighted=True),
        Loss("dice_bce", _OVERLAP, tasks=("binary", "multilabel"), weighted=True),
        Loss("dice_ce", _OVERLAP, tasks=("multiclass",), weighted=True),
        Loss("focal", {"gamma": 2.0}, weighted=True),
        Loss("lovasz", {"per_image": False}, on_device=False),
        Loss("generalized_dice", {"smooth": 1e-7, "batch": True}),
        Loss("hausdorff", {"alpha": 2.0}, on_device=False),
        Loss("boundary", on_device=False),
    )
}


def check_encoder(architecture: Architecture, encoder: str) -> None:
    """Raise `UserError` unless smp (or, after `tu-`, maybe timm: known only when built) has this encoder."""
    if architecture.name == "dpt" and not encoder.startswith("tu-vit"):
        raise UserError(
            "the encoder of dpt must be a vision transformer of timm", encoder, hint="try tu-vit_tiny_patch16_224"
        )
    if not encoder.startswith("tu-") and encoder not in ENCODERS:
        raise unknown_name("encoder", encoder, [*ENCODERS, "tu-NAME for any of timm"])


# Ranges of the losses' options, both ends included.
_RANGES: dict[str, tuple[float, float]] = {
    "smooth": (0, 1e6),
    "alpha": (0, 10),
    "beta": (0, 10),
    "gamma": (0, 10),
    "label_smoothing": (0, 0.999),
}

# Options that must be above 0, since the loss would be constant or 0 / 0.
_ABOVE_0 = {("focal_tversky", "gamma"), ("generalized_dice", "smooth")}


def check_loss_values(kind: str, options: Mapping[str, Any]) -> None:
    """Raise `UserError` if a loss cannot be computed with the value of an option."""
    for name, value in options.items():
        known = LOSSES[kind].options[name]
        if isinstance(known, bool):
            if not isinstance(value, bool):
                raise UserError(f"option {name} of loss {kind} must be true or false", value)
            continue
        low, high = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UserError(f"option {name} of loss {kind} must be a number from {low:g} to {high:g}", value)
        if value == 0 and (kind, name) in _ABOVE_0:
            raise UserError(f"option {name} of loss {kind} must be above 0", value)

    given = {**LOSSES[kind].options, **options}
    if given.get("alpha") == given.get("beta") == 0:
        raise UserError(f"options alpha and beta of loss {kind} must not both be 0", 0)


def check_options(kind: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise `UserError` if an option is unknown."""
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {kind}", name, known)
