"""One experiment file: the settings of every package, read from YAML, overridden by key; unknown keys are errors."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glioflow.cluster.workers import WorkerSettings
from glioflow.config.explanation import explain
from glioflow.config.gate import GateSettings
from glioflow.config.overrides import overridden, parse_overrides
from glioflow.config.schema import find_no_number, has_key, keys_at, misplaced
from glioflow.config.search import BOOKED, PREPROCESS, STAGE_KEYS, SearchSettings
from glioflow.config.search_points import check_points
from glioflow.data.batches.policies import FIRST_RELEASE
from glioflow.data.preprocessing.pipeline import ResizePlane, Step, UnitScale
from glioflow.data.splits import SplitSettings
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError, one_line
from glioflow.evaluation import PostprocessSettings
from glioflow.evaluation.settings import InferenceSettings
from glioflow.models import ARCHITECTURES, LossSettings, ModelSettings
from glioflow.strict_yaml import parse_yaml
from glioflow.survival import SurvivalSettings
from glioflow.text_files import read_text
from glioflow.training.settings import TrainingSettings
from glioflow.version import __version__

# Every trial of a search shares these: the cohort is split once, and runs are found by the name.
_FIXED = ("name", "description", "data", "preprocess", "split", "entry", "search", "gate")
# Sections of which some keys are the same for all trials: the workers and their GPUs, and how the stage is judged.
_IN_PARTS = ("training", "survival")
_TASK = "target"


class DataSettings(BaseModel):
    """The cohort.

    Attributes:
        source: Name or path of a cohort; a relative one is resolved here and under GLIOFLOW_DATA.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str | None = None


class EntrySettings(BaseModel):
    """Whether unsuitable studies are answered with a warning or refused.

    The first two warn by default: a skull is recognized by morphology, which can be wrong, and many people try a model
    with one slice.

    Attributes:
        skull: For a head with skull and scalp, if the training cohort has none.
        lone_slice: For a single slice, if preprocessing computes statistics of a whole volume, or the network is 3D.
        max_drift: Largest distance of a volume's intensities from the training cohort's, in standard deviations; a
            study beyond it is refused. None only warns. Real patients outside a cohort of twelve were below 21,
            inverted ones (prepared by `unit`) above 36.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    skull: Literal["warn", "refuse"] = "warn"
    lone_slice: Literal["warn", "refuse"] = "warn"
    max_drift: float | None = Field(default=25.0, gt=0)


class ExperimentTraining(WorkerSettings, TrainingSettings):
    """The section `training` of an experiment: the training itself and the Ray workers that run it."""

    @model_validator(mode="after")
    def _one_batch_size_to_the_end(self) -> "ExperimentTraining":
        if self.batch_size == "auto" and isinstance(self.num_workers, tuple):
            rule = (
                "num_workers must be one number if batch_size is auto, since fewer workers have less memory for a batch"
            )
            raise UserError(rule, list(self.num_workers), hint="give batch_size or num_workers as a number")
        return self


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

    if not TYPE_CHECKING:  # which would forget the types of the sections

        def __init__(self, **sections: Any) -> None:
            with _explained(sections):
                super().__init__(**sections)

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Return the experiment that the keys and values of a dictionary are.

        Raises:
            UserError: Names the first key or value that no experiment may have.
        """
        for key in obj if isinstance(obj, Mapping) else ():
            if not isinstance(key, str):  # which no call can have
                raise UserError(f"unknown key {str(key)!r}", choices=keys_at(cls, ()))
        with _explained(obj):
            return super().model_validate(obj, **options)

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
        if self.training.final and self.chooses_on_validation:
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
    def _answers_hold_labels_of_the_target(self) -> "Experiment":
        inner: set[int] = set()
        regions = self.target.regions if self.target.kind == "regions" else {}
        for name, values in reversed(regions.items()):
            if self.target.decode[name] not in set(values) - inner:
                rule = f"target.decode.{name} must be a label of target.regions.{name} and of no region after it"
                raise UserError(rule, self.target.decode[name], [str(value) for value in values if value not in inner])
            inner |= set(values)
        return self

    @model_validator(mode="after")
    def _searched_keys_exist(self) -> "Experiment":
        for key in self.search.space:
            fixed = key.split(".")[0] in _FIXED and key != PREPROCESS  # chosen by name from search.preprocess
            if fixed or not has_key(type(self), key.split(".")):
                raise UserError(
                    "search.space must have keys of an experiment that can be searched", key, _searchable(key)
                )
        return self

    @property
    def chooses_on_validation(self) -> bool:
        """Return whether a training chooses an epoch, or threshold and clean-up, on its validation patients."""
        training = self.training
        return training.keep != "last" or training.patience is not None or self.postprocess.choose

    @property
    def resolved(self) -> "Experiment":
        """Return the experiment with every derived value filled in; settings themselves stay as given.

        Experiments with equal results compute the same.
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
        UserError: If the file is missing, is not YAML, or holds a key or value that no experiment may have, or a search
            space with one that no trial could train with.
    """
    overrides = list(overrides)
    experiment = _read(path, overrides)
    try:
        _check_kind(experiment.target)
        check_search(experiment if _change_search(overrides) else _read(path, ()))
    except UserError as error:
        raise error.replace(file=path) from None
    return experiment


def _check_kind(target: TargetSettings) -> None:
    """Refuse a target whose file lists labels or regions and does not state a kind that uses them."""
    for key in ("labels", "regions") if "kind" not in target.model_fields_set else ():
        if value := getattr(target, key):
            rule = f"a target with {key} must state its kind: without one, every label is tumor"
            raise UserError(rule, value, ["multiclass", "regions"], hint="set target.kind")


def load_recorded(path: Path) -> Experiment:
    """Read an experiment recorded by a run, without checking its search again.

    The first release used other augmentation under the same names. It recorded all its settings, and it did not
    have `training.cuda_graphs`.

    Raises:
        UserError: If it has a key or a value that this version does not know; says that another version recorded it.
    """
    try:
        experiment = _read(path, ())
    except UserError as error:
        rule = f"GlioFlow {__version__} cannot read the experiment that the run recorded: {error.rule}"
        hint = "use the version that recorded it, which is the run's tag glioflow.version"
        raise error.replace(rule=rule, choices=None, hint=hint, file=None) from None
    recorded, sampling = parse_yaml(read_text(path)).get("training", {}), experiment.training.sampling
    is_whole = {"accumulate", "channels_last", "compile", "deterministic", "precision", "seed"} <= recorded.keys()
    if is_whole and "cuda_graphs" not in recorded and sampling.augmentation in FIRST_RELEASE:
        return with_augmentation(experiment, FIRST_RELEASE[sampling.augmentation])
    return experiment


def with_augmentation(experiment: Experiment, name: str) -> Experiment:
    """Return the experiment with another augmentation policy."""
    sampling = experiment.training.sampling.model_copy(update={"augmentation": name})
    training = experiment.training.model_copy(update={"sampling": sampling})
    return experiment.model_copy(update={"training": training})


def _read(path: Path, overrides: Iterable[str]) -> Experiment:
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        others = sorted(str(other) for other in folder.glob("[!.]*.yaml") if other.is_file())
        hint = None if others else "give the path of a YAML file"
        missing = f"the experiment file {path} does not exist"
        rule = f"{path} is a folder, not an experiment file" if path.is_dir() else missing
        raise UserError(rule, path, others or None, hint=hint)
    try:
        values = parse_yaml(read_text(path))
    except UserError as error:
        raise error.replace(file=path) from None
    except OSError as error:
        raise UserError(f"the experiment file cannot be read: {one_line(error)}", file=path) from None
    if not isinstance(values, dict):
        hint = "write one key in each line, such as name: my-unet"
        raise UserError("an experiment file must hold keys and values", file=path, hint=hint)
    values.setdefault("name", path.stem)
    values = overridden(values, parse_overrides(overrides))
    try:
        return _validate(values)
    except UserError as error:
        raise error.replace(file=path) from None


def override(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """Return the experiment with some dotted keys changed, and validate it."""
    return _validate(overridden(experiment.model_dump(mode="json"), values))


def override_texts(experiment: Experiment, texts: Iterable[str]) -> Experiment:
    """Return the experiment with overrides in the form `section.key=value`, as in `load_experiment`."""
    texts = list(texts)
    changed = override(experiment, parse_overrides(texts))
    if _change_search(texts):
        check_search(changed)
    return changed


def _change_search(overrides: Iterable[str]) -> bool:
    """Return whether overrides change the search; other errors of a search are raised by the search itself."""
    return any(text.strip().startswith("search") for text in overrides)


def check_search(experiment: Experiment) -> None:
    """Refuse a search space with a value, condition, first point or grid point that no trial could train with.

    Raises:
        UserError: That names the key and the value.
    """
    settings = experiment.search
    _check_searched_keys(settings)

    def try_point(point: Mapping[str, Any]) -> UserError | None:
        try:
            values = {**settings.overrides(point), "search": {}}
            tried = _validate(overridden(experiment.model_dump(mode="json"), values)).resolved
            tried.loss.check(tried.target.task, tried.target.num_outputs)
        except UserError as error:
            return error
        return None

    check_points(settings, try_point)


def _check_searched_keys(settings: SearchSettings) -> None:
    """Refuse a search over tasks, over whole sections with keys that all trials share, and of a key before its section.

    Recorded searches of earlier versions may have them.
    """
    seen: list[str] = []
    for key in settings.space:
        if key.split(".")[0] == _TASK:
            rule = "a search cannot change the target: scores of different tasks do not compare"
            raise UserError(rule, key, hint="search each target in an experiment of its own")
        if key in _IN_PARTS:
            rule = f"search.space must have single keys of {key}, not the section: all trials share some of its keys"
            keys = STAGE_KEYS if key == "survival" else (f"{key}.{name}" for name in keys_at(Experiment, [key]) or ())
            raise UserError(rule, choices=[each for each in keys if each not in BOOKED])
        if inner := next((each for each in seen if each.startswith(f"{key}.")), None):
            rule = f"search.space: {key} must come before {inner}, whose value it would replace"
            raise UserError(rule, hint=f"put {key} first")
        seen.append(key)


def _searchable(key: str) -> list[str]:
    """Return the searchable keys that may be meant: the same in another section, else of its section, else sections."""
    *section, name = key.split(".")
    sections = sorted(set(Experiment.model_fields) - {*_FIXED, _TASK})
    meant = [each for each in misplaced(Experiment, (*section, name)) if each.split(".")[0] in sections]
    names = keys_at(Experiment, section) if has_key(Experiment, section) and section[0] in sections else None
    if meant or names is None:
        return meant or sections
    return [".".join((*section, name)) for name in names]


def _validate(values: Mapping[str, object]) -> Experiment:
    if (problem := find_no_number(Experiment, values, "")) is not None:
        raise problem
    return Experiment.model_validate(values)


@contextmanager
def _explained(values: object) -> Iterator[None]:
    """Turn pydantic's error about the values of an experiment into ours."""
    try:
        yield
    except ValidationError as error:
        raise explain(error, Experiment, values) from None
