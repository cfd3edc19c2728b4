"""Overrides of an experiment: `section.key=value` texts, and dotted keys in its nested values."""

from collections.abc import Iterable, Mapping
from typing import Any

from glioflow.errors import UserError
from glioflow.strict_yaml import INVALID, parse_yaml


def parse_overrides(overrides: Iterable[str]) -> dict[str, object]:
    """Return the values of `section.key=value` texts by key; raises `UserError` for one of another form."""
    values: dict[str, object] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError("an override must have the form section.key=value", text)
        try:
            values[key.strip()] = parse_yaml(value)
        except UserError as error:
            problem = error.rule.removeprefix(INVALID)
            raise UserError(f"the value of an override must be valid YAML: {problem}", text) from None
    return values


def overridden(experiment: dict[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """Return a copy of an experiment's values with some dotted keys changed; raises `UserError` below a value."""
    result: dict[str, object] = _copied(experiment)
    for key, value in values.items():
        *sections, last = key.split(".")
        parent = result
        for section in sections:
            inner = parent.setdefault(section, {})
            if not isinstance(inner, dict):
                hint = f"set {section} itself"
                raise UserError(f"override {key!r}: {section!r} is not a section", hint=hint)
            parent = inner
        parent[last] = value
    return result


def _copied(value: Any) -> Any:
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value
