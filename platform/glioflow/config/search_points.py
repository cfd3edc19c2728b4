"""Validation of a search space before a run: each value in a complete point in which its conditions hold."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from glioflow.config.search import Choice, Parameter, Point, SearchSettings
from glioflow.errors import UserError

Try = Callable[[Mapping[str, Any]], UserError | None]

# Every point of a grid is validated, and later trained.
MAX_GRID = 2000
# Most combinations examined to find points that contain a value.
_LOOKED_AT = 10_000
# Of a range: positions between its ends where numbers are tried, and the number of integers tried.
_BETWEEN, _PROBES = 0.6180339887, 15
# Most completions of a point tried before a value counts as untrainable.
_FILLINGS = 64


def check_points(settings: SearchSettings, try_point: Try) -> None:
    """Refuse a value, a condition, a first point or a point of a grid that no trial could train with.

    Args:
        settings: Settings with the search space.
        try_point: Returns the error of a point's experiment, or None.

    Raises:
        UserError: That names the key and the value.
    """
    for key in settings.space:
        _check_conditions(settings, key)
        _check_differ(settings, key)
    _check_values(settings, try_point)
    for number, point in enumerate(settings.first, start=1):
        _check_first(settings, number, point)
        rule = f"search.first: point {number} cannot be trained with"
        _refuse(rule, _trouble(settings, point, try_point))
    if settings.sampler == "grid" and settings.space:
        _check_grid(settings, try_point)


def _check_values(settings: SearchSettings, try_point: Try) -> None:
    """Refuse a value that is in no trainable point; prefer one that is invalid by itself."""
    refusals = []
    for key, parameter in settings.space.items():
        for value in _probed(parameter):
            if (trouble := _trouble(settings, {key: value}, try_point)) is not None:
                alone = {other: values[0] for other, values in _with_conditions(settings, {key: value}).items()}
                refusals.append((try_point(alone) is None, f"search.space: {key} cannot be {_text(value)}", trouble))
    if refusals:
        _, rule, trouble = min(refusals, key=lambda each: each[0])
        _refuse(rule, trouble)


def _check_conditions(settings: SearchSettings, key: str) -> None:
    for other, values in settings.space[key].when.items():
        if settings.space[other].kind == "float":
            rule = f"search.space: {key} depends on {other}, of whose numbers none is drawn twice"
            raise UserError(rule, hint=f"make {other} a choice or an int")
        for value in values:
            if not is_value(settings.space[other], value):
                rule = f"search.space: {key} depends on {other} being {_text(value)}, which it never is"
                raise UserError(rule, choices=_choices(settings.space[other]))


def _check_differ(settings: SearchSettings, key: str) -> None:
    """Refuse values that are written alike, or that are equal, as 1 and true are: one would hide the other."""
    parameter = settings.space[key]
    values = parameter.values if isinstance(parameter, Choice) else ()
    texts = [_text(value) for value in values]
    for (one, value), (other, same) in itertools.combinations(zip(texts, values, strict=True), 2):
        if one == other or value == same:
            got = f"{one} twice" if one == other else f"{one} and {other}, which are equal"
            raise UserError(f"search.space: the values of {key} must differ", got, hint="remove one")


def _check_first(settings: SearchSettings, number: int, point: Mapping[str, Any]) -> None:
    for key, value in point.items():
        if not is_value(settings.space[key], value):
            rule = f"search.first: point {number} has {_text(value)} for {key}, which search.space does not"
            raise UserError(rule, value, _choices(settings.space[key]))
        if not settings.active(key, point):
            rule = f"search.first: point {number} has a value for {key}, whose conditions do not hold in it"
            raise UserError(rule, hint=f"remove {key}, or give {' and '.join(settings.space[key].when)} as it needs")


def _check_grid(settings: SearchSettings, try_point: Try) -> None:
    size = settings.grid_size
    if size > MAX_GRID:
        rule = f"a grid must have at most {MAX_GRID} points"
        raise UserError(rule, size, hint="leave out values, or take another search.sampler")
    for point in settings.grid():
        _refuse(f"search.space: the point {_text(point)} of the grid cannot be trained with", try_point(point))


def _refuse(rule: str, trouble: UserError | None) -> None:
    if trouble is not None:
        raise trouble.replace(rule=f"{rule}: {trouble.rule}")


def _trouble(settings: SearchSettings, part: Mapping[str, Any], try_point: Try) -> UserError | None:
    """Return why no complete point with `part` is trainable, from the first one tried."""
    first = None
    for point in itertools.islice(_fillings(settings, part), _FILLINGS):
        trouble = try_point(point)
        if trouble is None:
            return None
        first = first or trouble
    return first or UserError("its conditions never hold together", hint="change `when`")


def _fillings(settings: SearchSettings, part: Mapping[str, Any]) -> Iterator[Point]:
    """Yield complete points with `part`: first the one of first values, then others, distant ones early."""
    fixed = _with_conditions(settings, part)
    keys = list(settings.space)
    options = [list(fixed[key] if key in fixed else _tried(settings.space[key])) for key in keys]
    longest = max(len(values) for values in options)
    turned = ([values[turn % len(values)] for values in options] for turn in range(longest))
    seen = set()
    for values in itertools.islice(itertools.chain(turned, itertools.product(*options)), _LOOKED_AT):
        point: Point = {}
        for key, value in zip(keys, values, strict=True):
            if settings.active(key, point):
                point[key] = value
        text = _text(point)
        if text not in seen and all(_text(point.get(key)) == _text(value) for key, value in part.items()):
            seen.add(text)
            yield point


def _with_conditions(settings: SearchSettings, part: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the possible values of keys in a point in which those of `part` exist."""
    allowed: dict[str, tuple[Any, ...]] = {key: (value,) for key, value in part.items()}
    waiting = list(part)
    while waiting:
        for other, values in settings.space[waiting.pop()].when.items():
            known = allowed.get(other)
            allowed[other] = values if known is None else tuple(value for value in known if value in values) or known
            waiting.append(other)
    return allowed


def _tried(parameter: Parameter) -> tuple[Any, ...]:
    return parameter.values if isinstance(parameter, Choice) else (parameter.low, parameter.high)


def _probed(parameter: Parameter) -> tuple[Any, ...]:
    """Return representative values of a parameter: for a range, its ends and some unrounded values between them."""
    if isinstance(parameter, Choice):
        return parameter.values
    if parameter.kind == "float":
        return (parameter.low, parameter.high, parameter.low + (parameter.high - parameter.low) * _BETWEEN)
    low, width = int(parameter.low), int(parameter.high) - int(parameter.low)
    step = max(1, width // _PROBES)
    return tuple(sorted({low, low + 1, low + width, *range(low, low + width, step)}))


def known_part(settings: SearchSettings, point: Mapping[str, Any]) -> Point:
    """Return the part of another space's point that fits into a point of this space."""
    known: Point = {}
    for key, parameter in settings.space.items():
        if key in point and settings.active(key, known) and is_value(parameter, point[key]):
            known[key] = point[key]
    return known


def is_value(parameter: Parameter, value: Any) -> bool:
    """Return whether a parameter can have a value; true does not count as 1."""
    if isinstance(parameter, Choice):
        return _text(value) in {_text(each) for each in parameter.values}
    whole = parameter.kind == "int"
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    return number and parameter.low <= value <= parameter.high


def _choices(parameter: Parameter) -> list[str]:
    if isinstance(parameter, Choice):
        return [_text(value) for value in parameter.values]
    return [f"a number from {parameter.low} to {parameter.high}"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
