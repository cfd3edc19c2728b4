"""The search space of an experiment: typed parameters by the experiment's own keys, some of them conditional."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glioflow.data.preprocessing.pipeline import Step
from glioflow.errors import UserError

# A point of a search space: values by searched key, for keys whose conditions hold.
Point = dict[str, Any]
# Useful pairs. GP, CMA-ES and NSGA-II learn from finished trials only, so a trial that a scheduler stopped
# would be wasted; PBT changes parameters during training, from which no sampler can learn.
SCHEDULERS = {
    "tpe": ("asha", "hyperband", "median", "none"),
    "random": ("asha", "hyperband", "median", "pbt", "none"),
    "grid": ("asha", "hyperband", "median", "none"),
    "gp": ("none",),
    "cmaes": ("none",),
    "nsga2": ("none",),
}
# Settings that may change during a training.
CHANGEABLE = (
    "training.learning_rate",
    "training.weight_decay",
    "training.clip_gradient",
    "training.sampling.augmentation",
)
# Settings that decide a trial's resources before it begins.
BOOKED = ("training.num_workers", "training.cpus_per_worker", "training.gpus_per_worker")
PREPROCESS = "preprocess"
# Valid names of a search, since it names a folder.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}"
# Searchable keys of the survival stage; its outcome and cross-validation are the measure, the same for all trials.
STAGE_KEYS = tuple(
    f"survival.{name}" for name in ("model", "shape_features", "clinical", "imputation", "num_neighbors", "penalties")
)

# Most values of a choice; each is validated in a full experiment at load time.
_MOST_VALUES = 200
# Longer budgets are mistakes.
MOST_HOURS = 10_000.0
# What a sampler tells from its neighbors.
_LARGEST = 2**53
_BOUNDS = "low must be below high, and above 0 with log: got low {self.low}, high {self.high}"


def name_after(cohort: Path, *, otherwise: str) -> str:
    """Return a valid name made from that of a cohort's folder; `otherwise` if nothing of it is valid."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", cohort.name).strip("-._")[:60] or otherwise


class _Parameter(BaseModel):
    """A searched key; `when` names other searched keys and the values under which this one exists."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    when: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)


class Choice(_Parameter):
    """One of several values, of any type that YAML has."""

    kind: Literal["choice"] = "choice"
    values: tuple[Any, ...] = Field(min_length=1, max_length=_MOST_VALUES)


class Real(_Parameter):
    """A number in [low, high], on a logarithmic scale where asked."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Real":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(_BOUNDS.format(self=self))
        return self


class Whole(_Parameter):
    """An integer in [low, high]."""

    kind: Literal["int"] = "int"
    low: int = Field(ge=-_LARGEST, le=_LARGEST)
    high: int = Field(ge=-_LARGEST, le=_LARGEST)
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Whole":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(_BOUNDS.format(self=self))
        return self


Parameter = Annotated[Choice | Real | Whole, Field(discriminator="kind")]


class SearchSettings(BaseModel):
    """Settings of a search.

    Attributes:
        name: Name of the search, by which it can be resumed after an interruption. Null derives one from the time.
        trials: Number of configurations; null means 10, or every point of a grid.
        space: The searched parameters by experiment key, such as `training.learning_rate`.
        preprocess: Preprocessing steps by name, if `space` has a choice `preprocess` of such names. Each gets its own
            prepared cohort before the first trial.
        disk_gb: Most gigabytes of those prepared cohorts together; null allows the free space of the disk.
        first: Configurations to try first, each a mapping of keys in `space`.
        warm_start: Number of the best configurations of earlier searches of this experiment on the same cohort that are
            tried first; values that are not in `space` are drawn anew.
        sampler: Optuna's sampler; `tpe` is multivariate and grouped, `grid` tries all points in order.
        scheduler: `asha` and `hyperband` (asynchronous, several brackets of ASHA) keep the best of each rung, `median`
            stops trials below the median of the others, `pbt` gives poor trials the weights and modified parameters
            of good ones, `none` runs all to the end. All of them use the validation Dice by patient after each epoch.
        folds: Number of folds on which every trial is trained and judged, the same for all trials; 1 is the split
            itself. More folds are made from its training and validation patients, never from its test patients, and run
            one after another. The steps of a trial count across its folds, and its score after each epoch is the mean
            over its finished folds and the present one, so a scheduler compares trials at equal steps on equal
            patients.
        objectives: What to optimize: `dice` (maximized; the mean over validation patients, then over folds), `hd95`
            (minimized; the same means), `parameters` (minimized; the number in the network) and `c_index` (maximized;
            how well the survival stage ranks patients by masks from networks that did not train on them, over its
            repeated cross-validation; without times the AUROC). Several objectives give a Pareto front.
        clinical: Clinical table for `c_index`; null takes the cohort's own. A relative path is resolved as
            `data.source` is.
        outcomes: Second table, with the follow-up.
        grace_epochs: Epochs that every trial runs before the scheduler may stop it; for `pbt`, epochs between
            exchanges.
        reduction: At each rung, `asha` and `hyperband` keep one trial in this many.
        concurrent: Number of trials at once; null means as many as the cluster's CPUs and GPUs allow.
        budget_hours: Hours after which no new trial begins; running trials are finished.
        seed: Seed of the sampler.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str | None = Field(default=None, pattern=rf"^{NAME}$")
    trials: int | None = Field(default=None, ge=1, le=100_000)
    space: dict[str, Parameter] = Field(default_factory=dict)
    preprocess: dict[str, tuple[Step, ...]] = Field(default_factory=dict)
    disk_gb: float | None = Field(default=None, gt=0)
    first: tuple[Point, ...] = ()
    warm_start: int = Field(default=0, ge=0)
    sampler: Literal["tpe", "random", "grid", "gp", "cmaes", "nsga2"] = "tpe"
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"
    folds: int = Field(default=1, ge=1)
    objectives: tuple[Literal["dice", "hd95", "parameters", "c_index"], ...] = Field(default=("dice",), min_length=1)
    clinical: str | None = None
    outcomes: str | None = None
    grace_epochs: int = Field(default=1, ge=1)
    reduction: int = Field(default=3, ge=2)
    concurrent: int | None = Field(default=None, ge=1, le=100_000)
    budget_hours: float | None = Field(default=None, gt=0, le=MOST_HOURS)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _check(self) -> "SearchSettings":
        order = list(self.space)
        for key, parameter in self.space.items():
            if key in BOOKED:
                raise ValueError(f"search.space must not have the key {key!r}: all trials book the same resources")
            for other in parameter.when:
                if other not in order[: order.index(key)]:
                    problem = "must come before it" if other in self.space else "is not in search.space"
                    raise UserError(f"search.space: {key!r} depends on {other!r}, which {problem}")
        for point in self.first:
            if unknown := set(point) - set(order):
                raise UserError("search.first must only have keys of search.space", ", ".join(sorted(unknown)), order)
        named = self.space.get(PREPROCESS)
        values = list(named.values) if isinstance(named, Choice) else []
        if (named is not None or self.preprocess) and (
            not values or any(value not in self.preprocess for value in values)
        ):
            raise UserError(
                "search.space.preprocess must be a choice among the names in search.preprocess",
                values,
                self.preprocess,
            )
        self._check_sampler()
        self._check_folds()
        return self

    def _check_sampler(self) -> None:
        sampler, scheduler = self.sampler, self.scheduler
        if scheduler not in SCHEDULERS[sampler]:
            raise UserError(f"search.scheduler must suit the sampler {sampler}", scheduler, SCHEDULERS[sampler])
        if "dice" not in self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise UserError("search.objectives must include dice, and no objective twice", list(self.objectives))
        if len(self.objectives) > 1 and (sampler == "cmaes" or scheduler == "pbt"):
            rule = f"search.objectives must be one objective with sampler {sampler} and scheduler {scheduler}"
            raise UserError(rule, list(self.objectives), ["[dice]"])
        suitable: dict[str, tuple[Any, ...]] = {"cmaes": (Real, Whole), "grid": (Choice, Whole)}
        kinds = suitable.get(sampler, (Choice, Real, Whole))
        fixed = sampler in ("cmaes", "gp") or scheduler == "pbt"
        for key, parameter in self.space.items():
            if not isinstance(parameter, kinds):
                names = " or ".join(_kind(kind) for kind in kinds)
                rule = f"the parameters of a {sampler} search must be of kind {names}"
                raise UserError(rule, f"{key} of kind {parameter.kind}")
            if fixed and parameter.when:
                rule = f"a search with sampler {sampler} and scheduler {scheduler} cannot have conditional parameters"
                raise UserError(rule, key, hint="remove `when`")
            if scheduler == "pbt" and key not in CHANGEABLE and not key.startswith("loss.options."):
                choices = [*CHANGEABLE, "loss.options.*"]
                raise UserError("pbt can search only keys that may change during a training", key, choices)
        if sampler == "cmaes" and len(self.space) == 1:
            raise UserError("a cmaes search must have at least two parameters", list(self.space), hint="choose tpe")
        if scheduler == "pbt" and self.budget_hours is not None:
            raise UserError(
                "search.budget_hours must be null in a pbt search, which begins all its trials at once",
                self.budget_hours,
            )

    def _check_folds(self) -> None:
        if self.folds > 1 and self.scheduler == "pbt":
            rule = "search.folds must be 1 in a pbt search, whose trials take over each other's weights"
            raise UserError(rule, self.folds)
        if self.folds > 1 and "training.epochs" in self.space:
            rule = "training.epochs cannot be searched on several folds, whose trials are compared at equal steps"
            raise UserError(rule, hint="remove it from search.space, or set search.folds to 1")
        if "c_index" in self.objectives and self.folds == 1:
            rule = "search.folds must be at least 2 with the objective c_index, which needs masks of unseen patients"
            raise UserError(rule, self.folds)
        for key in self.space:
            if key.startswith("survival.") and key not in STAGE_KEYS:
                rule = "a search can change the survival stage, but not how the stage is judged"
                raise UserError(rule, key, STAGE_KEYS)
            if key.startswith("survival.") and "c_index" not in self.objectives:
                rule = "search.objectives must include c_index when the survival stage is searched"
                raise UserError(rule, key, hint="add c_index to search.objectives or remove the key from search.space")

    @property
    def num_trials(self) -> int:
        """How many configurations are tried by default."""
        return self.trials or (sum(1 for _ in self.grid()) if self.sampler == "grid" else 10)

    @property
    def grid_size(self) -> int:
        """Number of points of a grid; points that conditions make equal count several times."""
        return math.prod(
            len(p.values) if isinstance(p, Choice) else p.high - p.low + 1
            for p in self.space.values()
            if isinstance(p, Choice | Whole)
        )

    def most_epochs(self, own: int) -> int:
        """Return the most epochs of a trial over its folds, with `own` epochs of the experiment on each."""
        parameter = self.space.get("training.epochs")
        if parameter is None:
            return self.folds * own
        offered = max(parameter.values) if isinstance(parameter, Choice) else int(parameter.high)
        return self.folds * (max(offered, own) if parameter.when else int(offered))

    def active(self, key: str, chosen: Mapping[str, Any]) -> bool:
        """Say whether a searched key exists, given the earlier choices `chosen`."""
        when = self.space[key].when
        return all(other in chosen and chosen[other] in values for other, values in when.items())

    def grid(self) -> Iterator[Point]:
        """Yield every point of a space of choices and integers once, without keys whose conditions do not hold."""
        seen = set()
        for values in itertools.product(*(_values(parameter) for parameter in self.space.values())):
            point: Point = {}
            for key, value in zip(self.space, values, strict=True):
                if self.active(key, point):
                    point[key] = value
            text = json.dumps(point, sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield point

    def overrides(self, point: Mapping[str, Any]) -> Point:
        """Return a point's changes to the experiment, with a name of preprocessing replaced by its steps."""
        changed = dict(point)
        if PREPROCESS in changed:
            changed[PREPROCESS] = [step.model_dump(mode="json") for step in self.preprocess[changed[PREPROCESS]]]
        return changed

    @property
    def space_digest(self) -> str:
        """Digest of the space; searches with the same digest can learn from each other."""
        space = self.model_dump(mode="json", include={"space", "preprocess"})
        return hashlib.blake2b(json.dumps(space).encode(), digest_size=8).hexdigest()


def _kind(model: type[BaseModel]) -> str:
    return str(model.model_fields["kind"].default)


def _values(parameter: Parameter) -> tuple[Any, ...]:
    if isinstance(parameter, Choice):
        return parameter.values
    if isinstance(parameter, Whole):
        return tuple(range(parameter.low, parameter.high + 1))
    raise ValueError("a grid has no parameter of kind float")
