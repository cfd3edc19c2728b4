"""Pydantic's validation errors of an experiment, as one rule about one key."""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from glioflow.config.schema import keys_at, misplaced, words_of
from glioflow.errors import UserError
from glioflow.validation import RULES, path_of, rule_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def explain(error: ValidationError, model: type[BaseModel], values: object) -> UserError:
    """Return pydantic's first error about the `values` of `model`, with the key and its valid values."""
    # A misspelled key is also a missing one; reporting the misspelling is more useful.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    paths = [path_of(problem, values) for problem in problems]
    # Where a value may be of several types, the problem inside it is of the type that was meant.
    within = [k for k, path in enumerate(paths) if path[: len(paths[0])] == paths[0]]
    chosen = max(within, key=lambda k: len(paths[k]))
    first, path, loc = problems[chosen], paths[chosen], problems[chosen]["loc"]
    context: Mapping[str, Any] = first.get("ctx", {})
    key = ".".join(map(str, path))
    if isinstance(cause := context.get("error"), UserError):
        return cause.replace(rule=_about(key, cause.rule, keys_at(model, loc)))
    if first["type"] in ("extra_forbidden", "invalid_key"):
        *section, name = loc
        if meant := misplaced(model, loc):
            return UserError(f"unknown key {key!r}", hint=f"did you mean {' or '.join(meant)}?")
        return UserError(f"unknown key {key!r}", str(name), keys_at(model, section))
    if first["type"] == "union_tag_not_found":
        (name,) = _quoted(context["discriminator"])
        rule = f"{key}.{name} {RULES['missing']}"
        return UserError(rule, repr(first["input"])[:120], words_of(model, (*loc, name)))
    if first["type"] == "union_tag_invalid":
        (name,) = _quoted(context["discriminator"])
        rule = f"{key}.{name} {RULES['literal_error']}"
        return UserError(rule, context["tag"], _quoted(context["expected_tags"]))
    given = None if first["type"] in ("value_error", "missing") else repr(first["input"])[:120]
    choices = None
    if first["type"] in ("literal_error", "missing"):
        of_all_types = [each for each, there in zip(problems, paths, strict=True) if there == path]
        choices = _words_in(of_all_types) if first["type"] == "literal_error" else words_of(model, loc)
    hint = None
    if first["type"] == "string_type" and isinstance(first["input"], int | float | datetime.date):
        given, hint = str(first["input"]), "put it in quotes"
    if key and (must := rule_of(first)):
        return UserError(f"{key} {must}", given, choices, hint=hint)
    message = str(context["error"]) if first["type"] == "value_error" else first["msg"]
    return UserError(_about(key, message, keys_at(model, loc)), given, choices, hint=hint)


def _about(section: str, rule: str, keys: Sequence[str] | None) -> str:
    """Return a rule about a section with the full key: `training.num_workers must ...` for `num_workers must ...`."""
    first = re.split(r"[^\w.]", rule, maxsplit=1)[0]
    if not section or first == section or first.startswith(f"{section}."):
        return rule
    return f"{section}.{rule}" if first in (keys or ()) else f"{section}: {rule}"


def _words_in(problems: Iterable["ErrorDetails"]) -> list[str]:
    """Return the words that would solve the problems with one value."""
    expected = [problem["ctx"]["expected"] for problem in problems if problem["type"] == "literal_error"]
    return [word for text in expected for word in _quoted(text)]


def _quoted(text: str) -> list[str]:
    """Return the quoted words in pydantic's message."""
    return re.findall(r"'([^']*)'", text)
