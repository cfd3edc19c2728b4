"""The time in the formats of records, MLflow and names."""

import time
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
