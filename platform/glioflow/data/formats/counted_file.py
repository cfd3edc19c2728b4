"""Files whose reading is counted: a header of millions of parts, each a few bytes, would keep a library busy."""

import io
from pathlib import Path

from glioflow.abandonment import check_wanted
from glioflow.errors import UserError


class Steps:
    """The reading steps that are left for a file, or for several."""

    def __init__(self, most: int, rule: str) -> None:
        """Allow `most` steps; `rule` is what a file breaks that needs more."""
        self._most, self._taken, self._rule = most, 0, rule

    def take(self, file: Path) -> None:
        """Count one step; raises `UserError` if none is left, and `Abandoned` if no caller waits any more."""
        check_wanted()
        self._taken += 1
        if self._taken > self._most:
            raise UserError(self._rule, f"more than {self._most} steps of reading", file=file)


class CountedFile(io.BufferedReader):
    """A file that is read in a limited number of steps; `read` raises `UserError` after the last."""

    def __init__(self, path: Path, steps: Steps) -> None:
        """Open a file for reading."""
        super().__init__(io.FileIO(str(path)))
        self.path, self.steps = path, steps

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes."""
        self.steps.take(self.path)
        return super().read(size)
