"""What callers may give: experiments with overrides, models and runs by name or as results, a listener for progress."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glioflow.config import Experiment, load_experiment
from glioflow.config.experiment import override_texts

Overrides = Iterable[str] | Mapping[str, Any]


def print_progress(text: str, part: float | None = None) -> None:
    """Print a line of progress to stderr."""
    if text:
        print(text, file=sys.stderr, flush=True)


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
    return load_experiment(Path(experiment), texts)


def override_list(overrides: Overrides) -> list[str]:
    """Return overrides as `section.key=value` texts."""
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return [overrides] if isinstance(overrides, str) else list(overrides)


def run_of(run: Any) -> str:
    """Return the id of a run that is given by its id or as a result that has one."""
    return str(getattr(run, "run_id", run))


def model_name(model: Any) -> str:
    """Return the name by which the library finds a model.

    Args:
        model: A name, a path, a list of them (an ensemble), or the result of `train`, `register` or `promote`.
    """
    if isinstance(model, list | tuple):
        return ",".join(model_name(member) for member in model)
    if hasattr(model, "version"):
        return f"models:/{model.name}/{model.version}"
    return run_of(model)
