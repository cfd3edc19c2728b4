"""How a local Ray starts: where it keeps its sockets, and what is said while it takes long."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glioflow.errors import UserError, nearest_existing

EVERY_S = 15.0
# A socket's path has at most 107 bytes on Linux. Ray's own folders in it, with the longest process id and a number that
# Ray appends where the name is taken:
MAX_SOCKET_BYTES = 107
_OF_RAY = "/session_2026-11-27_06-56-23_123456_4194304/sockets/plasma_store.1"
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def session_folder() -> Path | None:
    """Return where a local Ray must keep its sessions; None where its own choice, RAY_TMPDIR or TMPDIR, will do.

    Raises:
        UserError: If that is too long for a socket, and no shorter folder can be written to.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    if name is None or _is_short_enough(Path(os.environ[name]) / "ray"):
        return None
    given = os.environ[name]
    for folder in (Path(short) / "ray" for short in _SHORT_FOLDERS):
        if os.access(nearest_existing(folder), os.W_OK | os.X_OK):
            tell(f"{name}={given} is too long a path for Ray's sockets; Ray uses {folder} instead")
            return folder
    raise UserError(
        f"{name} must have at most {MAX_SOCKET_BYTES - len(_OF_RAY) - len('/ray')} bytes, as Ray keeps sockets in it",
        given,
        hint=f"set RAY_TMPDIR to a shorter path, since none of {', '.join(_SHORT_FOLDERS)} can be written to",
    )


def _is_short_enough(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(_OF_RAY) <= MAX_SOCKET_BYTES


@contextmanager
def reporting_the_wait(what: str) -> Iterator[None]:
    """Say every 15 seconds, while a block runs, that it waits for `what` and how long it has waited."""
    ended = threading.Event()

    def report() -> None:
        waited_s = 0.0
        while not ended.wait(EVERY_S):
            waited_s += EVERY_S
            tell(f"waiting for {what} ({waited_s:.0f} s so far)")

    reporter = threading.Thread(target=report, name="waiting for Ray", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()


def tell(text: str) -> None:
    """Print one line for people."""
    print(text, file=sys.stderr, flush=True)
