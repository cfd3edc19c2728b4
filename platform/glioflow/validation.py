"""What is wrong with the user's values by a validation error of pydantic, and where."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

# Rules by pydantic's error types; pydantic fills in the limits.
RULES = {
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


def rule_of(problem: "ErrorDetails") -> str | None:
    """Return what must hold for a value, such as "must be at least 3"; None for a problem without a rule here."""
    rule = RULES.get(problem["type"])
    return rule and rule.format(**problem.get("ctx", {})).replace(" 1 values", " 1 value")


def path_of(problem: "ErrorDetails", values: Any) -> tuple[int | str, ...]:
    """Return the keys and indices that lead to a problem in `values`, or to what is missing there.

    Pydantic's `loc` also names the kind of a section (`choice`) and the type of a value (`int`), which nobody wrote.
    """
    loc, path = problem["loc"], list[int | str]()
    for number, part in enumerate(loc, start=1):
        if _has(values, part):
            values = values[part]
        elif number < len(loc) or problem["type"] != "missing":
            continue
        path.append(part)
    return tuple(path)


def _has(values: object, part: int | str) -> bool:
    if isinstance(values, Mapping):
        return part in values
    return isinstance(values, Sequence) and isinstance(part, int) and part < len(values)


def first_problem(error: "ValidationError", values: object) -> str:
    """Return where in `values` the first problem is, and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, path_of(first, values)))}: {first['msg']}"
