"""Settings of an experiment's network and loss, checked by name without importing torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glioflow.errors import UserError, unknown_name
from glioflow.models.registry import ARCHITECTURES, LOSSES, Task, check_encoder, check_loss_values, check_options

SUM = "sum"
_DEFAULT_LOSS = "dice_bce"


class ModelSettings(BaseModel):
    """The network.

    Attributes:
        architecture: Key in `ARCHITECTURES`.
        encoder: Name in smp, or `tu-NAME` for timm; None takes the architecture's default. It is ignored, like
            `weights` and `freeze`, if the architecture has no exchangeable encoder.
        weights: Weights of the encoder: `imagenet` (downloaded by smp or timm), or a .pth or .safetensors file or URI;
            a relative path is resolved in the working directory and under $GLIOFLOW_DATA. None starts from random
            numbers.
        freeze: `batchnorm` keeps the encoder's batch norm (statistics, scale and shift) as loaded; `encoder` keeps the
            whole encoder as loaded.
        input_scaling: Scaling that the weights expect: `imagenet` mean and deviation, `symmetric` (unit range to [-1,
            1]) or `none`; `auto` takes that of the weights' source (`imagenet` for an unknown file).
        options: Numeric options of this architecture, see `ARCHITECTURES[...].options`.
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
        if architecture.uses_encoder and self.encoder is not None:
            check_encoder(architecture, self.encoder)
        return self

    @property
    def resolved(self) -> "ModelSettings":
        """The settings that the network is built from: with the default encoder, without what does not apply."""
        architecture = ARCHITECTURES[self.architecture]
        if not architecture.uses_encoder:
            return self.model_copy(update={"encoder": None, "weights": None, "freeze": "none"})
        return self.model_copy(update={"encoder": self.encoder or architecture.encoder})


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
        check_loss_values(self.name, self.options)
        if self.class_weights and not LOSSES[self.name].weighted:
            choices = [name for name, loss in LOSSES.items() if loss.weighted]
            raise UserError(f"loss {self.name} does not take class_weights", self.name, choices)
        if self.class_weights and not (min(self.class_weights) >= 0 and max(self.class_weights) > 0):
            rule = "loss.class_weights must be at least 0, and one of them above it"
            raise UserError(rule, list(self.class_weights))
        return self

    def check(self, task: Task, num_outputs: int | None = None) -> None:
        """Refuse a task that the loss is not defined for, or class weights of another number than `num_outputs`.

        Raises:
            UserError: With the losses that fit, or both numbers.
        """
        if task not in LOSSES[self.name].tasks:
            choices = [name for name, other in LOSSES.items() if task in other.tasks]
            raise UserError(f"loss {self.name} is not defined for a {task} task", self.name, choices)
        without_background = task == "multiclass" and self.options.get("include_background") is False
        if num_outputs is None or not self.class_weights:
            return
        if len(self.class_weights) not in (num_outputs, num_outputs - without_background):
            outputs = "class, the background first" if task == "multiclass" else "output"
            rule = f"loss.class_weights must have {num_outputs} value{'s' * (num_outputs != 1)}, one for each {outputs}"
            raise UserError(rule, list(self.class_weights))


class LossSettings(BaseModel):
    """The loss: one name, or a weighted sum of terms.

    Attributes:
        name: Key in `LOSSES`; None means `dice_bce`, or `sum` if there are `terms`.
        class_weights: One weight per class or output, for the losses that accept weights.
        options: Numeric options of this loss, see `LOSSES[...].options`.
        terms: The losses of a weighted sum, in place of `name`, `class_weights` and `options`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    class_weights: tuple[float, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    terms: tuple[LossTerm, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> "LossSettings":
        if self.terms:
            if self.name not in (None, SUM) or self.options or self.class_weights:
                raise UserError(
                    "a loss must have either terms, or a name with options and class_weights",
                    f"{self.name} and {len(self.terms)} terms",
                    hint="remove loss.terms, or remove the other keys of loss",
                )
        else:
            self._single()
        return self

    def _single(self) -> LossTerm:
        return LossTerm(name=self.name or _DEFAULT_LOSS, class_weights=self.class_weights, options=self.options)

    @property
    def resolved(self) -> "LossSettings":
        """The same with the name of what is computed."""
        return self.model_copy(update={"name": SUM if self.terms else self.name or _DEFAULT_LOSS})

    def check(self, task: Task, num_outputs: int | None = None) -> None:
        """Refuse a loss that does not fit the task or the number of outputs; raises `UserError` as its terms do."""
        for term in self.summands:
            term.check(task, num_outputs)

    @property
    def summands(self) -> tuple[LossTerm, ...]:
        """The terms, or the one loss that is named."""
        return self.terms or (self._single(),)
