"""Leases that allow one driver at a time: a file in a folder names the driver that uses it while it lives.

The files are numbered. The process that creates the next number holds the lease; the file system, or the object store
if the home is one, lets only one process create it.
"""

import _thread
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from glioflow.clock import now
from glioflow.cluster.lease_files import LeaseFiles, lease_files
from glioflow.cluster.processes import began, lives, machine
from glioflow.errors import UserError
from glioflow.progress import print_progress

RENEW_S = 10.0
# After this long without renewal, the holder is considered gone.
STALE_S = 60.0
_NAME = "lease-{:06d}.json"
# Leases that this process holds, by folder and file. Any other file of its own was left behind by a disk failure.
_HELD_HERE: set[tuple[str, str]] = set()
_TAKING = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease.

    Attributes:
        host: Name of its machine.
        pid: Its process id there.
        started: Start of that process, in seconds since its machine booted; process ids are reused.
        since: When it took the lease, UTC, ISO 8601, to the second.
        machine: Name of its machine, which only processes that can see the holder share.
    """

    host: str
    pid: int
    started: float
    since: str
    machine: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and has ended; False if that cannot be determined."""
        return self.machine == machine() and not lives(self.pid, self.started)


def this_process() -> Holder:
    """Return this process as the holder of a lease taken now."""
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, began(pid) or 0.0, now(), machine())


def holder_of(folder: Path) -> Holder | None:
    """Return the current holder of the lease of `folder`, or None."""
    files = lease_files(folder)
    newest = _newest(files)
    return None if newest is None else _living(files, newest, folder)


@contextmanager
def holding(folder: Path, what: str) -> Iterator[None]:
    """Hold the lease of `folder` while a block runs, replacing a holder that is gone.

    If another process takes the lease, which can happen after a suspension, this one ends as by Ctrl-C.

    Args:
        folder: The folder, which is created and kept.
        what: What the holder runs, for messages, such as `search s`.

    Raises:
        UserError: If another process holds it; names it and the time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = lease_files(folder)
    with _TAKING:
        lease = _take(files, what, folder)
        held = (os.path.realpath(folder), lease)
        _HELD_HERE.add(held)
    ended = threading.Event()
    keeper = threading.Thread(target=_renew, args=(files, lease, what, ended), name=f"lease of {what}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        _HELD_HERE.discard(held)
        with suppress(OSError):  # its store is unreachable: other processes wait until the lease is stale
            files.remove(lease)


def _take(files: LeaseFiles, what: str, folder: Path) -> str:
    newest = _newest(files)
    if newest is not None and (holder := _living(files, newest, folder)) is not None:
        raise _held(what, holder)
    mine = _NAME.format(0 if newest is None else _number(newest) + 1)
    try:
        files.claim(mine, json.dumps(asdict(this_process())))
    except FileExistsError:
        raise _held(what, _read(files, mine)) from None
    if (newest := _newest(files)) != mine and newest is not None:  # another process was faster
        files.remove(mine)
        raise _held(what, _read(files, newest))
    for name in files.names():
        if name != mine:
            files.remove(name)
    return mine


def _held(what: str, holder: Holder | None) -> UserError:
    by = "another process" if holder is None else f"process {holder.pid} on {holder.host} since {holder.since}"
    hint = f"wait until it ends, or end it; one that vanishes is replaced after {STALE_S:.0f} s"
    return UserError(f"{what} is run by {by}", hint=hint)


def _renew(files: LeaseFiles, lease: str, what: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        try:
            files.renew(lease)
        except FileNotFoundError:
            print_progress(f"{what} was taken over by another process; this one ends")
            _thread.interrupt_main()
            return
        except OSError:  # its disk is briefly unavailable
            continue


def _newest(files: LeaseFiles) -> str | None:
    return max(files.names(), default=None)


def _number(lease: str) -> int:
    return int(lease.removesuffix(".json").partition("-")[2])


def _living(files: LeaseFiles, lease: str, folder: Path) -> Holder | None:
    """Return the holder named in a file, if it is alive and still holds the lease."""
    holder = _read(files, lease)
    if holder is None or holder.is_gone:
        return None
    own = (holder.machine, holder.pid) == (machine(), os.getpid())
    if own and (os.path.realpath(folder), lease) not in _HELD_HERE:
        return None
    try:
        return None if files.age_s(lease) > STALE_S else holder
    except FileNotFoundError:
        return None


def _read(files: LeaseFiles, lease: str) -> Holder | None:
    try:
        return Holder(**json.loads(files.read(lease)))
    except (OSError, ValueError, TypeError):
        return None
