"""What callers may give: experiments with overrides, models and runs by name or as results, a listener for progress."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from glioflow.atomic import check_folder
from glioflow.cluster.storage import is_uri
from glioflow.config import Experiment, load_experiment
from glioflow.config.experiment import override_texts
from glioflow.errors import UserError

Overrides = Iterable[str] | Mapping[str, Any]


def read_experiment(experiment: Experiment | str | Path, overrides: Overrides = ()) -> Experiment:
    """Return an experiment with its overrides.

    Args:
        experiment: The experiment, or its file.
        overrides: `section.key=value` texts, or values by dotted key.

    Raises:
        UserError: If the file or an override is wrong.
    """
    texts = override_list(overrides)
    if isinstance(experiment, Experiment):
        return override_texts(experiment, texts) if texts else experiment
    return load_experiment(_experiment_path(experiment), texts)


def _experiment_path(experiment: object) -> Path:
    if isinstance(experiment, str | os.PathLike):
        return Path(experiment)
    hint = "gf.Experiment.model_validate makes one from a dictionary" if isinstance(experiment, Mapping) else None
    raise wrong_type("an experiment must be the path of its file or a gf.Experiment", experiment, hint)


def wrong_type(rule: str, value: object, hint: str | None = None) -> UserError:
    """Return the error for an argument of a type that the API does not take."""
    shown = " ".join(f"{value!r:.60}".split())
    return UserError(rule, shown if value is None else f"{shown} of type {type(value).__name__}", hint=hint)


def override_list(overrides: Overrides) -> list[str]:
    """Return overrides as `section.key=value` texts; raises `UserError` if they are something else."""
    if isinstance(overrides, str):
        return [overrides]
    if isinstance(overrides, Mapping):
        return [f"{key}={_as_yaml(key, value)}" for key, value in overrides.items()]
    texts = list(overrides) if isinstance(overrides, Iterable) and not hasattr(overrides, "read") else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise wrong_type("overrides must be texts such as 'training.epochs=3', or values by key", overrides)
    return texts


def _as_yaml(key: object, value: object) -> str:
    """Return the value of a key as JSON, which is YAML, also if it is numpy's or a path."""

    def plain(inner: Any) -> object:
        if isinstance(inner, os.PathLike):
            return str(os.fspath(inner))
        if hasattr(inner, "tolist"):
            return inner.tolist()
        raise wrong_type(f"{key} must be a value that an experiment file can have", inner)

    return json.dumps(value, default=plain)


def check_beside(folder: str | Path, name: str, source: str | Path | None, *, of: str = "cohort") -> None:
    """Refuse a folder in which nothing can be written, or whose files would be read as those of a cohort or study.

    Args:
        folder: The folder, which need not exist.
        name: The user's name for it, such as `--out`.
        source: What is read; only a folder can contain `folder`.
        of: Kind of `source`, for the message.

    Raises:
        UserError: As `check_folder`, or if `folder` is `source` or lies in it.
    """
    check_folder(Path(folder), name)
    within = Path(os.path.realpath(folder))
    if source is not None and not is_uri(source) and Path(os.path.realpath(source)) in (within, *within.parents):
        raise UserError(f"{name} must not be in the {of}'s folder", folder, hint="give another folder")


def run_of(run: Any) -> str:
    """Return the id of a run that is given by its id or as a result that has one.

    Raises:
        UserError: If it is neither.
    """
    run_id = getattr(run, "run_id", run)
    if not isinstance(run_id, str):
        raise wrong_type("a run must be its id or the result that has it, such as that of gf.train", run)
    return run_id


def check_number(name: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Refuse a number outside of [least, most]; None, which means a default, is none.

    Raises:
        UserError: Names the argument.
    """
    if value is None:
        return
    if not isinstance(value, int | float | Real) or isinstance(value, bool):
        raise wrong_type(f"{name} must be a number", value)
    if not least <= value <= most:
        raise UserError(
            f"{name} must be at least {least}" + ("" if most == math.inf else f" and at most {most}"), value
        )


def registered_name(model: Any) -> str:
    """Return the name of a registered model that is given by its name or as a result that has one.

    Raises:
        UserError: If it is neither.
    """
    name = model.name if hasattr(model, "version") else model
    if not isinstance(name, str):
        raise wrong_type("a registered model must be its name or the result of gf.register", model)
    return name


def model_name(model: Any) -> str:
    """Return the name by which the library finds a model.

    Args:
        model: A name, a path, a list of them (an ensemble), or the result of `train`, `register` or `promote`.

    Raises:
        UserError: If it is none of these.
    """
    if isinstance(model, list | tuple):
        if not model:
            raise UserError("an ensemble must have at least one model", "[]", hint="name one, such as starter")
        return ",".join(model_name(member) for member in model)
    if hasattr(model, "version"):
        return f"models:/{model.name}/{model.version}"
    if isinstance(model, os.PathLike):
        return str(os.fspath(model))
    if not isinstance(getattr(model, "run_id", model), str):
        raise wrong_type("a model must be its name, a path, a run, or a result such as that of gf.train", model)
    return run_of(model)
