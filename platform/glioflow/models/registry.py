"""Which architectures, encoders and losses exist, and what each may be told. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from glioflow.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import nn

Task = Literal["binary", "multiclass", "multilabel"]

# Encoders of segmentation-models-pytorch 0.6; any of timm besides, as `tu-NAME`. A test holds this against the library.
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
        encoder: The encoder used where an experiment names none; None where the architecture has no exchangeable one.
        multiple: Every spatial size that the network computes on is a multiple of this; other sizes are padded to it.
            The option `features`, where there is one, wins: it halves the size at each but the first.
        options: Numbers that an experiment may set, with the values used otherwise (None: the library's own).
        least: The smallest spatial size that the network computes on, in multiples; smaller ones are padded to it.
        build: Called with encoder name and keywords `in_channels`, `num_outputs` and the options.
    """

    name: str
    dims: Literal[2, 3]
    encoder: str | None
    multiple: int
    options: Mapping[str, Any]
    build: Callable[..., "nn.Module"]
    least: int = 1

    @property
    def uses_encoder(self) -> bool:
        """Whether `model.encoder`, `model.weights` and `model.freeze` mean anything to it."""
        return self.encoder is not None


@dataclass(frozen=True)
class Loss:
    """One loss that an experiment can name.

    Attributes:
        name: Key in `LOSSES`.
        build: Called with `task`, `class_weights` (tuple or None) and the options; returns a module on
            float32 (logits, target).
        options: Numbers that an experiment may set, with the values used otherwise.
        tasks: Where it is defined.
        weighted: Whether it takes a weight per class.
    """

    name: str
    build: Callable[..., "nn.Module"]
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ("binary", "multiclass", "multilabel")
    weighted: bool = False


def check_encoder(architecture: Architecture, encoder: str) -> None:
    """Raise `UserError` unless smp (or, after `tu-`, maybe timm: known only when built) has this encoder."""
    if architecture.name == "dpt" and not encoder.startswith("tu-vit"):
        raise UserError("dpt takes a vision transformer of timm, such as tu-vit_tiny_patch16_224", encoder)
    if not encoder.startswith("tu-") and encoder not in ENCODERS:
        raise unknown_name("encoder", encoder, [*ENCODERS, "tu-NAME for any of timm"])


def check_options(kind: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise `UserError` where an option is not one of those known."""
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {kind}", name, known)
