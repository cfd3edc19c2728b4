"""Formatting of numbers as text for tables, reports and messages."""

from collections.abc import Sequence


def short(value: object, digits: int = 4) -> str:
    """Return a value as text, a float with `digits` significant digits; `-` for None."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def number(value: object, digits: int = 3) -> str:
    """Return a number with `digits` decimals, with one from 10 and none from 1,000; `-` for None."""
    if value is None:
        return "-"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits if abs(value) < 10 else 1}f}"
    return str(value)


def interval(low: float | None, high: float | None) -> str:
    """Return both ends of an interval; `-` if one is None."""
    return "-" if low is None or high is None else f"{number(low)} to {number(high)}"


def percent(value: float | None) -> str:
    """Return a share in [0, 1] as a percentage with one decimal; `-` for None."""
    return "-" if value is None else f"{value:.1%}"


def ranges(values: Sequence[int]) -> str:
    """Return ascending integers with ranges, such as `5-8, 11`; `none` for an empty list."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], value]
        else:
            runs.append([value])
    return ", ".join("-".join(map(str, run)) for run in runs) or "none"


def duration(seconds: float, *, fine: bool = False) -> str:
    """Return a duration: seconds below two minutes, minutes below two hours, then hours.

    Args:
        seconds: The duration.
        fine: Milliseconds below one second, and tenths of a second above.
    """
    if seconds < 120:
        if fine:
            return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
