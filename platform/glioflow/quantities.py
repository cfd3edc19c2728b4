"""Counts in messages, with their noun in the singular or plural."""


def count(number: int, noun: str) -> str:
    """Return such as `1 case` and `3 cases`, for a noun whose plural ends in `s`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
