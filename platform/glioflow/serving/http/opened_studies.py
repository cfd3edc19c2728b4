"""From a request's files to a study, which is held in memory until the request is answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import UploadFile

from glioflow.cluster.scratch import study_folder
from glioflow.data.case import Case
from glioflow.serving.http.refusals import Busy
from glioflow.serving.http.room import Room
from glioflow.serving.http.uploads import save_study
from glioflow.serving.settings import ServeSettings


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
            Busy: If too many wait for room.
            UserError: As `save_study` and `read` do.
        """
        with study_folder() as folder:
            uploads = [(file.filename or "", file.file) for file in files]
            saved, values = await asyncio.to_thread(save_study, uploads, Path(folder), self.limits)
            if self._room.waiting >= self.limits.queued:
                raise Busy
            async with self._room.taken(values):
                yield await asyncio.to_thread(read, saved, Path(folder))
