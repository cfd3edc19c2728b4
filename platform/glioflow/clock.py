"""The time in the formats of records, MLflow and names, and periodic calls."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return as_text(time.time())


def as_text(seconds: float) -> str:
    """Return a time in seconds since 1970 in UTC, ISO 8601, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


def stamp(*, microseconds: bool = False) -> str:
    """Return this machine's time for the name of a search or folder, such as 20261127-194800."""
    return f"{datetime.now():%Y%m%d-%H%M%S-%f}"[: 22 if microseconds else 15]


@contextmanager
def repeating(call: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Call a function periodically, in a thread, while a block runs."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
