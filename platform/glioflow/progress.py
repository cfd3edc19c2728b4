"""How long work reports its progress: to a function that the caller gives, such as one that prints."""

from typing import Protocol


class Say(Protocol):
    """Receives progress: a line of text and, where it is known, the part of the work that is done, in [0, 1]."""

    def __call__(self, text: str, part: float | None = None) -> None:
        """Receive one report."""


def quiet(text: str, part: float | None = None) -> None:
    """Ignore progress."""
