"""How many studies a process takes, and what becomes of one that nobody waits for. Knows neither Ray nor HTTP."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from glioflow.errors import UserError

Given = ParamSpec("Given")
Result = TypeVar("Result")
_ABANDONED: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("abandoned", default=None)


class Full(UserError):  # noqa: N818 - what it is
    """As many studies wait as may."""

    code = "busy"


class Abandoned(Exception):  # noqa: N818 - what it is
    """Nobody waits for this study any more."""


class Admission:
    """Threads for so many studies at once; so many more wait in the order in which they came.

    Attributes:
        inside: How many are computed or wait.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        """Take at most `at_once + waiting` studies."""
        self._most, self.inside = at_once + waiting, 0
        self._pool = ThreadPoolExecutor(at_once, "study")

    async def run(self, function: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result | Full:
        """Call a function in a thread; where this is cancelled, it is not begun, or ends at its next `check_wanted`."""
        if self.inside >= self._most:
            return Full("the endpoint is busy; try again", f"{self.inside} studies")
        self.inside += 1
        abandoned = threading.Event()

        def call() -> Result:
            _ABANDONED.set(abandoned)
            check_wanted(abandoned)
            return function(*given, **named)

        future = self._pool.submit(contextvars.copy_context().run, call)
        future.add_done_callback(lambda _: self._leave())
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def _leave(self) -> None:
        self.inside -= 1


def current_study() -> threading.Event | None:
    """Return what is set when nobody waits any more for the study of this thread; None outside of `Admission.run`."""
    return _ABANDONED.get()


def check_wanted(abandoned: threading.Event | None) -> None:
    """Raise `Abandoned` where nobody waits any more."""
    if abandoned is not None and abandoned.is_set():
        raise Abandoned
