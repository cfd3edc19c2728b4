"""The search space of an experiment: typed parameters by the experiment's own keys, some of them conditional."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Parameter(BaseModel):
    """A searched key; `when` names other searched keys and the values under which this one exists."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    when: dict[str, tuple[Any, ...]] = Field(default_factory=dict)


class Choice(_Parameter):
    """One of several values, of any type that YAML has."""

    kind: Literal["choice"] = "choice"
    values: tuple[Any, ...] = Field(min_length=1)


class Real(_Parameter):
    """A number in [low, high], on a logarithmic scale where asked."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Real":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low < high, and low > 0 where log: got low {self.low}, high {self.high}")
        return self


class Whole(_Parameter):
    """An integer in [low, high]."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Whole":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low < high, and low > 0 where log: got low {self.low}, high {self.high}")
        return self


Parameter = Annotated[Choice | Real | Whole, Field(discriminator="kind")]


class SearchSettings(BaseModel):
    """How an experiment is searched.

    Attributes:
        name: Of the search; a search of that name that was interrupted can be resumed. Null derives one from the time.
        trials: How many configurations.
        space: Experiment key (`training.learning_rate`) to parameter.
        first: Configurations to try first, each a mapping of keys in `space`.
        sampler: Of Optuna.
        scheduler: `asha` stops poor trials early; `none` runs all to the end.
        grace_epochs: Epochs that ASHA grants every trial.
        reduction: ASHA keeps one in so many at each rung.
        concurrent: Trials at once; null is as many as the cluster's CPUs and GPUs hold.
        seed: Of the sampler.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    trials: int = Field(default=10, ge=1)
    space: dict[str, Parameter] = Field(default_factory=dict)
    first: tuple[dict[str, Any], ...] = ()
    sampler: Literal["tpe", "random"] = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    grace_epochs: int = Field(default=1, ge=1)
    reduction: int = Field(default=3, ge=2)
    concurrent: int | None = Field(default=None, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "SearchSettings":
        order = list(self.space)
        for key, parameter in self.space.items():
            for other in parameter.when:
                if other not in order[: order.index(key)]:
                    raise ValueError(f"search.space {key!r} depends on {other!r}, which must stand before it")
        for point in self.first:
            if unknown := set(point) - set(order):
                raise ValueError(f"search.first names keys outside search.space: {sorted(unknown)}")
        return self
