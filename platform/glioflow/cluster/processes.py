"""Processes of this machine: whether they are alive, independent of changes of the clock."""

import os
import socket
from pathlib import Path

import psutil

# Two readings for one process differ by less, and a process id is not reused so soon.
_TOLERANCE_S = 2.0


def machine() -> str:
    """Return an id for the set of processes visible here: the machine's boot and the container.

    The host's name does not suffice: containers in the host's network share it.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def began(pid: int) -> float | None:
    """Return when a process started, in seconds since boot; None if it does not exist or is dead.

    The time of day at which it started would change with the clock.
    """
    try:
        boot = psutil.boot_time()
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() - boot, 2)
    except psutil.Error:
        return None


def lives(pid: int, since: float) -> bool:
    """Return whether the process that `began` at `since` is alive; a later one with its id is another process."""
    now = began(pid)
    return now is not None and abs(now - since) < _TOLERANCE_S
