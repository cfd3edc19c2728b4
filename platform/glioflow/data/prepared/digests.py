"""Digests of the files of raw cases, cached in the home, so that a file is read again only when it has changed."""

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from glioflow.cluster.storage import home
from glioflow.data.formats.record import Cohort
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.pipeline import Step
from glioflow.errors import UserError

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
    began = time.time_ns()
    with _known() as known, ThreadPoolExecutor(4) as threads:  # hashing releases the GIL
        marks = dict(zip(files, threads.map(_mark, files.values()), strict=True))
        digests = _look_up(known, {case_id: mark for case_id, (mark, _) in marks.items()})
        unread = [case_id for case_id in files if case_id not in digests]
        read = dict(zip(unread, threads.map(_digest_files, (files[case_id] for case_id in unread)), strict=True))
        settled = {i: digest for i, digest in read.items() if marks[i][1] < began - _SETTLED_NS}
        _keep(known, {marks[case_id][0]: digest for case_id, digest in settled.items()})
    digests |= read
    return {case_id: digests[case_id] for case_id in files}


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


def _mark(files: Iterable[Path]) -> tuple[str, int]:
    """Return a digest of the files' paths, sizes and times, and the latest of these times."""
    digest, latest = hashlib.blake2b(digest_size=16), 0
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


def _look_up(known: sqlite3.Connection | None, marks: dict[str, str]) -> dict[str, str]:
    """Return the cached digests by case."""
    known_digests: dict[str, str] = {}
    wanted = [*marks.values()]
    with contextlib.suppress(sqlite3.Error):
        for first in range(0, len(wanted) if known is not None else 0, _AT_ONCE):
            some = wanted[first : first + _AT_ONCE]
            assert known is not None
            query = f"SELECT mark, digest FROM digests WHERE mark IN ({','.join('?' * len(some))})"
            known_digests.update(known.execute(query, some))
    return {case_id: known_digests[mark] for case_id, mark in marks.items() if mark in known_digests}


def _keep(known: sqlite3.Connection | None, digests: dict[str, str]) -> None:
    """Store digests by mark, all or none of them."""
    if known is not None and digests:
        with contextlib.suppress(sqlite3.Error), known:
            known.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", digests.items())
