"""One driver at a time: a file in the folder of what it runs names it, as long as it lives.

The files are numbered. Whoever makes the next number holds the lease, which the file system grants one process only.
"""

import _thread
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from glioflow.clock import now
from glioflow.cluster.processes import began, lives, machine
from glioflow.cluster.starting import tell
from glioflow.errors import UserError

RENEW_S = 10.0
# A holder that did not renew its lease for so long is gone.
STALE_S = 60.0
_NAME = "lease-{:06d}.json"


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease.

    Attributes:
        host: Name of its machine.
        pid: Its process id there.
        started: When that process began, in seconds since its machine did; process ids are given again.
        since: When it took the lease, UTC, ISO 8601, to the second.
        machine: Its machine, as only those who can see its process call it.
    """

    host: str
    pid: int
    started: float
    since: str
    machine: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and does no more; False where that cannot be seen."""
        return self.machine == machine() and not lives(self.pid, self.started)


def holder_of(folder: Path) -> Holder | None:
    """Return who holds the lease of `folder` now; None where nobody does."""
    newest = _newest(folder)
    return None if newest is None else _living(newest)


@contextmanager
def holding(folder: Path, what: str) -> Iterator[None]:
    """Hold the lease of `folder` while a block runs. A holder that vanished is replaced.

    Should another process replace this one, which can happen after it was suspended, it is ended as by Ctrl-C.

    Args:
        folder: It is made, and stays.
        what: What the holder runs, for people: `search s`.

    Raises:
        UserError: If another process holds it; says which and since when.
    """
    lease = _take(folder, what)
    ended = threading.Event()
    keeper = threading.Thread(target=_renew, args=(lease, what, ended), name=f"lease of {what}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        lease.unlink(missing_ok=True)


def _take(folder: Path, what: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    newest = _newest(folder)
    if newest is not None and (holder := _living(newest)) is not None:
        raise _held(what, holder)
    mine = folder / _NAME.format(0 if newest is None else _number(newest) + 1)
    descriptor, working = tempfile.mkstemp(dir=folder, prefix=".lease-")
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o644)  # other users of a home read it, too
            pid = os.getpid()
            json.dump(asdict(Holder(socket.gethostname(), pid, began(pid) or 0.0, now(), machine())), file)
        _claim(Path(working), mine)
    except FileExistsError:
        raise _held(what, _read(mine)) from None
    finally:
        os.unlink(working)
    if (newest := _newest(folder)) != mine and newest is not None:  # taken between our look and our file
        mine.unlink(missing_ok=True)
        raise _held(what, _read(newest))
    for path in folder.glob("lease-*.json"):
        if path != mine:
            path.unlink(missing_ok=True)
    return mine


def _claim(written: Path, mine: Path) -> None:
    """Give a written file its number; raises `FileExistsError` where another process has it."""
    try:
        os.link(written, mine)
    except FileExistsError:
        raise
    except OSError:  # no hard links there, such as on a Windows share
        with mine.open("x") as file:
            file.write(written.read_text())


def _held(what: str, holder: Holder | None) -> UserError:
    by = "another process" if holder is None else f"process {holder.pid} on {holder.host} since {holder.since}"
    hint = f"wait until it ends, or end it; one that vanishes is replaced after {STALE_S:.0f} s"
    return UserError(f"{what} is run by {by}", hint=hint)


def _renew(lease: Path, what: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        try:
            os.utime(lease)
        except FileNotFoundError:
            tell(f"{what} was taken over by another process; this one ends")
            _thread.interrupt_main()
            return
        except OSError:  # its disk is away for a moment
            continue


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("lease-*.json"), default=None)


def _number(lease: Path) -> int:
    return int(lease.stem.partition("-")[2])


def _living(lease: Path) -> Holder | None:
    """Return the holder that a file names, if it lives."""
    holder = _read(lease)
    try:
        renewed = lease.stat().st_mtime
    except FileNotFoundError:
        return None
    return None if holder is None or holder.is_gone or _time_of(lease.parent) - renewed > STALE_S else holder


def _time_of(folder: Path) -> float:
    """Return the time of a folder's disk, which is that of its files: the clocks of two machines differ."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".lease-") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # it may only be read
        return time.time()


def _read(lease: Path) -> Holder | None:
    try:
        return Holder(**json.loads(lease.read_text()))
    except (OSError, ValueError, TypeError):
        return None
