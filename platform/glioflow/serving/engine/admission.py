"""Limits the studies of a process and abandons those no longer wanted; independent of Ray and HTTP."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from glioflow.abandonment import call_until
from glioflow.errors import UserError

Result = TypeVar("Result")


class Full(UserError):  # noqa: N818 - what it is
    """The queue of waiting studies is full."""

    code = "busy"


class Admission:
    """Threads for a limited number of studies; a limited number more wait in order of arrival.

    Attributes:
        inside: Number of studies being computed or waiting.
    """

    def __init__(self, at_once: int, waiting: int, *, values: int | None = None) -> None:
        """Accept at most `at_once + waiting` studies.

        Args:
            at_once: Studies in threads.
            waiting: Studies that wait for a thread.
            values: Most image values of all studies in threads; a larger study is computed alone. None is no limit.
        """
        self._most, self._values, self.inside, self._used = at_once + waiting, values, 0, 0
        self._pool = ThreadPoolExecutor(at_once, "study")
        self._turns: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def run(self, function: Callable[[], Result], *, values: int = 0) -> Result | Full:
        """Call a function in a thread; on cancellation, do not start it, or end it at its next `check_wanted`.

        Args:
            function: Without arguments.
            values: Number of values of its study's image; it waits until they fit the limit.
        """
        if self.inside >= self._most:
            return Full("the endpoint is busy; try again", f"{self.inside} studies")
        self.inside += 1
        try:
            await self._take_turn(values)
        except asyncio.CancelledError:
            self.inside -= 1
            raise
        abandoned = threading.Event()
        loop = asyncio.get_running_loop()
        future = self._pool.submit(call_until, abandoned, function)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, values))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    async def _take_turn(self, values: int) -> None:
        if not self._turns and self._fits(values):
            self._used += values
            return
        turn = asyncio.get_running_loop().create_future()
        self._turns.append((values, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn had come already
                self._give_back(values)
            else:
                self._turns.remove((values, turn))
                self._call_next()
            raise

    def _fits(self, values: int) -> bool:
        return self._values is None or not self._used or self._used + values <= self._values

    def _leave(self, values: int) -> None:
        self.inside -= 1
        self._give_back(values)

    def _give_back(self, values: int) -> None:
        self._used -= values
        self._call_next()

    def _call_next(self) -> None:
        while self._turns and self._fits(self._turns[0][0]):
            values, turn = self._turns.popleft()
            self._used += values
            turn.set_result(None)
