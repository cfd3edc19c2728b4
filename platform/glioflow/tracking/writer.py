"""The one writer of a run's metrics, which outlasts the store's absence."""

import json
from collections.abc import Mapping
from pathlib import Path

from glioflow import atomic
from glioflow.errors import RunFailed
from glioflow.tracking.machine import machine_use
from glioflow.tracking.runs import answers, now_ms
from glioflow.tracking.store import Tracking


class RunWriter:
    """The one writer of a run's metrics: batched by epoch, kept and sent again where the store is away for a while."""

    def __init__(self, uri: str, run_id: str, spool: Path) -> None:
        """Open the spool of `run_id`; what an earlier process could not send is sent first.

        Args:
            uri: Of the tracking store.
            run_id: The run.
            spool: File of lines (step, time in ms, metrics) that were not delivered yet.
        """
        self.uri, self.run_id, self.spool = uri, run_id, spool
        self._tracking: Tracking | None = None
        self._waiting = [json.loads(line) for line in spool.read_text().splitlines()] if spool.exists() else []

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Deliver with what the process uses of its machine, or keep in the spool until the next call."""
        self._waiting.append([step, now_ms(), {**metrics, **machine_use()}])
        try:
            self._deliver()
        except Exception:  # the store is away: a training must not die of it
            lines = "".join(json.dumps(entry) + "\n" for entry in self._waiting)
            atomic.write_text(self.spool, lines)

    def close(self, *, patience_s: float = 0) -> None:
        """Deliver what is left.

        Args:
            patience_s: How long a store that does not answer is waited for.

        Raises:
            RunFailed: If the store is still away; the metrics stay in the spool.
        """
        try:
            self._deliver(patience_s=patience_s)
        except Exception as error:
            raise RunFailed(f"metrics of run {self.run_id} wait in {self.spool}: {error}") from error

    def _deliver(self, *, patience_s: float = 0) -> None:
        if self._waiting:
            # MLflow itself would try for minutes, in the middle of a training.
            if not answers(self.uri, patience_s=patience_s):
                raise ConnectionError(f"{self.uri} does not answer")
            self._tracking = self._tracking or Tracking(self.uri, patience_s=0)
            while self._waiting:
                step, when_ms, metrics = self._waiting[0]
                self._tracking.log_metrics(self.run_id, metrics, step=step, when_ms=when_ms)
                self._waiting.pop(0)
        self.spool.unlink(missing_ok=True)
