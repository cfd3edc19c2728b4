"""Progress of long work, reported to a function from the caller, such as one that prints."""

import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
# Seconds to the first line about many similar steps, and between the next ones.
FIRST_S, LINE_S = 2.0, 15.0


class Say(Protocol):
    """Receives progress: a line of text and, where it is known, the part of the work that is done, in [0, 1]."""

    def __call__(self, text: str, part: float | None = None) -> None:
        """Receive one report."""


def quiet(text: str, part: float | None = None) -> None:
    """Ignore progress."""


def occasionally(say: Say) -> Say:
    """Return a listener that passes on every fraction done, but a line only after 2 s and then every 15 s."""
    due = time.monotonic() + FIRST_S

    def pass_on(text: str, part: float | None = None) -> None:
        nonlocal due
        now = time.monotonic()
        if text and now < due:
            text = ""
        elif text:
            due = now + LINE_S
        if text or part is not None:
            say(text, part)

    return pass_on


def counted(items: Sequence[Item], what: str, say: Say) -> Iterator[Item]:
    """Yield each item, and report after it how many are done, such as "case 3 of 12"."""
    for number, item in enumerate(items, start=1):
        yield item
        say(f"{what} {number} of {len(items)}", number / len(items))


def portion(say: Say, name: str, first: float, last: float) -> Say:
    """Return a listener whose lines begin with `name` and whose [0, 1] is [first, last] of the whole work."""
    return lambda text, part=None: say(f"{name}: {text}", first + (last - first) * (part or 0.0))
