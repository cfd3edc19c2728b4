"""Main memory of this machine, or of the container in which the process runs."""

import contextlib
from pathlib import Path

import psutil

# Of a container, or of any process whose group has a limit (version 2 of control groups).
_GROUP = Path("/sys/fs/cgroup")


def total_memory() -> int:
    """Return the bytes of main memory that processes here may use at most."""
    limit = _limit()
    total = int(psutil.virtual_memory().total)
    return total if limit is None else min(total, limit)


def free_memory() -> int:
    """Return the free bytes of main memory, including those of the page cache that can be dropped."""
    limit = _limit()
    free = int(psutil.virtual_memory().available)
    return free if limit is None else min(free, max(0, limit - _used()))


def _limit() -> int | None:
    with contextlib.suppress(OSError, ValueError):  # no such groups; the word `max` if there is no limit
        return int((_GROUP / "memory.max").read_text())
    return None


def _used() -> int:
    with contextlib.suppress(OSError, ValueError, KeyError):
        parts = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        return int((_GROUP / "memory.current").read_text()) - int(parts["inactive_file"])
    return 0
