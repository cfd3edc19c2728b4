"""Where in the user's values a validation error of pydantic is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


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


def first_problem(error: ValidationError, values: object) -> str:
    """Return where in `values` the first problem is, and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, path_of(first, values)))}: {first['msg']}"
