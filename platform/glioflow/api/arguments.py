"""Checks of the types of arguments: a path or a number of a wrong type is a `UserError` that names the argument."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

from glioflow.api.inputs import wrong_type

Function = TypeVar("Function", bound=Callable[..., Any])
# What an annotation allows, with its word for people.
_ALLOWED: dict[type, tuple[type, str]] = {
    Path: (os.PathLike, "a path"),
    str: (str, ""),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    NoneType: (NoneType, ""),
}


def checked(function: Function) -> Function:
    """Return the function with a check of its paths and numbers by their annotations, such as `str | Path | None`.

    Raises:
        UserError: On a call with another type: names the argument and what it must be.
    """
    signature = inspect.signature(function)
    kinds = {name: _kinds(parameter.annotation) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        for name, value in signature.bind(*args, **named).arguments.items():
            is_list, allowed = kinds[name]
            if allowed and not _is_one_of(value, allowed, is_list=is_list):
                word = next(word for kind in allowed if (word := _ALLOWED[kind][1]))
                raise wrong_type(f"{name} must be {'a list, each ' if is_list else ''}{word}", value)
        return function(*args, **named)

    return call  # type: ignore[return-value]


def _kinds(annotation: Any) -> tuple[bool, tuple[type, ...]]:
    """Return the types that an annotation of paths or a number allows, and whether in a list; none of any other."""
    is_list = get_origin(annotation) is Sequence
    (inner,) = get_args(annotation) if is_list else (annotation,)
    kinds = get_args(inner) or (inner,)
    return is_list, kinds if _ALLOWED.keys() >= {*kinds} and not {Path, int, float}.isdisjoint(kinds) else ()


def _is_one_of(value: object, kinds: tuple[type, ...], *, is_list: bool) -> bool:
    types = tuple(_ALLOWED[kind][0] for kind in kinds)
    if is_list:
        return isinstance(value, list | tuple) and all(isinstance(each, types) for each in value)
    return isinstance(value, types)
