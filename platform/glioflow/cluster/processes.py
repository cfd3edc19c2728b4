"""Processes of this machine: which of them live, whatever becomes of its clock."""

import os
import socket
from pathlib import Path

import psutil

# Two looks at one process differ by less; a process id is not given again so soon.
_TOLERANCE_S = 2.0


def machine() -> str:
    """Return what names the processes that this one can see: a boot of a machine, and a container on it.

    A host's name does not: containers in the host's network have it, too.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def began(pid: int) -> float | None:
    """Return when a process began, in seconds since its machine did; None where there is none, or a dead one.

    The time of day at which it began changes with the clock.
    """
    try:
        boot = psutil.boot_time()
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() - boot, 2)
    except psutil.Error:
        return None


def lives(pid: int, since: float) -> bool:
    """Return whether the process that `began` at `since` lives; a later one of its number is another."""
    now = began(pid)
    return now is not None and abs(now - since) < _TOLERANCE_S
