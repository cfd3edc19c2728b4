"""Work in a thread that ends at its next check once no caller waits for its result."""

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
_ABANDONED: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("abandoned", default=None)


class Abandoned(Exception):  # noqa: N818 - what it is
    """No caller waits for this study any more."""


def call_until(abandoned: threading.Event, function: Callable[[], Result]) -> Result:
    """Call a function without arguments, which ends at its next `check_wanted` once the event is set."""

    def call() -> Result:
        _ABANDONED.set(abandoned)
        check_wanted()
        return function()

    return contextvars.copy_context().run(call)


def current_study() -> threading.Event | None:
    """Return the event set when this thread's study is no longer wanted; None outside of `call_until`."""
    return _ABANDONED.get()


def check_wanted() -> None:
    """Raise `Abandoned` if no caller waits any more for what this thread computes."""
    abandoned = _ABANDONED.get()
    if abandoned is not None and abandoned.is_set():
        raise Abandoned
