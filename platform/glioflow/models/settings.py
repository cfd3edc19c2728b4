"""What an experiment may say about its network and loss, checked by name without importing torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glioflow.errors import UserError, unknown_name
from glioflow.models.registry import ARCHITECTURES, LOSSES, check_encoder, check_options


class ModelSettings(BaseModel):
    """The network.

    Attributes:
        architecture: Key in `ARCHITECTURES`.
        encoder: Name in smp, or `tu-NAME` for timm; the architecture's own default where unsaid, and always None
            where the architecture has no exchangeable encoder.
        weights: Of the encoder: `imagenet` (fetched by smp or timm), or a .pth or .safetensors file or URI, looked for
            here and under $GLIOFLOW_DATA; None starts from random numbers.
        freeze: `batchnorm` keeps the encoder's batch norm (statistics, scale and shift) as loaded; `encoder` keeps all
            of the encoder so.
        input_scaling: What the weights expect: `imagenet` mean and deviation, `symmetric` (unit range to [-1, 1]) or
            `none`; `auto` is what the weights' source says (`imagenet` for a file we do not know).
        options: Numbers of this architecture, see `ARCHITECTURES[...].options`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str = "unet"
    encoder: str | None = None
    weights: str | None = None
    freeze: Literal["none", "batchnorm", "encoder"] = "none"
    input_scaling: Literal["auto", "imagenet", "symmetric", "none"] = "auto"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> "ModelSettings":
        if self.architecture not in ARCHITECTURES:
            raise unknown_name("architecture", self.architecture, ARCHITECTURES)
        architecture = ARCHITECTURES[self.architecture]
        check_options(self.architecture, self.options, architecture.options)
        # Not as if the experiment had said it: `model_fields_set` stays, so that another architecture can be put in.
        if not architecture.uses_encoder:
            self.__dict__.update(encoder=None, weights=None, freeze="none")
        elif self.encoder is None:
            self.__dict__.update(encoder=architecture.encoder)
        else:
            check_encoder(architecture, self.encoder)
        return self


class LossTerm(BaseModel):
    """One term of a weighted sum: `name` and `options` as in `LossSettings`, multiplied by `weight`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weight: float = Field(default=1.0, gt=0)
    class_weights: tuple[float, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> "LossTerm":
        if self.name not in LOSSES:
            raise unknown_name("loss", self.name, LOSSES)
        check_options(self.name, self.options, LOSSES[self.name].options)
        if self.class_weights and not LOSSES[self.name].weighted:
            choices = [name for name, loss in LOSSES.items() if loss.weighted]
            raise UserError(f"loss {self.name} takes no class_weights", choices=choices)
        return self


class LossSettings(BaseModel):
    """The loss: one name, or a weighted sum of terms.

    Attributes:
        name: Key in `LOSSES`; `sum` where `terms` say it.
        class_weights: One weight per class or output, for the losses that take them.
        options: Numbers of this loss, see `LOSSES[...].options`.
        terms: The losses whose weighted sum is taken; leaves name, class_weights and options unsaid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "dice_bce"
    class_weights: tuple[float, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    terms: tuple[LossTerm, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _name_the_sum(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("terms"):
            return {"name": "sum", **values}
        return values

    @model_validator(mode="after")
    def _check_names(self) -> "LossSettings":
        if self.terms:
            if self.name != "sum" or self.options or self.class_weights:
                raise UserError("a loss has either a name with its options, or terms", f"{self.name} and terms")
        else:
            LossTerm(name=self.name, class_weights=self.class_weights, options=self.options)
        return self

    @property
    def summands(self) -> tuple[LossTerm, ...]:
        """The terms, or the one loss that is named."""
        return self.terms or (LossTerm(name=self.name, class_weights=self.class_weights, options=self.options),)
