"""The writer of a run, whose records survive an outage of MLflow and the end of the writer."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.clock import now_ms
from glioflow.cluster.logins import without_password
from glioflow.errors import RunFailed
from glioflow.tracking.addresses import answers
from glioflow.tracking.machine import machine_use
from glioflow.tracking.outage import outlasting
from glioflow.tracking.spool import (
    End,
    File,
    Folder,
    Metrics,
    Picture,
    Record,
    Status,
    Tags,
    append_to_spool,
    copy_for_others,
    drop_copy,
    read_spool,
    send_all,
)
from glioflow.tracking.store import Tracking

# How long a run waits for MLflow at its start and at its end, when it cannot continue without it.
PATIENCE_S = 1200.0


class RunWriter:
    """The only writer of a run: each record goes to the spool first, and to MLflow as soon as it answers.

    Records are sent in order, and the spool is removed once MLflow has all of them. A process that ends in between
    leaves them to the next writer; a record that is sent twice is logged once.
    """

    def __init__(
        self, uri: str, run_id: str, spool: Path | None, *, tracking: Tracking | None = None, every_s: float = 0
    ) -> None:
        """Open the writer; records that an earlier process could not send are sent first.

        Args:
            uri: Address of the tracking store.
            run_id: The run.
            spool: File of waiting records; contents without a file are stored beside it. None keeps nothing:
                a record that MLflow does not accept at once is an error.
            tracking: The store, if already open in this process.
            every_s: Metrics of an epoch wait for the next record if something was sent less than this long ago; each
                time they are sent, the next ones wait this much longer.
        """
        self.uri, self.run_id, self.spool = uri, run_id, spool
        self.every_s, self._pause, self._sent = every_s, every_s, time.monotonic()
        self._tracking = tracking
        # A server that answered is not checked again; for a database the check costs nothing.
        self._reached = tracking is not None and uri.startswith("http")
        self._unkept: list[Record] = []  # records that neither disk nor store accepted

    def write(self, metrics: Mapping[str, float], *, step: int, last: bool = False) -> None:
        """Log the metrics of an epoch, with the process's resource use; those of the `last` go with the next record."""
        record = Metrics(metrics={**metrics, **machine_use()}, step=step, when_ms=now_ms())
        waits = self.every_s > 0 and (last or time.monotonic() - self._sent < self._pause)
        self._pause += 0 if waits else self.every_s
        self._record(record, waits=waits)

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int = 0) -> None:
        """Log metrics with the current time."""
        self._record(Metrics(metrics=dict(metrics), step=step, when_ms=now_ms()))

    def set_tags(self, tags: Mapping[str, str], *, waits: bool = False) -> None:
        """Set tags of the run, with the next record if they may wait."""
        self._record(Tags(tags=dict(tags)), waits=waits)

    def log_picture(self, path: Path, *, key: str, step: int) -> None:
        """Log a picture of a step; its file must not be removed."""
        self._record(Picture(path=str(path), key=key, step=step, when_ms=now_ms()))

    def log_folder(self, path: Path, *, folder: str) -> None:
        """Log a folder's files below the artifact folder `folder`; they must not be removed."""
        self._record(Folder(path=str(path), folder=folder))

    def log_bytes(self, name: str, content: bytes) -> None:
        """Log `content` as the artifact `name`, which may contain folders."""
        if self.spool is None:
            self._store().log_bytes(self.run_id, name, content)
            return
        path = self.spool.with_suffix(".files") / name
        atomic.write_bytes(path, content)
        self._record(File(path=str(path), name=name))

    def log_text(self, name: str, text: str) -> None:
        """Log `text` as the artifact `name`."""
        self.log_bytes(name, text.encode())

    def log_json(self, name: str, value: Any) -> None:
        """Log `value` as the JSON artifact `name`."""
        self.log_text(name, json.dumps(value, indent=1))

    def finish(self, status: Status = "FINISHED", *, tags: Mapping[str, str] | None = None) -> None:
        """Close the run; `tags` are set with its end."""
        self._record(End(status=status, when_ms=now_ms(), tags=dict(tags or {})))

    def close(self, *, patience_s: float = 0) -> None:
        """Send all waiting records.

        Args:
            patience_s: How long to wait for a store that does not answer.

        Raises:
            RunFailed: If the store is still unreachable; all records stay in the spool.
        """
        self._reached = False  # waiting records mean that it failed before
        try:
            outlasting(self.uri, self._deliver, patience_s=patience_s)
        except Exception as error:
            raise RunFailed(f"results of run {self.run_id} wait in {self.spool}: {error}") from error

    def _store(self) -> Tracking:
        self._tracking = self._tracking or Tracking(self.uri, ask=False)
        return self._tracking

    def _record(self, record: Record, *, waits: bool = False) -> None:
        if self.spool is None:
            record.send(self._store(), self.run_id)
            return
        refusal = None
        try:
            append_to_spool(self.spool, record)
        except OSError as error:  # the disk is full: records that the store accepts at once need no spool
            self._unkept.append(record)
            refusal = error
        if waits and refusal is None:
            self._copy()
            return
        try:
            self._deliver()
        except Exception:  # the store is unreachable: the training continues
            if refusal is not None:
                raise refusal from None
            self._copy()

    def _copy(self) -> None:
        """Copy the waiting records for other nodes; if that fails, the training continues."""
        assert self.spool is not None
        with contextlib.suppress(OSError):
            copy_for_others(self.spool)

    def _deliver(self) -> None:
        if self.spool is None or not (self.spool.exists() or self._unkept):
            return
        # MLflow itself would retry for minutes, in the middle of a training.
        if not self._reached and not answers(self.uri, patience_s=0):
            raise ConnectionError(f"{without_password(self.uri)} does not answer")
        # Read again: another process of the run, such as a training's worker, may have written since.
        records = (*read_spool(self.spool), *self._unkept)
        with _impatient(records) if self._reached else contextlib.nullcontext():
            self._reached = False
            send_all(records, self._store(), self.run_id)
        self._reached, self._sent = self.uri.startswith("http"), time.monotonic()
        self._unkept.clear()
        drop_copy(self.spool)
        self.spool.unlink(missing_ok=True)
        shutil.rmtree(self.spool.with_suffix(".files"), ignore_errors=True)


@contextlib.contextmanager
def _impatient(records: Sequence[Record]) -> Iterator[None]:
    """Make MLflow's client give up soon, unless the user set its retries and timeouts."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    if not any(isinstance(record, File | Folder | Picture) for record in records):  # an upload may take long
        limits["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "10"
    ours = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
