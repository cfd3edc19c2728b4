"""The errors that people see: what is wrong, with the value, what to do about it, and the nearest valid choice."""

import difflib
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Self, TypedDict

# The environment variable with the door by which the caller came, which a process's children inherit.
DOOR = "GLIOFLOW_DOOR"
COMMAND_LINE, PYTHON, ENDPOINT = "command line", "python", "endpoint"
# Options that may be repeated on the command line are lists in Python.
_LISTS = {"allow_host": "allow_hosts", "channel": "channels", "cluster": "clusters", "feature": "features"}
_PLACEHOLDERS = ("DIR", "NAME")
_SQLITE_FULL = 13  # sqlite3.SQLITE_FULL, without importing sqlite3
# Most characters of a value in an error's line.
_MOST_SHOWN = 1000
# A limit in a rule and the index in a key such as `preprocess.0`, which do not name a value that equals them.
_OTHER_NUMBER = re.compile(r"\b(?:above|below|from|least|most|than|to) [-+.\de]+|(?<=[A-Za-z_])\.\d+\b")
# What the system says of a user's path that is of another kind than it should be, or closed to them.
_UNUSABLE_PATH = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    errno.ELOOP,
)
# Attributes with an error's cause: Python's two, and those of Ray tasks, SQLAlchemy and Ray Train.
_HOLD_A_CAUSE = ("__cause__", "__context__", "cause", "orig", "controller_failure", "health_check_failure")


def option(name: str, value: object = None) -> str:
    """Return an option as it is given at the door by which the caller came.

    Args:
        name: Its name at the endpoint, and on the command line but for hyphens.
        value: What to give it: True for a flag, a word in capitals as a placeholder; None names the option alone.

    Returns:
        `--resume RUN` on the command line, `resume="RUN"` in Python, `resume RUN` at the endpoint.
    """
    door = os.environ.get(DOOR, PYTHON)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if door == COMMAND_LINE:
        return f"--{name.replace('_', '-')}" + ("" if value is None or value is True else f" {shown}")
    if door == ENDPOINT:
        return name if value is None else f"{name} {shown}"
    keyword = _LISTS.get(name, name)
    if value is None:
        return keyword
    if isinstance(value, str) and value not in _PLACEHOLDERS:
        shown = f'["{value}"]' if name in _LISTS else f'"{value}"'
    return f"{keyword}={shown}"


def argument(name: str) -> str:
    """Return the name of an argument without a keyword: `OUT` on the command line, `out` in Python."""
    return name.upper() if os.environ.get(DOOR, PYTHON) == COMMAND_LINE else name


class GlioflowError(Exception):
    """Root of all errors that GlioFlow raises on purpose."""


class ErrorRecord(TypedDict):
    """A `UserError` in JSON, as the endpoint answers it; an older endpoint sends the first three keys only."""

    rule: str
    value: str | None
    choices: list[str] | None
    code: NotRequired[str]
    hint: NotRequired[str | None]
    file: NotRequired[str | None]


class UserError(GlioflowError, ValueError):
    """A mistake in what the caller gave: one line, no traceback, exit code 2.

    The line reads `FILE: RULE; got VALUE; HINT; did you mean NEAREST? Choose one of: CHOICES`. A part that is not given
    is left out, and so are a file and a value that the rule names already.

    Attributes:
        code: The kind of mistake, for programs; a subclass has its own where somebody treats it differently.
        rule: What is wrong, or what must hold.
        value: What was given, as text.
        choices: What would have been accepted, where that can be listed.
        hint: What to do about it.
        file: The file that the error is about.
    """

    code: ClassVar[str] = "invalid"

    def __init__(
        self,
        rule: str,
        value: object = None,
        choices: Iterable[object] | None = None,
        *,
        hint: str | None = None,
        file: Path | None = None,
    ) -> None:
        self.rule = rule
        self.value = None if value is None else _shortened(str(value))
        self.choices = None if choices is None else [str(choice) for choice in choices]
        self.hint, self.file = hint, file
        super().__init__(self._line())

    def _line(self) -> str:
        parts = [self.rule]
        if self.value is not None and not mentions(_OTHER_NUMBER.sub("", self.rule), self.value):
            parts.append(f"got {self.value or repr('')}")
        if self.hint:
            parts.append(self.hint)
        if self.choices:
            parts.append(_invitation(self.value, self.choices))
        line = "; ".join(parts)
        return line if self.file is None or mentions(line, str(self.file)) else f"{self.file}: {line}"

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rule", "value", "choices", "hint", "file")}

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle all parts, for Ray's processes."""
        return (partial(type(self), **self._fields()), ())

    def replace(self, **changes: Any) -> Self:
        """Return the same error with some of its parts changed."""
        return type(self)(**{**self._fields(), **changes})

    def to_record(self) -> ErrorRecord:
        """Return the parts for JSON, with only the file's name, since its path must not be revealed."""
        return {
            "rule": self.rule,
            "value": self.value,
            "choices": self.choices,
            "code": self.code,
            "hint": self.hint,
            "file": None if self.file is None else self.file.name,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the error that a record describes.

        Raises:
            KeyError: If the record lacks one of the three keys that every endpoint sends.
        """
        file = record.get("file")
        return cls(
            record["rule"],
            record["value"],
            record["choices"],
            hint=record.get("hint"),
            file=None if file is None else Path(file),
        )


class TooLarge(UserError):  # noqa: N818 - what it is
    """More than a limit allows; the endpoint answers 413."""

    code = "too-large"


def _shortened(value: str) -> str:
    """Return the beginning of a value: what a caller sent may be megabytes, which nobody reads or searches for."""
    return value if len(value) <= _MOST_SHOWN + len("...") else f"{value[:_MOST_SHOWN]}..."


def mentions(text: str, value: str) -> bool:
    """Return whether a text contains `value` as a separate word or words."""
    return value != "" and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def _invitation(value: str | None, choices: list[str]) -> str:
    """Return the choices in words, the one most like `value` first."""
    listed = f"choose one of: {', '.join(choices)}" if len(choices) > 1 else f"choose {choices[0]}"
    nearest = nearest_choice(value, choices)
    if nearest is None:
        return listed
    question = f"did you mean {nearest}?"
    return question if len(choices) == 1 else f"{question} C{listed[1:]}"


def nearest_choice(value: str | None, choices: Iterable[str]) -> str | None:
    """Return the choice whose spelling is closest to `value`; None if none is close, or `value` is a choice."""
    by_lower = {choice.lower(): choice for choice in choices}
    name = (value or "").strip("'\"")
    if len(name) < 3 or name in by_lower.values():  # one letter in common of two means nothing
        return None
    similar = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[similar[0]] if similar else None


class RunFailed(GlioflowError):  # noqa: N818 - named after what happened, as the exit code 1 is
    """A run that started properly and could not be finished: exit code 1."""


class DiskFull(GlioflowError, OSError):  # noqa: N818 - as RunFailed
    """A write for which there was no space: names the folder and how much is free; exit code 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        total, free = space_of(folder)
        available = f"{free / 2**20:.1f} of {total / 2**20:.0f} MiB free"
        super().__init__(f"no space left in {folder} ({available} now); free some space and continue")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the error for Ray's processes."""
        return (type(self), (self.folder,))


class StoreFailed(GlioflowError, OSError):  # noqa: N818 - as RunFailed
    """The home is out of reach: its object store failed, or a node does not see its folder.

    No fault of the work that needed it; exit code 1.
    """


class OutOfRoom(RunFailed):
    """The disk or memory of an endpoint is full, which is not a mistake of the caller; it answers 503."""

    def __init__(self) -> None:
        super().__init__("the endpoint has no room for the request; try again later")


def nearest_existing(folder: Path) -> Path:
    """Return `folder`, an absolute path, or the nearest one above it that exists."""
    # `os.path` returns False where `Path` raises: a name that is too long, a loop of links, a closed folder.
    return next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))


def space_of(folder: Path) -> tuple[int, int]:
    """Return total and free bytes of the disk that holds `folder`, an absolute path which may not exist."""
    usage = shutil.disk_usage(nearest_existing(folder))
    return usage.total, usage.free


def is_out_of_room(error: BaseException) -> bool:
    """Return whether an error or one of its causes is a lack of disk or memory, not a mistake of the caller."""
    return is_disk_full(error) or any(isinstance(each, MemoryError) for each in causes_of(error))


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error or one of its causes is a write to a full disk.

    It checks error numbers of the system or SQLite, not texts. A library that loses the number writes into a file
    that Python opened, where its error has Python's in its context (PyTorch), or gives bytes (safetensors, numpy).
    """
    return any(_is_lack_of_space(each) for each in causes_of(error))


def _is_lack_of_space(error: BaseException) -> bool:
    if isinstance(error, DiskFull) or getattr(error, "sqlite_errorcode", None) == _SQLITE_FULL:
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    ray_errors = sys.modules.get("ray.exceptions")
    return ray_errors is not None and isinstance(error, ray_errors.OutOfDiskError)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all its causes: Python's chain, and the errors inside those of Ray and SQLAlchemy."""
    waiting, given = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if id(each) in given:
            continue
        given.add(id(each))
        yield each
        failures = getattr(each, "worker_failures", None)
        held = [getattr(each, name, None) for name in _HOLD_A_CAUSE]
        held += failures.values() if isinstance(failures, dict) else []
        waiting += [inner for inner in held if isinstance(inner, BaseException)]


def one_line(error: BaseException, *, most: int = 200) -> str:
    """Return a library's message on one line, shortened; the type of error if it has none."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message, shortened, if the rest is detail."""
    return _lines(error)[0][:200]


def last_line(error: BaseException) -> str:
    """Return the last line of a library's message, if the rest is a trace."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def not_found(path: object, *, hint: str, what: str = "") -> UserError:
    """Return the error for a path of nothing, or for an address (URI) where a path must be given.

    Args:
        path: As given; a `Path` of an address has lost one of its slashes.
        hint: What to give instead.
        what: What it should be, such as "the clinical table".
    """
    named = f"{what} {path}".strip()
    if address := re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+):/(?:/(?!/))?(.*)", str(path)):
        return UserError(f"{what or 'this'} must be a path, not an address", "://".join(address.groups()), hint=hint)
    return UserError(f"{named} does not exist", path, hint=hint)


def unusable_path(error: BaseException) -> UserError | None:
    """Return the mistake that a system's error is, such as a path that is closed or too long; None of any other."""
    if not isinstance(error, OSError) or error.errno not in _UNUSABLE_PATH or error.filename is None:
        return None
    rule = f"{_shortened(str(error.filename))}: {str(error.strerror).lower()}"
    return UserError(rule, hint="choose another path, or correct this one")


def unknown_name(kind: str, name: object, choices: Iterable[object]) -> UserError:
    """Return the error for an unknown name, with the nearest known name and all of them, sorted."""
    return UserError(f"unknown {kind} {name!r}", name, sorted(str(choice) for choice in choices))
