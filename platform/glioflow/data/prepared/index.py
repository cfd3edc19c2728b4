"""The index of a prepared cohort: its manifest in SQLite, so that only requested cases are read.

`manifest.json` is authoritative. The index is beside it and is rebuilt if it does not match.
"""

import contextlib
import hashlib
import os
import sqlite3
import tempfile
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from glioflow.data.prepared.manifest import CaseRecord, Manifest, WholeManifest, read_whole

_FILE = "index.sqlite"
_LAYOUT = 1
_ENDS = 1 << 16
_TABLES = """
CREATE TABLE manifest (layout INTEGER, mark TEXT, content TEXT);
CREATE TABLE cases (
    position INTEGER PRIMARY KEY, id TEXT UNIQUE, patient TEXT, institution TEXT, volume_px INTEGER, digest TEXT,
    slices INTEGER, record TEXT
);
"""


class Entry(NamedTuple):
    """Data about a case for a split; `volume_px` is None for a case without a mask; `digest` is as recorded."""

    id: str
    patient: str
    institution: str | None
    volume_px: int | None
    digest: str | None


class Index(Sequence[CaseRecord]):
    """The cases of a prepared cohort, sorted by id, each read on demand."""

    def __init__(self, folder: Path) -> None:
        """Open the index in a folder; build it first if there is none.

        Raises:
            UserError: If the folder has no valid manifest.
        """
        self.folder = folder
        self._lock = threading.Lock()
        self._connection = _open(folder) or _make(folder, read_whole(folder))
        self.manifest = Manifest.model_validate_json(self._one("SELECT content FROM manifest")[0])
        self._length = int(self._one("SELECT count(*) FROM cases")[0])

    def __reduce__(self) -> tuple[type["Index"], tuple[Path]]:
        return Index, (self.folder,)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> CaseRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[CaseRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> CaseRecord | tuple[CaseRecord, ...]:
        if isinstance(index, slice):
            return tuple(self[position] for position in range(len(self))[index])
        position = range(len(self))[index]
        return _parse(self._one("SELECT record FROM cases WHERE position = ?", position)[0])

    def __iter__(self) -> Iterator[CaseRecord]:
        return (_parse(record) for (record,) in self._rows("SELECT record FROM cases"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def find(self, case_id: str) -> CaseRecord | None:
        """Return the record of a case, or None if there is none with this id."""
        row = self._one("SELECT record FROM cases WHERE id = ?", case_id)
        return None if row is None else _parse(row[0])

    def ids(self) -> Iterator[str]:
        """Return all ids."""
        return (case_id for (case_id,) in self._rows("SELECT id FROM cases"))

    def entries(self) -> list[Entry]:
        """Return the data that a split needs about all cases."""
        return [Entry(*row) for row in self._rows("SELECT id, patient, institution, volume_px, digest FROM cases")]

    @property
    def num_slices(self) -> int:
        """Number of slices of all cases in the original geometry."""
        return int(self._one("SELECT total(slices) FROM cases")[0])

    def _one(self, query: str, *values: object) -> Any:
        with self._lock:
            return self._connection.execute(query, values).fetchone()

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of all cases by position, in chunks."""
        for first in range(0, len(self), 1000):
            with self._lock:
                some = self._connection.execute(
                    f"{query} WHERE position >= ? AND position < ? ORDER BY position", (first, first + 1000)
                ).fetchall()
            yield from some


def write_index(folder: Path, manifest: Manifest, cases: Iterable[CaseRecord]) -> bool:
    """Write the index beside the manifest, completely or not at all; return whether that was possible."""
    name = None
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{_FILE}.")
        os.close(descriptor)
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # a crash leaves only an unfinished file
            _fill(connection, folder, manifest, cases)
        os.chmod(name, 0o644)
        os.replace(name, folder / _FILE)
    except (OSError, sqlite3.Error):
        if name is not None:
            Path(name).unlink(missing_ok=True)
        return False
    return True


def _make(folder: Path, whole: WholeManifest) -> sqlite3.Connection:
    if write_index(folder, whole, whole.cases) and (opened := _open(folder)) is not None:
        return opened
    connection = sqlite3.connect(":memory:", check_same_thread=False)  # the folder is read-only
    _fill(connection, folder, whole, whole.cases)
    return connection


def _fill(connection: sqlite3.Connection, folder: Path, manifest: Manifest, cases: Iterable[CaseRecord]) -> None:
    with connection:
        connection.executescript(_TABLES)
        content = manifest.model_dump_json(include=set(Manifest.model_fields))
        connection.execute("INSERT INTO manifest VALUES (?, ?, ?)", (_LAYOUT, _mark(folder), content))
        rows = (
            (
                k,
                each.id,
                each.patient,
                each.institution,
                each.volume_px,
                each.digest,
                each.shape[0],
                each.model_dump_json(),
            )
            for k, each in enumerate(cases)
        )
        connection.executemany("INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _open(folder: Path) -> sqlite3.Connection | None:
    """Open the index if it is complete and matches the current manifest."""
    path, manifest = folder / _FILE, folder / "manifest.json"
    try:
        if path.stat().st_mtime_ns < manifest.stat().st_mtime_ns:
            return None
        # It is only ever replaced, never changed, so it needs no locks, which some network file systems lack.
        uri = f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        if connection.execute("SELECT layout, mark FROM manifest").fetchone() == (_LAYOUT, _mark(folder)):
            return connection
        connection.close()
    except (OSError, sqlite3.Error):
        return None
    return None


def _mark(folder: Path) -> str:
    """Return the size of the manifest and a digest of its two ends: the beginning has the fingerprints."""
    with (folder / "manifest.json").open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        ends = file.read(_ENDS)
        file.seek(max(0, size - _ENDS))
        return f"{size} {hashlib.blake2b(ends + file.read(), digest_size=16).hexdigest()}"


def _parse(record: str) -> CaseRecord:
    return CaseRecord.model_validate_json(record)
