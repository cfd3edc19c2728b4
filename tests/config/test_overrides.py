"""Settings stay as given: an override means what the same value in the file means, and defaults follow it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from glioflow.config import Experiment, load_experiment, load_recorded, override
from glioflow.config.schema import models_of
from glioflow.errors import UserError
from glioflow.models import ARCHITECTURES, LOSSES
from glioflow.runs.launch import to_yaml

FILES = sorted((Path(__file__).parents[2] / "experiments").rglob("*.yaml"))
TERMS = [{"name": "dice"}, {"name": "focal", "weight": 2.0}]
# Written by the code before settings stayed as given: every derived default stands there as if it were given.
OLD = {
    "model": {"architecture": "unet", "encoder": "resnet18"},
    "loss": {"name": "sum", "terms": TERMS},
}
VOLUMETRIC = {"model": {"architecture": "unet3d"}, "training": {"sampling": {"patch": [32, 64, 64]}}}
BASES: list[dict[str, Any]] = [
    *(yaml.safe_load(path.read_text()) for path in FILES),
    {},
    {"model": {"encoder": "resnet18", "weights": "imagenet"}},
    {"model": {"architecture": "buda-unet", "weights": "imagenet", "freeze": "encoder"}},
    {"loss": {"terms": TERMS}},
    {"loss": {"name": "dice"}},
    VOLUMETRIC,
    {**VOLUMETRIC, "inference": {"patch": [64, 96, 96]}},
    OLD,
]
# Besides what stands in the files and the defaults: values on which other settings depend.
TELLING: dict[str, list[Any]] = {
    "model.architecture": list(ARCHITECTURES),
    "model.encoder": ["resnet18", "vgg16", "tu-vit_tiny_patch16_224"],
    "model.weights": ["imagenet"],
    "loss.name": [*LOSSES, "sum"],
    "loss.terms": [TERMS, []],
    "training.sampling.patch": [[16, 16, 16], [32, 96, 96]],
    "inference.patch": [[8, 16, 16]],
    "training.num_workers": [2, [1, 3]],
    "split.method": ["counts", "kfold", "file"],
    "search.sampler": ["grid", "gp"],
}


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if len(inner := models_of(field.annotation)) == 1:
            yield from keys_of(inner[0], f"{prefix}{name}.")


def values_at(key: str) -> list[Any]:
    """Return the values that a key has in the experiments of the repository and by default, and some that break it."""
    found = [None, 0, 2, True, "none", *TELLING.get(key, [])]
    for base in [*BASES, Experiment().model_dump(mode="json")]:
        value: Any = base
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found += [] if value is None else [value]
    return found


KEYS = sorted(set(keys_of(Experiment)) - {"search.space"})


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    return {key: draw(st.sampled_from(values_at(key))) for key in keys}


def with_values(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    changed = yaml.safe_load(yaml.safe_dump(base, sort_keys=False))
    for key, value in values.items():
        *sections, last = key.split(".")
        section = changed
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return changed


def result_of(make: Any) -> Experiment | None:
    """Return what was made; None where it was refused."""
    try:
        experiment = make()
    except UserError:
        return None
    assert isinstance(experiment, Experiment)
    return experiment


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments") / "some.yaml"


@given(base=st.sampled_from(BASES), values=changes())
@example(base=VOLUMETRIC, values={"training.sampling.patch": [16, 16, 16]})
@example(base={}, values={"target.labels": [1, 4]})
@example(base={}, values={"loss.terms": TERMS})
@example(base={"loss": {"terms": TERMS}}, values={"loss.terms": [], "loss.name": "dice"})
@example(base={"model": {"architecture": "buda-unet", "weights": "imagenet"}}, values={"model.architecture": "unet"})
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_override_and_the_same_value_in_the_file_give_equal_experiments(path, base, values):
    if any(a != b and b.startswith(f"{a}.") for a in values for b in values):
        return  # a section and a key in it: their order decides
    named = {"name": "some", **base}
    path.write_text(yaml.safe_dump(named, sort_keys=False))
    begun = load_experiment(path)
    begun = Experiment.model_validate_json(begun.model_dump_json())  # as it travels to a worker
    try:
        text = yaml.safe_dump(with_values(named, values), sort_keys=False)
    except (AttributeError, TypeError):  # a key below a section that this file sets to something else
        return
    path.write_text(text)
    written, overridden = (result_of(make) for make in (lambda: load_recorded(path), lambda: override(begun, values)))
    assert overridden == written
    assert written is None or overridden.resolved == written.resolved


@pytest.mark.parametrize("base", BASES, ids=range(len(BASES)))
def test_what_follows_from_settings_is_not_stored_as_if_it_were_given(base, path):
    path.write_text(yaml.safe_dump({"name": "some", **base}, sort_keys=False))
    experiment = load_experiment(path)
    assert experiment.resolved.resolved == experiment.resolved
    path.write_text(to_yaml(experiment))
    assert load_experiment(path) == experiment
    path.write_text(to_yaml(experiment.resolved))  # as older versions logged it
    assert load_experiment(path).resolved == experiment.resolved


def test_the_window_of_a_3d_network_follows_the_searched_patch():
    base = Experiment.model_validate(VOLUMETRIC)
    assert base.resolved.inference.patch == (32, 64, 64)
    assert override(base, {"training.sampling.patch": [16, 16, 16]}).resolved.inference.patch == (16, 16, 16)
    given_window = override(base, {"inference.patch": [64, 96, 96]})
    changed = override(given_window, {"training.sampling.patch": [16, 16, 16]})
    assert changed.resolved.inference.patch == (64, 96, 96)


def test_a_2d_network_takes_no_window():
    with pytest.raises(UserError, match=r"inference\.patch"):
        override(Experiment(), {"inference.patch": [8, 16, 16]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("split.folds=1", "split.folds must be at least 2; got 1"),
        ("training.epochs=2.5", "training.epochs must be a whole number; got 2.5"),
        ("training.deterministic=perhaps", "training.deterministic must be true or false; got 'perhaps'"),
        ("split.method=kfolds", "split.method must be one of the listed values; got 'kfolds'; did you mean kfold?"),
        (
            "preprocess=[{step: resizee}]",
            "preprocess.0.step must be one of the listed values; got resizee; did you mean re",
        ),
        ("training=3", "training must be a section with keys; got 3"),
    ],
)
def test_a_wrong_value_is_refused_in_one_plain_rule(changed, message):
    with pytest.raises(UserError) as refused:
        load_experiment(Path(__file__).parents[2] / "experiments" / "demo.yaml", [changed])
    assert message in str(refused.value)
