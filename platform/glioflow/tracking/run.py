"""A run from start to end: lineage, data sets, spool, and a final status in every case."""

import contextlib
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from glioflow import atomic, cluster
from glioflow.cluster.lease import holder_of, holding
from glioflow.cluster.remote_home import changed_at, list_shared
from glioflow.cluster.storage import home
from glioflow.errors import GlioflowError, one_line
from glioflow.progress import print_progress
from glioflow.tracking.cohort_uses import note_use
from glioflow.tracking.datasets import Dataset
from glioflow.tracking.lease import check_lease, expired, lease_tags, leased
from glioflow.tracking.lineage import ENVIRONMENT, command, environment, source_state, who
from glioflow.tracking.spool import (
    End,
    File,
    Input,
    Params,
    Status,
    append_to_spool,
    read_spool,
    run_folder,
    spool_of,
    spools_of,
)
from glioflow.tracking.store import Tracking
from glioflow.tracking.writer import PATIENCE_S, RunWriter
from glioflow.version import __version__

Kind = Literal[
    "train",
    "trial",
    "fold",
    "crossval",
    "search",
    "evaluation",
    "compare",
    "audit",
    "association",
    "survival",
    "decision",
    "reproduction",
    "shadow",
]
# Commands that continue a run, one process at a time.
_RESUMABLE = ("train", "crossval", "search")
# Tag of a failed run: the reason.
REASON = "glioflow.reason"
DIFF = "uncommitted.diff"
# Tag of a run that continued with other code than it began with: all code that continued it.
RESUMED_WITH = "glioflow.resumed_with"


@dataclass(frozen=True)
class Opening:
    """The data that a run starts with, besides its lineage.

    Attributes:
        kind: Kind of the run; its tag `glioflow.kind`.
        experiment: Name of the MLflow experiment.
        name: Shown in MLflow, whose table shows about a dozen letters of a child's name.
        parent: Id of the parent run.
        tags: Its own tags.
        params: Its parameters, nested ones too.
        texts: Initial text artifacts, by name.
        datasets: Its data sets; their digests become tags too.
    """

    kind: Kind
    experiment: str
    name: str
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()


class Run(RunWriter):
    """A writer that also closes the run when its block ends.

    Success closes the run as `FINISHED`, waiting at most `patience_s` for an unreachable MLflow.
    Ctrl-C and SIGTERM close it as `KILLED`, any other exception as `FAILED` with its reason, without waiting; the
    exception propagates.
    """

    def __init__(
        self,
        uri: str,
        run_id: str,
        spool: Path | None,
        *,
        patience_s: float = PATIENCE_S,
        tracking: Tracking | None = None,
        every_s: float = 0,
    ) -> None:
        super().__init__(uri, run_id, spool, tracking=tracking, every_s=every_s)
        self.patience_s = patience_s

    def __enter__(self) -> Self:
        cluster.interrupt_on_sigterm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            self.close(patience_s=self.patience_s)
            send_waiting(self.uri, self.run_id)  # what its workers on other nodes could not
        else:
            self.abandon(error)

    def abandon(self, error: BaseException) -> None:
        """Close the run with the status for `error`; ignore a failure to do so, since `error` matters more."""
        status: Status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
        with contextlib.suppress(Exception):
            self.finish(status, tags={} if status == "KILLED" else {REASON: _reason(error)})


def _reason(error: BaseException) -> str:
    kind = "" if isinstance(error, GlioflowError) or not str(error) else f"{type(error).__name__}: "
    return f"{kind}{one_line(error, most=500)}"[:500]


def begin_run(tracking: Tracking, opening: Opening, *, later: bool = False) -> str:
    """Open a run with its lineage and leave it open for a `Run` in another process to write and close.

    Args:
        tracking: Store of the run.
        opening: Initial data of the run.
        later: Whether everything but its tags waits in the spool for its writer's first record.

    Returns:
        The run's id.
    """
    if opening.parent is None:
        send_left(tracking)
        with contextlib.suppress(Exception):  # failing to close abandoned runs must not prevent this one
            close_expired(tracking, tracking.open_runs(opening.experiment))
    state = source_state()
    tags = {
        "glioflow.kind": opening.kind,
        "glioflow.version": __version__,
        "python": platform.python_version(),
        "mlflow.user": who(),
        **state.tags,
    }
    if opening.parent is None:  # a child shares its parent's command
        tags |= {"command": command(), "mlflow.source.name": opening.kind, "mlflow.source.type": "LOCAL"}
    for dataset in opening.datasets:
        tags = {**dataset.tags, **tags}
        if (fingerprint := dataset.tags.get("glioflow.cohort")) is not None:
            note_use(tracking.uri, fingerprint)
    run_id = tracking.start(opening.experiment, opening.name, tags={**tags, **opening.tags}, parent=opening.parent)
    try:
        if later:
            _keep_opening(spool_of(run_id), opening)
        else:
            _log_opening(tracking, run_id, opening, state.diff)
    except BaseException as error:
        Run(tracking.uri, run_id, spool_of(run_id)).abandon(error)
        raise
    return run_id


def _keep_opening(spool: Path, opening: Opening) -> None:
    """Leave a child run's initial data to its writer."""
    for dataset in opening.datasets:
        append_to_spool(spool, Input(dataset=dataset))
    for name, text in opening.texts.items():
        path = spool.with_suffix(".files") / name
        atomic.write_text(path, text)
        append_to_spool(spool, File(path=str(path), name=name))
    append_to_spool(spool, Params(params=dict(opening.params)))  # last: in one call with the first metrics


def _log_opening(tracking: Tracking, run_id: str, opening: Opening, diff: str) -> None:
    if opening.params:
        tracking.log_params(run_id, opening.params)
    for dataset in opening.datasets:
        tracking.log_dataset(run_id, dataset)
    texts = dict(opening.texts)
    if opening.parent is None:  # children ran the same code
        texts |= {ENVIRONMENT: environment(), **({DIFF: diff} if diff else {})}
    for name, text in texts.items():
        tracking.log_text(run_id, name, text)


@contextmanager
def open_run(
    tracking: Tracking, opening: Opening, *, keep: bool = True, patience_s: float = PATIENCE_S
) -> Iterator[Run]:
    """Open a run for a block that writes to it; see `Run` for how it is closed.

    Args:
        tracking: Store of the run.
        opening: Initial data of the run.
        keep: Whether records that MLflow does not accept at once wait in a spool. If not, this is an error, for runs
            that must not appear later if the recorded event never happened.
        patience_s: How long to wait for an unreachable MLflow after success.
    """
    run_id = begin_run(tracking, replace(opening, tags={**opening.tags, **lease_tags()}))
    spool = spool_of(run_id) if keep else None
    alone = holding(run_folder(run_id), f"run {run_id}") if opening.kind in _RESUMABLE else contextlib.nullcontext()
    try:
        with alone, leased(tracking, run_id), Run(tracking.uri, run_id, spool, patience_s=patience_s) as run:
            yield run
    finally:
        with contextlib.suppress(OSError):  # missing, or not empty
            run_folder(run_id).rmdir()


@contextmanager
def resume_run(tracking: Tracking, run_id: str) -> Iterator[Run]:
    """Reopen a run for a block that continues it; first send its waiting records.

    If it began with other code, say so and record it: the tags of the run's code are of its beginning.

    Raises:
        UserError: If no run has this id, or another process continues it, from this home or another.
        RunFailed: If MLflow does not accept the waiting records.
    """
    begun = tracking.run(run_id)
    check_lease(begun)
    run = Run(tracking.uri, run_id, spool_of(run_id))
    with holding(run_folder(run_id), f"run {run_id}"):
        send_waiting(tracking.uri, run_id)
        tracking.set_tags(run_id, {**lease_tags(), **_other_code(begun)})
        tracking.reopen(run_id)
        with leased(tracking, run_id), run:
            yield run


def _other_code(run: Any) -> dict[str, str]:
    """Return the tag of a run that continues with other code than before, after saying so; else nothing."""
    tags, now = run.data.tags, {"glioflow.version": __version__, **source_state().tags}
    began, this = _code({**now, **tags}), _code(now)
    with_ = [each for each in tags.get(RESUMED_WITH, "").split(", ") if each]
    if this == (with_ or [began])[-1]:
        return {}
    print_progress(
        f"run {run.info.run_id} began with GlioFlow {began} and continues with {this}: its numbers are of both"
    )
    return {RESUMED_WITH: ", ".join([*with_, this])}


def _code(tags: Mapping[str, str]) -> str:
    return f"{tags['glioflow.version']} (source {tags['glioflow.source'][:8]})"


def send_waiting(uri: str, run_id: str) -> None:
    """Send a run's waiting records, of this node and others, to the store at `uri`; raises as `RunWriter.close`."""
    for spool in spools_of(run_id):
        RunWriter(uri, run_id, spool).close()


def send_left(tracking: Tracking) -> None:
    """Send waiting records of runs that ended during an outage of MLflow; keep those that cannot be sent.

    A spool that changed within `PATIENCE_S` may belong to a waiting process, and is left to it.
    """
    for run_id in list_shared(home() / "runs"):
        with contextlib.suppress(Exception):
            for spool in spools_of(run_id):
                settled = time.time() - changed_at(spool) > PATIENCE_S
                if settled and any(isinstance(record, End) for record in read_spool(spool)):
                    RunWriter(tracking.uri, run_id, spool).close()


def close_children(tracking: Tracking, experiment: str, parent: str) -> None:
    """Close children that no process will close, and send waiting records of killed processes."""
    waiting = set(list_shared(home() / "runs"))
    for child in tracking.children(experiment, parent):
        if child.info.status == "RUNNING" or child.info.run_id in waiting:
            _close_left(tracking, child)


def close_expired(tracking: Tracking, runs: Sequence[Any]) -> None:
    """Close MLflow's `runs` whose process ended without closing them, and their children among `runs`.

    They become `KILLED` as of their process's last sign of life, and can still be resumed. A run whose driver
    holds the lease of its folder in this home is alive: MLflow was unreachable, or a clock is wrong.
    """
    for run, heard_ms in expired(runs):
        if holder_of(run_folder(run.info.run_id)) is not None:
            continue
        for child in runs:
            if child.data.tags.get("mlflow.parentRunId") == run.info.run_id:
                _close_left(tracking, child)
        _close_left(tracking, run, tags={REASON: "its process ended without closing it"}, when_ms=heard_ms)


def _close_left(
    tracking: Tracking, run: Any, *, tags: Mapping[str, str] | None = None, when_ms: int | None = None
) -> None:
    """Send a run's waiting records and, if that did not close it, mark the run as killed."""
    run_id = run.info.run_id
    send_waiting(tracking.uri, run_id)
    if run.info.status == "RUNNING" and tracking.run(run_id).info.status == "RUNNING":
        if tags:
            tracking.set_tags(run_id, tags)
        tracking.finish(run_id, "KILLED", when_ms=when_ms)
