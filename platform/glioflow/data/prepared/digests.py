"""Digests of the files of raw cases and of copied prepared ones, cached in the home.

A file is read again only when it has changed.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from glioflow.cluster.storage import home
from glioflow.data.formats.record import Cohort
from glioflow.data.prepared.manifest import digest_file
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.pipeline import Step
from glioflow.errors import UserError

Key = TypeVar("Key", bound=Hashable)

_FILE = "digests.sqlite"
# A file that changed this recently may change again without a change of its times.
_SETTLED_NS = 2_000_000_000
_AT_ONCE = 500


def digest_cases(cohort: Cohort, steps: Sequence[Step]) -> dict[str, str]:
    """Return a digest of the files of each case, with the brain masks that the steps read.

    A case whose files have the same paths, sizes and times as at the last read is not read again.

    Raises:
        UserError: If a file cannot be read.
    """
    brains = [step for step in steps if isinstance(step, BrainMask)]
    files = {
        case.id: (*case.files, *(path for step in brains if (path := step.path(case.files, case.id)) is not None))
        for case in cohort.cases
    }
    return _digest_changed(files, _digest_files)


def digest_stored(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the digest of each file, as `digest_file`; a file that is as at the last read is not read again.

    Raises:
        UserError: If a file cannot be read.
    """

    def digest(files: Sequence[Path]) -> str:
        try:
            return digest_file(files[0])
        except OSError as error:
            raise _unreadable(files[0], error) from None

    return _digest_changed({path: (path,) for path in paths}, digest, kind="stored")


def _digest_changed(
    files: Mapping[Key, tuple[Path, ...]], digest: Callable[[Sequence[Path]], str], *, kind: str = ""
) -> dict[Key, str]:
    """Return the digests of groups of files: the cached one of this `kind`, or else that of a new read."""
    began = time.time_ns()
    with _known() as known, ThreadPoolExecutor(4) as threads:  # hashing releases the GIL
        marks = dict(zip(files, threads.map(partial(_mark, kind=kind), files.values()), strict=True))
        digests = _look_up(known, {key: mark for key, (mark, _) in marks.items()})
        unread = [key for key in files if key not in digests]
        read = dict(zip(unread, threads.map(digest, (files[key] for key in unread)), strict=True))
        settled = {key: text for key, text in read.items() if marks[key][1] < began - _SETTLED_NS}
        _keep(known, {marks[key][0]: text for key, text in settled.items()})
    digests |= read
    return {key: digests[key] for key in files}


def digest_reading(cohort: Cohort) -> str:
    """Return a digest of what else determines how the files are read; empty if nothing does.

    That is `dataset.json`, `cohort.yaml`, the series that the user chose, and the segments of DICOM segmentations; and
    persons and masks, if an earlier version read others from the same files.
    """
    segments = sorted(cohort.labels.items()) if cohort.format == "dicom" and len(cohort.labels) > 1 else []
    if not (cohort.inputs or cohort.chosen or segments or cohort.read_anew):
        return ""
    masks = {case.id: [file.name for file in cohort.roles.only("mask", case.files)] for case in cohort.cases}
    anew = [[(case.id, case.patient, masks[case.id]) for case in cohort.cases]] if cohort.read_anew else []
    reading = json.dumps([_digest_files(cohort.inputs), cohort.chosen, segments, *anew])
    return hashlib.blake2b(reading.encode(), digest_size=16).hexdigest()


def _mark(files: Iterable[Path], *, kind: str = "") -> tuple[str, int]:
    """Return a digest of the files' paths, sizes and times, and the latest of these times."""
    digest, latest = hashlib.blake2b(kind.encode(), digest_size=16), 0
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from None
        # Also uses the change time of the inode, which no program can set.
        digest.update(f"{os.path.abspath(path)}\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\0".encode())
        latest = max(latest, status.st_mtime_ns, status.st_ctime_ns)
    return digest.hexdigest(), latest


def _digest_files(files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        digest.update(path.name.encode())
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise _unreadable(path, error) from None
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError("a file of the cohort could not be read", error.strerror, file=path)


@contextlib.contextmanager
def _known() -> Iterator[sqlite3.Connection | None]:
    """Open the cache in the home; None if it cannot be used: then all files are read."""
    connection = None
    with contextlib.suppress(sqlite3.Error, OSError, UserError):
        home().mkdir(parents=True, exist_ok=True)
        try:
            connection = _connect(home() / _FILE)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damaged
            (home() / _FILE).unlink()
            connection = _connect(home() / _FILE)
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS digests (mark TEXT PRIMARY KEY, digest TEXT NOT NULL)")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _look_up(known: sqlite3.Connection | None, marks: dict[Key, str]) -> dict[Key, str]:
    """Return the cached digests."""
    known_digests: dict[str, str] = {}
    wanted = [*marks.values()]
    with contextlib.suppress(sqlite3.Error):
        for first in range(0, len(wanted) if known is not None else 0, _AT_ONCE):
            some = wanted[first : first + _AT_ONCE]
            assert known is not None
            query = f"SELECT mark, digest FROM digests WHERE mark IN ({','.join('?' * len(some))})"
            known_digests.update(known.execute(query, some))
    return {key: known_digests[mark] for key, mark in marks.items() if mark in known_digests}


def _keep(known: sqlite3.Connection | None, digests: dict[str, str]) -> None:
    """Store digests by mark, all or none of them."""
    if known is not None and digests:
        with contextlib.suppress(sqlite3.Error), known:
            known.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", digests.items())
