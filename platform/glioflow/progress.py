"""Progress of long work, reported to a function from the caller, such as one that prints."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")
# Seconds to the first line about many similar steps, and between the next ones.
FIRST_S, LINE_S = 2.0, 15.0
# Seconds between lines about what is waited for, in the first minute and later.
WAIT_S, MINUTE_S = 10.0, 60.0


class Say(Protocol):
    """Receives progress: a line of text and, where it is known, the part of the work that is done, in [0, 1]."""

    def __call__(self, text: str, part: float | None = None) -> None:
        """Receive one report."""


def quiet(text: str, part: float | None = None) -> None:
    """Ignore progress."""


def print_progress(text: str, part: float | None = None) -> None:
    """Print a line of progress to stderr."""
    if text:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def waiting(what: str, say: Say) -> Iterator[Callable[[], None]]:
    """Say while a block runs that it waits for `what` and for how long; give what ends this earlier.

    A line comes every 10 s in the first minute and every minute afterwards.
    """
    began, over, told = time.monotonic(), threading.Event(), 0.0

    def tell() -> None:
        nonlocal told
        waited = time.monotonic() - began
        if not over.is_set() and (waited < MINUTE_S or waited - told >= MINUTE_S):
            told = waited
            say(f"waiting for {what} ({waited:.0f} s so far)")

    with repeating(tell, every_s=WAIT_S):
        yield over.set


@contextmanager
def repeating(call: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Call a function periodically, in a thread, while a block runs."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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


def lines_of(say: Say) -> Say:
    """Return a listener that passes on lines alone, for a part of the work that a bar does not count."""
    return lambda text, part=None: say(text) if text else None


def counted(items: Sequence[Item], what: str, say: Say) -> Iterator[Item]:
    """Yield each item, and report after it how many are done, such as "case 3 of 12"."""
    for number, item in enumerate(items, start=1):
        yield item
        say(f"{what} {number} of {len(items)}", number / len(items))


def portion(say: Say, name: str, first: float, last: float) -> Say:
    """Return a listener whose lines begin with `name` and whose [0, 1] is [first, last] of the whole work."""
    return lambda text, part=None: say(f"{name}: {text}", first + (last - first) * (part or 0.0))
