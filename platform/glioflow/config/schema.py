"""The keys that the settings classes accept, and which of them are numbers."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from glioflow.errors import UserError

_NOT_FINITE = ("inf", "infinity", "nan")
# Words that are keys of one section and are often tried in others.
_OF_ANYTHING = ("kind", "name", "method")


def find_no_number(annotation: Any, value: Any, key: str) -> UserError | None:
    """Return the error for a value that is a number only in Python: true, .inf, .nan."""
    if isinstance(value, float) and not math.isfinite(value):
        return UserError(f"{key} must be a finite number", value)
    if isinstance(value, str) and value.strip(" +-").lower() in _NOT_FINITE:  # Pydantic would read it
        kinds = _kinds_of(annotation)
        return UserError(f"{key} must be a finite number", value) if kinds & {int, float} and str not in kinds else None
    if isinstance(value, bool):
        kinds = _kinds_of(annotation)
        wrong = kinds & {int, float} and not kinds & {bool, Any}
        return UserError(f"{key} must be a number", str(value).lower()) if wrong else None
    if isinstance(value, list | tuple):
        inner = [find_no_number(annotation, each, key) for each in value]
    elif isinstance(value, dict):
        fields: dict[Any, Any] = {}
        for model in models_of(annotation):
            for name, field in model.model_fields.items():
                fields[name] = (fields.get(name), field.annotation)  # of any of the kinds of a step or parameter
        inner = [  # what is no field is a key of a mapping, whose values the same annotation describes
            find_no_number(fields.get(name, annotation), each, f"{key}.{name}" if key else str(name))
            for name, each in value.items()
        ]
    else:
        return None
    return next((problem for problem in inner if problem is not None), None)


def _kinds_of(annotation: Any) -> set[Any]:
    """Return the types in an annotation."""
    parts = annotation if isinstance(annotation, tuple) else get_args(annotation)
    return set.union(*(_kinds_of(part) for part in parts)) if parts else {annotation}


def has_key(model: type[BaseModel], key: Sequence[Any]) -> bool:
    """Return whether settings have a key, given by its parts."""
    field = model.model_fields.get(key[0]) if key else None
    if field is None:
        return False
    if len(key) == 1:
        return True
    return key[0] == "options" or any(has_key(inner, key[1:]) for inner in models_of(field.annotation))


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes in an annotation or in several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = annotation if isinstance(annotation, tuple) else get_args(annotation)
    return [model for part in parts for model in models_of(part)]


def keys_at(annotation: Any, key: Sequence[Any]) -> list[str] | None:
    """Return the valid keys below `key`, through lists, mappings and kinds of steps."""
    models = _models_at(annotation, key)
    return sorted(models[0].model_fields) if models else None


def words_of(annotation: Any, key: Sequence[Any]) -> list[str]:
    """Return the words of which the value of `key` must be one, over all kinds; none where other values may be."""
    fields = [model.model_fields.get(key[-1]) for model in _models_at(annotation, key[:-1])]
    words = [get_args(field.annotation) for field in fields if field and get_origin(field.annotation) is Literal]
    return [word for each in words for word in each]


def _models_at(annotation: Any, key: Sequence[Any]) -> list[type[BaseModel]]:
    models = models_of(annotation)
    if not key:
        return models
    for model in models:
        if key[0] in model.model_fields:
            return _models_at(model.model_fields[key[0]].annotation, key[1:])
        if isinstance(key[0], str) and any(field.default == key[0] for field in model.model_fields.values()):
            return _models_at(model, key[1:])
    return _models_at(annotation, key[1:])


def misplaced(model: type[BaseModel], key: Sequence[Any]) -> list[str]:
    """Return the valid keys that an unknown key stands for if only its section is missing or wrong.

    Those of `epochs` and `model.epochs` are `training.epochs`; those of `training.loss.name` are `loss.name`.
    """
    for start in range(1, len(key)):
        ending = key[start:]
        if has_key(model, ending) and (len(ending) > 1 or models_of(model.model_fields[ending[0]].annotation)):
            return [".".join(ending)]
    named = [dotted for dotted in _dotted_keys(model) if len(key) <= 2 and dotted.split(".")[-1] == key[-1]]
    if len(key) == 2 and (len(named) > 1 or key[-1] in _OF_ANYTHING):
        return []
    return [dotted for dotted in named if dotted.count(".") == min(each.count(".") for each in named)]


def _dotted_keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{name}.{inner}" for inner in _dotted_keys(field.annotation))
