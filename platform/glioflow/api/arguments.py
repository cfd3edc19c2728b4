"""Checks of arguments: one of a wrong type, or a text that no path can be, is a `UserError` that names the argument."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from glioflow.api.inputs import wrong_type
from glioflow.errors import UserError, nearest_choice, unusable_path
from glioflow.progress import Say

Function = TypeVar("Function", bound=Callable[..., Any])
Check = Callable[[object], bool]


def _is_flag(value: object) -> bool:
    return (isinstance(value, int) and value in (0, 1)) or type(value).__name__ in ("bool", "bool_")  # numpy's


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


# What an annotation allows, with its word for people.
_ALLOWED: dict[object, tuple[Check, str]] = {
    Path: (lambda value: isinstance(value, os.PathLike), "a path"),
    str: (lambda value: isinstance(value, str), "a text"),
    bool: (_is_flag, "True or False"),
    int: (lambda value: isinstance(value, Integral) and not isinstance(value, bool), "a whole number"),
    float: (_is_number, "a number"),
    Say: (callable, "a function of a line and a part, such as print"),
    NoneType: (lambda value: value is None, ""),
}
_HINTS = {Say: "`lambda *_: None` hears nothing"}


def checked(function: Function) -> Function:
    """Return the function with a check of its arguments by their annotations, such as `str | Path | None`.

    An annotation with other types than texts, paths, numbers, flags, listeners and lists of them is the function's own
    to check. A path that the system refuses is a mistake, too.

    Raises:
        UserError: On a call with another type: names the argument and what it must be.
        TypeError: On a call with an argument too many or too few, as Python does.
    """
    signature = inspect.signature(function)
    kinds = {name: _kinds(parameter.annotation) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        try:
            given = signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{function.__name__}: {error}{_meant(named, kinds)}") from None
        for name, value in given.arguments.items():
            given.arguments[name] = _checked_value(name, value, *kinds[name])
        try:
            return function(*given.args, **given.kwargs)
        except OSError as error:
            mistake = unusable_path(error)
            if mistake is None:
                raise
            raise mistake from error

    return call  # type: ignore[return-value]


def _meant(named: Iterable[str], known: Mapping[str, object]) -> str:
    """Return a question after the argument that the first unknown one may mean."""
    unknown = next((name for name in named if name not in known), None)
    meant = nearest_choice(unknown, known)
    return "" if meant is None else f"; did you mean {meant}?"


def _kinds(annotation: Any) -> tuple[type | None, tuple[object, ...]]:
    """Return the list that an annotation asks for, if any, and the kinds of its values; none of other annotations."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    optional = (NoneType,) if NoneType in choices else ()
    lists = [choice for choice in choices if get_origin(choice) in (Sequence, Iterable, tuple)]
    if not lists:
        return None, choices if _ALLOWED.keys() >= {*choices} else ()
    if len(lists) + len(optional) < len(choices):
        return None, ()
    kinds = [kind for inner in get_args(lists[0]) for kind in (get_args(inner) or (inner,))]
    return tuple if get_origin(lists[0]) is tuple else list, (*kinds, *optional)


def _checked_value(name: str, value: Any, make: type | None, kinds: tuple[object, ...]) -> Any:
    """Return a value, and in place of an iterator or an array a list, since it is gone once read, or has no truth."""
    if make is not None and not (value is None and NoneType in kinds):
        several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) and not _is_open(value)
        values = make(value) if several else None
        if values is None or not all(each is not None and _is_one_of(each, kinds) for each in values):
            raise wrong_type(f"{name} must be a list, each {_word(kinds)}", value)
        value = value if isinstance(value, list | tuple) else values
    elif make is None and kinds and not _is_one_of(value, kinds):
        hint = next((_HINTS[kind] for kind in kinds if kind in _HINTS), None)
        raise wrong_type(f"{name} must be {_word(kinds)}", value, hint)
    for each in value if isinstance(value, list | tuple) else [value]:
        _check_text(name, each)
    return value


def _is_open(value: object) -> bool:
    return hasattr(value, "read")  # a file, which would give its lines


def _is_one_of(value: object, kinds: tuple[object, ...]) -> bool:
    return any(_ALLOWED[kind][0](value) for kind in kinds)


def _word(kinds: tuple[object, ...]) -> str:
    """Return what a value must be: of a path or its text, a path."""
    words = [_ALLOWED[kind][1] for kind in kinds if not (kind is str and Path in kinds)]
    return next(filter(None, words))


def _check_text(name: str, value: object) -> None:
    """Refuse a text that neither a path nor a name can be: without a character, with a null or half a character."""
    if not isinstance(value, str | os.PathLike):
        return
    text = os.fspath(value)
    if not text:  # as a path, the current folder: mostly a variable that is not set
        raise UserError(f"{name} must not be empty", "", hint="give a value, or leave it out")
    try:
        usable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise UserError(f"{name} must not have null or broken characters", f"{text!r:.60}")
