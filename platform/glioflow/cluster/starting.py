"""The folder for the sockets of a local Ray."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from glioflow.errors import UserError
from glioflow.progress import print_progress

# A socket's path has at most 107 bytes on Linux. Ray's own folders in it, with the longest process id and a number that
# Ray appends if the name is taken; those of Python's multiprocessing, which Ray's dashboard uses, are shorter.
MAX_SOCKET_BYTES = 107
_OF_RAY = "/ray/session_2026-11-27_06-56-23_123456_4194304/sockets/plasma_store.1"
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def short_socket_paths() -> Iterator[None]:
    """Make a Ray that starts in this block use a short folder for sockets if the user's path is too long.

    Its workers use that folder for temporary files; this process keeps the user's.

    Raises:
        UserError: If no short folder can be written to.
    """
    names = [name for name in ("RAY_TMPDIR", "TMPDIR") if not _is_short_enough(os.environ.get(name, ""))]
    if not names:
        yield
        return
    folder = _short_folder(names[0])
    for name in names:
        print_progress(f"{name}={os.environ[name]} is too long a path for Ray's sockets; Ray uses {folder} instead")
    before = {name: os.environ[name] for name in names}
    os.environ.update(dict.fromkeys(names, folder))
    try:
        yield
    finally:
        os.environ.update(before)


def _is_short_enough(folder: str) -> bool:
    return len(os.fsencode(folder)) + len(_OF_RAY) <= MAX_SOCKET_BYTES


def _short_folder(name: str) -> str:
    for folder in _SHORT_FOLDERS:
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise UserError(
        f"{name} must have at most {MAX_SOCKET_BYTES - len(_OF_RAY)} bytes, because Ray keeps sockets there",
        os.environ[name],
        hint=f"set RAY_TMPDIR and TMPDIR to a shorter path ({', '.join(_SHORT_FOLDERS)} cannot be written to)",
    )
