"""The one writer of a run, through an append-only spool that outlasts the store's absence and the writer's own end."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.errors import RunFailed
from glioflow.tracking.machine import machine_use
from glioflow.tracking.runs import answers, now_ms
from glioflow.tracking.store import Tracking

# How long a run waits for MLflow where it cannot go on without: at its beginning and at its end.
PATIENCE_S = 1200.0
# Of a run's folder: what its writer could not send yet.
SPOOL = "spool.jsonl"
_CALLS = ("log_metrics", "log_file", "log_folder", "log_picture", "finish")


class RunWriter:
    """The one writer of a run: each thing is a line of the spool first, and is sent as soon as the store answers.

    Lines are sent in order, and the spool goes when the store has all of them. A process that dies in between leaves
    them to the next writer; what is sent twice is there once.
    """

    def __init__(self, uri: str, run_id: str, spool: Path) -> None:
        """Take up what an earlier process could not send; it is sent first.

        Args:
            uri: Of the tracking store.
            run_id: The run.
            spool: File of lines, each a call and its arguments; contents that have no file yet go beside it.
        """
        self.uri, self.run_id, self.spool = uri, run_id, spool
        self._tracking: Tracking | None = None
        self._waiting = _read(spool)

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log the metrics of an epoch, with what the process uses of its machine."""
        self.log_metrics({**metrics, **machine_use()}, step=step)

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int = 0) -> None:
        """Log metrics as of now."""
        self._spool("log_metrics", metrics=dict(metrics), step=step, when_ms=now_ms())

    def log_picture(self, path: Path, *, key: str, step: int) -> None:
        """Log a picture of a step; its file must stay."""
        self._spool("log_picture", path=str(path), key=key, step=step, when_ms=now_ms())

    def log_folder(self, path: Path, *, folder: str) -> None:
        """Log a folder's files below the artifact folder `folder`; they must stay."""
        self._spool("log_folder", path=str(path), folder=folder)

    def log_bytes(self, name: str, content: bytes) -> None:
        """Log `content` as the artifact `name`, which may lie in folders."""
        path = self._files / name
        atomic.write_bytes(path, content)
        self._spool("log_file", path=str(path), name=name)

    def log_json(self, name: str, value: Any) -> None:
        """Log `value` as the JSON artifact `name`."""
        self.log_bytes(name, json.dumps(value, indent=1).encode())

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run: `FINISHED`, `FAILED` or `KILLED`."""
        self._spool("finish", status=status, when_ms=now_ms())

    def close(self, *, patience_s: float = 0) -> None:
        """Deliver what is left.

        Args:
            patience_s: How long a store that does not answer is waited for.

        Raises:
            RunFailed: If the store is still away; all stays in the spool.
        """
        try:
            self._deliver(patience_s=patience_s)
        except Exception as error:
            raise RunFailed(f"results of run {self.run_id} wait in {self.spool}: {error}") from error

    @property
    def _files(self) -> Path:
        return self.spool.with_suffix(".files")

    def _spool(self, call: str, **said: Any) -> None:
        self._waiting.append((call, said))
        unkept = None
        try:
            self.spool.parent.mkdir(parents=True, exist_ok=True)
            with self.spool.open("a") as file:
                file.write(json.dumps([call, said]) + "\n")
        except OSError as error:  # the disk is full: what the store takes at once needs no keeping
            unkept = error
        try:
            self._deliver()
        except Exception:  # the store is away: a training must not die of it
            if unkept is not None:
                raise unkept from None

    def _deliver(self, *, patience_s: float = 0) -> None:
        if self._waiting:
            # MLflow itself would try for minutes, in the middle of a training.
            if not answers(self.uri, patience_s=patience_s):
                raise ConnectionError(f"{self.uri} does not answer")
            self._tracking = self._tracking or Tracking(self.uri, patience_s=0)
            while self._waiting:
                call, said = self._waiting[0]
                getattr(self._tracking, call)(self.run_id, **said)
                self._waiting.pop(0)
        self.spool.unlink(missing_ok=True)
        shutil.rmtree(self._files, ignore_errors=True)


def _read(spool: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls that wait in a spool, without a last line in whose middle its writer died."""
    text = spool.read_text() if spool.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        atomic.write_text(spool, whole)
    calls = [(str(call), dict(said)) for call, said in map(json.loads, whole.splitlines())]
    assert all(call in _CALLS for call, _ in calls)
    return calls
