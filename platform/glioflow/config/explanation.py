"""Pydantic's validation errors of an experiment, as one rule about one key."""

import datetime
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from glioflow.config.schema import has_key, keys_at, misplaced, words_of
from glioflow.errors import UserError

# Rules by pydantic's error types; pydantic fills in the limits.
_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "too_short": "must have at least {min_length} values",
    "too_long": "must have at most {max_length} values",
    "literal_error": "must be one of the listed values",
    "string_type": "must be text",
    "string_pattern_mismatch": "must begin with a letter or digit and have at most 81 letters, digits, '.', '_', '-'",
    "missing": "must be given",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a section with keys"),
}


def explain(error: ValidationError, model: type[BaseModel]) -> UserError:
    """Return pydantic's first error about the values of `model`, with the key and its valid values."""
    # A misspelled key is also a missing one; reporting the misspelling is more useful.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    context: Mapping[str, Any] = first.get("ctx", {})
    loc = first["loc"]
    if has_key(model, loc[:-1]) and not keys_at(model, loc[:-1]):
        loc = loc[:-1]  # the last part is a type of the value
    key = ".".join(str(part) for part in loc)
    if isinstance(cause := context.get("error"), UserError):
        return cause.replace(rule=f"{key}: {cause.rule}") if key else cause
    if first["type"] in ("extra_forbidden", "invalid_key"):
        *section, name = loc
        if meant := misplaced(model, loc):
            return UserError(f"unknown key {key!r}", hint=f"did you mean {' or '.join(meant)}?")
        return UserError(f"unknown key {key!r}", str(name), keys_at(model, section))
    if first["type"] == "union_tag_not_found":
        (name,) = _quoted(context["discriminator"])
        rule = f"{key}.{name} {_RULES['missing']}"
        return UserError(rule, repr(first["input"])[:120], words_of(model, (*loc, name)))
    if first["type"] == "union_tag_invalid":
        (name,) = _quoted(context["discriminator"])
        rule = f"{key}.{name} {_RULES['literal_error']}"
        return UserError(rule, context["tag"], _quoted(context["expected_tags"]))
    given = None if first["type"] in ("value_error", "missing") else repr(first["input"])[:120]
    choices = None
    if first["type"] in ("literal_error", "missing"):
        choices = _words_at(loc, error) if first["type"] == "literal_error" else words_of(model, loc)
    hint = None
    if first["type"] == "string_type" and isinstance(first["input"], int | float | datetime.date):
        given, hint = str(first["input"]), "put it in quotes"
    if key and first["type"] in _RULES:
        return UserError(f"{key} {_RULES[first['type']].format(**context)}", given, choices, hint=hint)
    message = str(context["error"]) if first["type"] == "value_error" else first["msg"]
    return UserError(f"{key}: {message}" if key else message, given, choices, hint=hint)


def _words_at(key: tuple[str | int, ...], error: ValidationError) -> list[str]:
    """Return the valid words for a key, over all types of its value."""
    problems = [each for each in error.errors() if each["type"] == "literal_error" and each["loc"][: len(key)] == key]
    return [word for problem in problems for word in _quoted(problem["ctx"]["expected"])]


def _quoted(text: str) -> list[str]:
    """Return the quoted words in pydantic's message."""
    return re.findall(r"'([^']*)'", text)
