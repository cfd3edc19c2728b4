"""The errors that people see: each says the rule, the value that broke it, and the choices."""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class GlioflowError(Exception):
    """Root of all errors that GlioFlow raises on purpose."""


class UserError(GlioflowError, ValueError):
    """A mistake in what the caller gave: one line, no traceback, exit code 2.

    Attributes:
        rule: What must hold.
        value: What was given instead, as text; None where the rule already says it.
        choices: What would have been accepted, where that can be listed.
    """

    def __init__(self, rule: str, value: object = None, choices: Iterable[object] | None = None) -> None:
        self.rule = rule
        self.value = None if value is None else str(value)
        self.choices = None if choices is None else [str(choice) for choice in choices]
        parts = [rule]
        if self.value is not None:
            parts.append(f"got {self.value}")
        if self.choices is not None:
            parts.append(f"choose one of [{', '.join(self.choices)}]")
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between Ray's processes without losing the parts."""
        return (type(self), (self.rule, self.value, self.choices))


class RunFailed(GlioflowError):  # noqa: N818 - named after what happened, as the exit code 1 is
    """A run that started properly and could not be finished: exit code 1."""


class DiskFull(GlioflowError, OSError):  # noqa: N818 - as RunFailed
    """A write that found no space: says where, and how much there is; exit code 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        space = space_of(folder)
        free = f"{space.free / 2**20:.1f} of {space.total / 2**20:.0f} MiB free"
        super().__init__(f"no space left in {folder} ({free} now); make space and go on")

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between Ray's processes."""
        return (type(self), (self.folder,))


def space_of(folder: Path) -> Any:
    """Return `total`, `used` and `free` bytes of the disk that holds `folder`, an absolute path which may not exist."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists()))


# How libraries that lose the system's error number say it: Ray and Rust's (and we), SQLite, PyTorch (twice), numpy.
_FULL = ("no space left", "disk is full", "pytorchstreamwriter failed", "unexpected pos", " requested and ")


def found_full(error: BaseException) -> bool:
    """Say whether an error, or what it came from, is a write that found no space."""
    came: BaseException | None = error
    while came is not None:
        number = came.errno if isinstance(came, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or any(words in str(came).lower() for words in _FULL):
            return True
        came = came.__cause__ or came.__context__
    return False


def unknown_name(kind: str, name: object, choices: Iterable[object]) -> UserError:
    """Return the error for a name that no registry knows, its choices sorted."""
    return UserError(f"unknown {kind} {name!r}", choices=sorted(str(choice) for choice in choices))
