"""A limit of what several requests hold in memory at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Room for bytes or values, in order of arrival; what is larger than all of it waits until it is alone."""

    def __init__(self, size: int) -> None:
        """Begin with all of it free."""
        self._size, self._used = size, 0
        self._turns: deque[object] = deque()
        self._changed = asyncio.Condition()

    @property
    def waiting(self) -> int:
        """Return how many wait."""
        return len(self._turns)

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Reserve room for a block, once available; what needs none does not wait."""
        if size:
            await self._take(size)
        try:
            yield
        finally:
            self._used -= size
            async with self._changed:
                self._changed.notify_all()

    async def _take(self, size: int) -> None:
        turn = object()
        async with self._changed:
            self._turns.append(turn)
            try:
                await self._changed.wait_for(lambda: self._turns[0] is turn and self._fits(size))
                self._used += size
            finally:
                self._turns.remove(turn)
                self._changed.notify_all()  # it is the next one's turn

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self._size
