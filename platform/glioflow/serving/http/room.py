"""A limit of what several requests hold in memory at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Room for bytes or values; what is larger waits until it is alone."""

    def __init__(self, size: int) -> None:
        """Begin with all of it free."""
        self._size, self._used = size, 0
        self._changed = asyncio.Condition()
        self.waiting = 0

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Reserve room for a block, once available; nothing waits for nothing."""
        self.waiting += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not size or not self._used or self._used + size <= self._size)
                self._used += size
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            async with self._changed:
                self._used -= size
                self._changed.notify_all()
