"""From a request's files to a study, which is held in memory until the request is answered."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from fastapi import UploadFile

from glioflow.abandonment import call_until
from glioflow.cluster.scratch import study_folder
from glioflow.data.case import Case
from glioflow.serving.http.refusals import Busy
from glioflow.serving.http.room import Room
from glioflow.serving.http.uploads import save_study
from glioflow.serving.settings import ServeSettings

Result = TypeVar("Result")


class OpenedStudies:
    """The studies that one gateway holds: a megabyte of files may become a gigabyte of values."""

    def __init__(self, settings: ServeSettings) -> None:
        """Hold as many values as the settings allow."""
        self.limits, self._room = settings.limits, Room(settings.values_in_gateway)

    @asynccontextmanager
    async def opened(
        self, files: Sequence[UploadFile], read: Callable[[Sequence[Path], Path], Case]
    ) -> AsyncIterator[Case]:
        """Save a request's files in a folder and read them, once there is room for their values.

        Args:
            files: The files as they were sent.
            read: Called in a thread with the saved files and their folder.

        Raises:
            Busy: If too many wait for room, or the files are not read in time.
            UserError: As `save_study` and `read` do.
        """
        with study_folder() as folder:
            uploads = [(file.filename or "", file.file) for file in files]
            began = time.monotonic()
            saved, values = await self._in_time(partial(save_study, uploads, Path(folder), self.limits), began)
            if self._room.waiting >= self.limits.queued:
                raise Busy
            async with self._room.taken(values):
                yield await self._in_time(partial(read, saved, Path(folder)), began)

    async def _in_time(self, work: Callable[[], Result], began: float) -> Result:
        """Call a function in a thread, which ends at its next `check_wanted` if it is late or its caller has left."""
        abandoned, loop = threading.Event(), asyncio.get_running_loop()
        late = loop.call_later(began + self.limits.timeout_s - time.monotonic(), abandoned.set)
        future = loop.run_in_executor(None, call_until, abandoned, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            abandoned.set()
            await asyncio.gather(future, return_exceptions=True)  # it uses its files and its room until it ends
            raise
        except Exception:  # a reader may have wrapped `Abandoned`
            if abandoned.is_set():
                raise Busy(f"the study was not read within {self.limits.timeout_s:g} s; try again") from None
            raise
        finally:
            late.cancel()
