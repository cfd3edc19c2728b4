"""Records that a run has yet to send to MLflow, in a file with one JSON object per line."""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from glioflow.cluster.remote_home import fetch, node_name, share, withdraw
from glioflow.cluster.storage import home, home_uri
from glioflow.tracking.datasets import Dataset
from glioflow.tracking.entities import as_metrics, as_params, as_tags
from glioflow.tracking.runs import Runs

# Name of the file in a run's folder, and of the folder with one file per node.
SPOOL = "spool.jsonl"
_SPOOLS = "spools"
Status = Literal["FINISHED", "FAILED", "KILLED"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metrics(_Record):
    """Metrics of a step, with the time of measurement."""

    record: Literal["metrics"] = "metrics"
    metrics: dict[str, float | None]
    step: int
    when_ms: int

    def send(self, runs: Runs, run_id: str) -> None:
        """Log them."""
        runs.log_metrics(run_id, self.metrics, step=self.step, when_ms=self.when_ms)


class Params(_Record):
    """Parameters of the run, nested ones too."""

    record: Literal["params"] = "params"
    params: dict[str, Any]

    def send(self, runs: Runs, run_id: str) -> None:
        """Log them."""
        runs.log_params(run_id, self.params)


class Input(_Record):
    """A data set of the run."""

    record: Literal["input"] = "input"
    dataset: Dataset

    def send(self, runs: Runs, run_id: str) -> None:
        """Log it."""
        runs.log_dataset(run_id, self.dataset)


class Tags(_Record):
    """Tags of the run."""

    record: Literal["tags"] = "tags"
    tags: dict[str, str]

    def send(self, runs: Runs, run_id: str) -> None:
        """Set them."""
        runs.set_tags(run_id, self.tags)


class File(_Record):
    """A file that becomes the artifact `name`."""

    record: Literal["file"] = "file"
    path: str
    name: str

    def send(self, runs: Runs, run_id: str) -> None:
        """Upload it."""
        runs.log_file(run_id, self.path, name=self.name)


class Folder(_Record):
    """A folder whose files become artifacts below `folder`."""

    record: Literal["folder"] = "folder"
    path: str
    folder: str

    def send(self, runs: Runs, run_id: str) -> None:
        """Upload them."""
        runs.log_folder(run_id, self.path, folder=self.folder)


class Picture(_Record):
    """A PNG of a step, which MLflow shows under `key` with a slider over the steps."""

    record: Literal["picture"] = "picture"
    path: str
    key: str
    step: int
    when_ms: int

    def send(self, runs: Runs, run_id: str) -> None:
        """Upload it, unless it exists."""
        runs.log_picture(run_id, self.path, key=self.key, step=self.step, when_ms=self.when_ms)


class End(_Record):
    """The end of the run, with its tags, such as the reason of a failure."""

    record: Literal["end"] = "end"
    status: Status
    when_ms: int
    tags: dict[str, str] = {}

    def send(self, runs: Runs, run_id: str) -> None:
        """Close the run; a failure does not change a run that another process closed before."""
        if self.status != "FINISHED" and runs.run(run_id).info.status != "RUNNING":
            return
        if self.tags:
            runs.set_tags(run_id, self.tags)
        runs.finish(run_id, self.status, when_ms=self.when_ms)


Record = Annotated[Metrics | Params | Input | Tags | File | Folder | Picture | End, Field(discriminator="record")]
_RECORD: TypeAdapter[Record] = TypeAdapter(Record)
# In earlier versions, lines were lists of a method's name and its arguments.
_OLD_NAMES: Mapping[str, str] = {
    "log_metrics": "metrics",
    "log_file": "file",
    "log_folder": "folder",
    "log_picture": "picture",
    "finish": "end",
}


def send_all(records: Iterable[Record], runs: Runs, run_id: str) -> None:
    """Send records in order; consecutive metrics, parameters and tags go in one call."""
    for together, some in groupby(records, key=lambda record: isinstance(record, Metrics | Params | Tags)):
        if not together:
            for record in some:
                record.send(runs, run_id)
            continue
        metrics, params, tags = [], [], []
        for record in some:
            if isinstance(record, Metrics):
                metrics += as_metrics(record.metrics, step=record.step, when_ms=record.when_ms)
            elif isinstance(record, Params):
                params += as_params(record.params)
            elif isinstance(record, Tags):
                tags += as_tags(record.tags)
        runs.log_batch(run_id, metrics, params, tags)


def run_folder(run_id: str) -> Path:
    """Return the folder of a run's working files under the home."""
    return home() / "runs" / run_id


def spool_of(run_id: str) -> Path:
    """Return the file in which a run's records wait while MLflow is unreachable.

    If the home is an object store, each node has its own spool, which is copied for the others.
    """
    return run_folder(run_id) / SPOOL if home_uri() is None else run_folder(run_id) / _SPOOLS / node_name() / SPOOL


def spools_of(run_id: str) -> list[Path]:
    """Return the existing spools of a run, including those of other nodes."""
    if home_uri() is None:
        return [path] if (path := spool_of(run_id)).exists() else []
    fetch(run_folder(run_id) / _SPOOLS)
    return sorted((run_folder(run_id) / _SPOOLS).glob(f"*/{SPOOL}"))


def copy_for_others(path: Path) -> None:
    """Copy a spool and the files of its records to where other nodes find them if this node is lost."""
    if home_uri() is None:
        return
    for record in read_spool(path):
        if isinstance(record, File | Folder | Picture):
            share(Path(record.path))
    share(path)


def drop_copy(path: Path) -> None:
    """Remove the copy of a spool, which others might send."""
    if home_uri() is not None:
        withdraw(path.parent)


def read_spool(path: Path) -> list[Record]:
    """Return the records in a spool, except an incomplete last line."""
    return [_relocated(_parse(json.loads(line)), path.parent) for line in _complete_part(path).splitlines()]


def _relocated(record: Record, folder: Path) -> Record:
    """Return a record with its file's path in the current run folder, if the home was moved since."""
    if not isinstance(record, File | Folder | Picture) or Path(record.path).exists():
        return record
    if Path(record.path).is_relative_to(home()):  # this node wrote it
        fetch(Path(record.path))
        if Path(record.path).exists():
            return record
    _, name, below = record.path.rpartition(f"/{folder.name}/")
    return record.model_copy(update={"path": str(folder / below)}) if name and (folder / below).exists() else record


def _complete_part(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _parse(line: Any) -> Record:
    if isinstance(line, list):
        name, arguments = line
        line = {"record": _OLD_NAMES[name], **arguments}
    return _RECORD.validate_python(line)


def append_to_spool(path: Path, record: Record) -> None:
    """Append a record atomically, replacing an incomplete last line of an earlier writer.

    Raises:
        OSError: If the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = record.model_dump_json().encode() + b"\n"
    with path.open("ab", buffering=0) as file:
        size = len(_complete_part(path))
        file.truncate(size)
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(size)
            raise
