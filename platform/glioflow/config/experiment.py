"""One experiment file: the settings of every package, read from YAML, overridden by key; unknown keys are errors."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glioflow.cluster.workers import WorkerSettings
from glioflow.config.gate import GateSettings
from glioflow.config.search import PREPROCESS, SearchSettings
from glioflow.data.preprocessing.pipeline import ResizePlane, Step, UnitScale
from glioflow.data.splits import SplitSettings
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation import PostprocessSettings
from glioflow.evaluation.inference import InferenceSettings
from glioflow.models import ARCHITECTURES, LossSettings, ModelSettings
from glioflow.survival import SurvivalSettings
from glioflow.training.settings import TrainingSettings

# Every trial of a search shares these: the cohort is split once, and runs are found by the name.
_FIXED = ("name", "description", "data", "preprocess", "split", "entry", "search", "gate")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, which PyYAML (YAML 1.1) reads as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class DataSettings(BaseModel):
    """The cohort.

    Attributes:
        source: Name or path of a cohort; a relative one is looked for here and under GLIOFLOW_DATA.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str | None = None


class EntrySettings(BaseModel):
    """Whether a study that the model was not made for is answered with a warning or refused.

    Both warn by default: the first is recognized by morphology, which can be wrong, and many people try a model with
    one slice.

    Attributes:
        skull: A head with skull and scalp, where the training cohort came without.
        lone_slice: One slice, where preprocessing takes statistics of a whole volume, or the network is a 3D one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    skull: Literal["warn", "refuse"] = "warn"
    lone_slice: Literal["warn", "refuse"] = "warn"


class ExperimentTraining(WorkerSettings, TrainingSettings):
    """The section `training` of an experiment: the training itself and the Ray workers that run it."""


class Experiment(BaseModel):
    """All settings that decide a result, one section per package."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(default="experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    description: str = ""
    data: DataSettings = DataSettings()
    preprocess: tuple[Step, ...] = (UnitScale(), ResizePlane(size=128))
    target: TargetSettings = TargetSettings()
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    training: ExperimentTraining = ExperimentTraining()
    inference: InferenceSettings = InferenceSettings()
    entry: EntrySettings = EntrySettings()
    postprocess: PostprocessSettings = PostprocessSettings()
    survival: SurvivalSettings = SurvivalSettings()
    search: SearchSettings = SearchSettings()
    gate: GateSettings = GateSettings()

    @model_validator(mode="after")
    def _patches_are_for_volumes(self) -> "Experiment":
        volumetric, patch = ARCHITECTURES[self.model.architecture].dims == 3, self.training.sampling.patch
        if volumetric != (patch is not None):
            raise UserError(
                f"training.sampling.patch must be {'a patch along S, H, W' if volumetric else 'null'}: "
                f"{self.model.architecture} is a {2 + volumetric}D network",
                "null" if patch is None else list(patch),
                hint="set it to, for example, [32, 96, 96]" if volumetric else None,
            )
        if self.inference.patch is not None and not volumetric:
            raise UserError(
                f"inference.patch must be null: {self.model.architecture} is a 2D network",
                list(self.inference.patch),
            )
        return self

    @model_validator(mode="after")
    def _a_final_training_chooses_nothing(self) -> "Experiment":
        training = self.training
        if training.final and (training.keep, training.patience, self.postprocess.choose) != ("last", None, False):
            raise UserError(
                "training.final trains on the validation cases too, so nothing may be chosen on them",
                hint="set training.keep to last, training.patience to null and postprocess.choose to false",
            )
        return self

    @model_validator(mode="after")
    def _clean_up_names_parts_of_the_target(self) -> "Experiment":
        for name in self.postprocess.min_total_px:
            if name not in self.target.names:
                raise UserError("postprocess.min_total_px must name parts of the target", name, self.target.names)
        return self

    @model_validator(mode="after")
    def _searched_keys_exist(self) -> "Experiment":
        for key, parameter in self.search.space.items():
            fixed = key.split(".")[0] in _FIXED and key != PREPROCESS  # which is chosen by name, from search.preprocess
            if fixed or not _has_key(type(self), key.split(".")):
                raise ValueError(f"search.space has the key {key!r}, which is not a searchable key of an experiment")
            for other in parameter.when:
                if other not in self.search.space:
                    raise ValueError(f"search.space: {key!r} depends on {other!r}, which is not in search.space")
        return self

    @property
    def resolved(self) -> "Experiment":
        """The same with every value that follows from other settings filled in; settings themselves stay as given.

        Two experiments that resolve alike compute the same.
        """
        window = self.inference.patch or self.training.sampling.patch
        concrete = {
            "model": self.model.resolved,
            "loss": self.loss.resolved,
            "inference": self.inference.model_copy(update={"patch": window}),
        }
        return self.model_copy(update=concrete)


def load_experiment(path: Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read an experiment file.

    Args:
        path: YAML.
        overrides: `section.key=value`, the value in YAML.

    Raises:
        UserError: If the file is missing, is not YAML, or holds a key or value that no experiment may have.
    """
    if not path.is_file():
        others = sorted(str(other) for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(f"the experiment file {path} does not exist", path, others or None)
    try:
        values = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"an experiment must be a YAML file: {' '.join(str(error).split())[:200]}", file=path) from None
    if not isinstance(values, dict):
        raise UserError("an experiment file must hold keys and values", file=path)
    values.setdefault("name", path.stem)
    return _validate(_overridden(values, _parse_overrides(overrides)), str(path))


def override(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """Return the experiment with some dotted keys changed, checked anew."""
    return _validate(_overridden(experiment.model_dump(mode="json"), values), experiment.name)


def override_texts(experiment: Experiment, texts: Iterable[str]) -> Experiment:
    """Return the experiment changed by `section.key=value` texts, as `load_experiment` takes them."""
    return override(experiment, _parse_overrides(texts))


def _validate(values: dict[str, Any], origin: str) -> Experiment:
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise _explain(error, origin) from None


def _explain(error: ValidationError, origin: str) -> UserError:
    # A misspelled key is also a missing one; the misspelling is what helps.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    cause = first.get("ctx", {}).get("error")
    key = ".".join(str(part) for part in first["loc"])
    if isinstance(cause, UserError):
        return cause.replace(rule=f"{origin}: {key}: {cause.rule}" if key else f"{origin}: {cause.rule}")
    if first["type"] == "extra_forbidden":
        *section, name = first["loc"]
        return UserError(f"{origin}: unknown key {key!r}", name, _keys_at(Experiment, section))
    message = first["msg"].removeprefix("Value error, ")
    given = None if first["type"] == "value_error" else repr(first["input"])[:120]
    return UserError(f"{origin}: {key}: {message}" if key else f"{origin}: {message}", given)


def _parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    values = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError("an override must have the form section.key=value", text)
        try:
            values[key.strip()] = yaml.load(value, _Loader)
        except yaml.YAMLError:
            raise UserError("the value of an override must be YAML", text) from None
    return values


def _overridden(experiment: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = _copied(experiment)
    for key, value in values.items():
        *sections, last = key.split(".")
        parent = result
        for section in sections:
            inner = parent.setdefault(section, {})
            if not isinstance(inner, dict):
                raise UserError(f"override {key!r}: {section!r} is not a section")
            parent = inner
        parent[last] = value
    return result


def _copied(value: Any) -> Any:
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _has_key(model: type[BaseModel], key: list[str]) -> bool:
    field = model.model_fields.get(key[0])
    if field is None:
        return False
    if len(key) == 1:
        return True
    return key[0] == "options" or any(_has_key(inner, key[1:]) for inner in _models_of(field.annotation))


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_of(part)]


def _keys_at(annotation: Any, key: list[Any]) -> list[str] | None:
    """Return the keys that may stand below `key`, which may go through lists, mappings and kinds of steps."""
    models = _models_of(annotation)
    for model in models:
        if not key:
            return sorted(model.model_fields)
        if key[0] in model.model_fields:
            return _keys_at(model.model_fields[key[0]].annotation, key[1:])
        if isinstance(key[0], str) and any(field.default == key[0] for field in model.model_fields.values()):
            return _keys_at(model, key[1:])
    return _keys_at(annotation, key[1:]) if key else None
